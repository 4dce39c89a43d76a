"""The folder in which a companion keeps what must last, brought here by somebody else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from crucible.companions import starting
from crucible.companions.starting import Program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="companions become another user only for root")


def test_what_came_out_of_a_backup_belongs_to_the_companion_and_what_it_leads_to_does_not(
    tmp_path: Path,
) -> None:
    program = Program("bus", (), tmp_path, "test", keeps=True)
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "elsewhere").write_text("root's")
    (tmp_path / "data" / "store").write_text("a plugin's")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "another").hardlink_to(tmp_path / "elsewhere")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(2):
        data = starting._open_data(program, folder)
        assert data is not None
        os.close(data)
    os.close(folder)
    assert {path.stat().st_uid for path in (tmp_path / "data", tmp_path / "data" / "store")} == {program.uid}
    assert (tmp_path / "elsewhere").stat().st_uid == 0
