"""The pipe of an instance's output, when something else is in its place."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from crucible.runtimes.process.output import PIPE, make_pipe, open_pipe

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pipe_that_its_plugin_closed_to_all_is_opened(tmp_path: Path) -> None:
    make_pipe(tmp_path, None)
    (tmp_path / PIPE).chmod(0)
    opened = open_pipe(tmp_path)
    try:
        assert stat.S_ISFIFO(os.fstat(opened).st_mode)
        os.write(opened, b"said")
        assert os.read(opened, 16) == b"said"
    finally:
        os.close(opened)


@pytest.mark.parametrize("kind", ["link to a pipe", "link to a device", "file"])
def test_what_took_the_place_of_a_pipe_is_neither_opened_nor_changed(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    place = tmp_path / PIPE
    if kind == "link to a pipe":
        os.mkfifo(target, 0o000)
        place.symlink_to(target)
    elif kind == "link to a device":
        place.symlink_to("/dev/zero")
    else:
        place.write_bytes(b"the host's own words")
        place.chmod(0)
    before = place.stat().st_mode
    with pytest.raises(OSError, match="not a pipe"):
        open_pipe(tmp_path)
    assert place.stat().st_mode == before
