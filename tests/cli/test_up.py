"""``crucible up`` where it cannot: one line that says why, and what to do."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.settings import Places


def test_a_state_folder_in_use_is_left_alone(crucible: Any, places: Places) -> None:
    ended = crucible("up", "--state", str(places.root))
    assert ended.code == 1
    assert "is in use by process" in ended.err.splitlines()[-1]


def test_a_state_folder_that_cannot_be_made_is_named(crucible: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = crucible("up", "--state", str(tmp_path / "file" / "state"))
    assert ended.code == 1
    assert ended.err.endswith("Not a directory; name a folder that can be written with --state\n")


def test_a_port_that_is_taken_is_said_to_be(crucible: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = crucible("up", "--state", str(tmp_path / "state"), "--port", str(other.getsockname()[1]))
    assert ended.code == 1
    assert "choose another with --port" in ended.err.splitlines()[-1]
