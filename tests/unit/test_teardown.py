"""Whom `crucible down` asks to end: who holds the folder, whatever the lock file says."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from crucible import teardown
from crucible.control.apiserver.ownership import StateLock
from crucible.errors import InvalidInput, Unavailable
from crucible.settings import Places

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pid_in_the_lock_that_is_another_process_is_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(tmp_path)
    places.control.mkdir()
    monkeypatch.setattr(teardown, "_CONTROLLER_SECONDS", 0.2)
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with (places.control / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for said in (str(bystander.pid), "1", "9" * 40, "nobody"):
                (places.control / "lock").write_text(said)
                with pytest.raises(Unavailable):
                    teardown.end_controller(places, lambda _: None)
        assert bystander.poll() is None
    finally:
        bystander.communicate()


def test_who_holds_the_lock_is_ended(tmp_path: Path) -> None:
    places = Places(tmp_path)
    hold = (
        "import sys; from pathlib import Path; from crucible.control.apiserver.ownership import StateLock; "
        "lock = StateLock(Path(sys.argv[1])); print(flush=True); input()"
    )
    words = [sys.executable, "-c", hold, str(places.control)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        told: list[str] = []
        assert teardown.end_controller(places, told.append) == holder.pid
        assert told == [f"stopping the control plane, process {holder.pid}"]


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    control = tmp_path / "state/control"
    control.mkdir(parents=True)
    (control / "lock").symlink_to(outside)
    with pytest.raises(OSError):
        StateLock(control)
    assert outside.read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away: run as root")
@pytest.mark.parametrize("place", ["state", "state/control"])
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path, place: str) -> None:
    control = tmp_path / "state/control"
    control.mkdir(parents=True)
    os.chown(tmp_path / place, 1234, -1)
    with pytest.raises(InvalidInput, match="belongs to user 1234"):
        StateLock(control)
