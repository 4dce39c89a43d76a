"""Looking at a stranger's scratch space: by no link, and not a descriptor left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crucible.runtimes import scratch
from crucible.runtimes.gauge import Gauge
from crucible.runtimes.scratch import close_scratch, open_scratch, used


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_is_in_use_is_what_the_file_systems_say() -> None:
    before = descriptors()
    opened = open_scratch(os.getpid())
    assert len(opened) == 2
    total = used(opened)
    assert total is not None
    assert total >= 0
    close_scratch(opened)
    assert descriptors() == before
    assert used(()) is None


@pytest.mark.parametrize("places", [("link",), ("link/tmp",), ("file",), ("nowhere",), ("real", "link")])
def test_what_is_no_folder_or_behind_a_link_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: tuple[str, ...]
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("/")
    (tmp_path / "file").write_text("")
    below = str(tmp_path).lstrip("/")
    monkeypatch.setattr(scratch, "PLACES", tuple(f"{below}/{place}" for place in places))
    before = descriptors()
    assert open_scratch(os.getpid()) == ()
    assert descriptors() == before


def test_a_gauge_that_is_closed_lets_them_go(tmp_path: Path) -> None:
    before = descriptors()
    gauge = Gauge((tmp_path,))
    gauge.scratch = open_scratch(os.getpid())
    assert descriptors() > before
    gauge.close()
    gauge.close()
    assert descriptors() == before
