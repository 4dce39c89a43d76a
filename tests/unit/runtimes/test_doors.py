"""Door sockets and their directory, where something else lies in their place."""

from __future__ import annotations

import socket
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from crucible.model.door import Door
from crucible.runtimes.doors import FOLDER, Doors, bind, discard

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_in_a_sockets_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    doors, outside = tmp_path / "doors", tmp_path / "outside"
    doors.mkdir()
    outside.write_text("the host's")
    outside.chmod(0o600)
    (doors / "egress.sock").symlink_to(outside)
    with closing(bind(doors, Door.EGRESS)), socket.socket(socket.AF_UNIX) as one:
        one.connect(str(doors / "egress.sock"))
    assert stat.S_ISSOCK((doors / "egress.sock").lstat().st_mode)
    assert outside.read_text() == "the host's"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def test_a_link_to_nothing_makes_no_socket_elsewhere(tmp_path: Path) -> None:
    doors, elsewhere = tmp_path / "doors", tmp_path / "elsewhere.sock"
    doors.mkdir()
    (doors / "bus.sock").symlink_to(elsewhere)
    bind(doors, Door.BUS).close()
    assert not elsewhere.exists()
    assert not (doors / "bus.sock").is_symlink()


def test_a_link_in_the_directorys_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    instance, elsewhere = tmp_path / "0-1", tmp_path / "elsewhere"
    instance.mkdir()
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "file").write_text("")
    (instance / FOLDER).symlink_to(elsewhere)
    with pytest.raises(OSError):
        bind(instance / FOLDER, Door.EGRESS)
    with pytest.raises(OSError):
        Doors(instance, (Door.EGRESS,)).open()
    discard(instance)
    assert [path.name for path in elsewhere.iterdir()] == ["file"]
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700


def test_a_folder_in_a_sockets_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "egress.sock").mkdir()
    (tmp_path / "egress.sock" / "file").write_text("")
    with pytest.raises(OSError):
        bind(tmp_path, Door.EGRESS)
    assert (tmp_path / "egress.sock" / "file").exists()
