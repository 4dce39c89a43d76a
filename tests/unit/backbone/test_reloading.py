"""The server is told when its certificates are others, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.backbone import reloading
from crucible.backbone.authority import fresh_authority, utc_now

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    import pytest


class Looks:
    """Stands for the event that ends the watching: at each look a step of the test is done."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)

    def wait(self, _: float) -> bool:
        if not self.steps:
            return True
        step = self.steps.pop(0)
        if callable(step):
            step()
        return False


def test_each_change_that_is_whole_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, told = fresh_authority("one", utc_now()), []

    def issue() -> None:
        issued = authority.server(("nats",), utc_now())
        texts = {"ca.crt": authority.certificate, "tls.crt": issued.certificate, "tls.key": issued.key}
        for name, text in texts.items():
            (tmp_path / name).write_text(text)

    def tell(pid: int) -> bool:
        told.append(pid)
        return pid > 1

    monkeypatch.setattr(reloading, "tell", tell)
    pids = [1]
    looks = Looks(
        None,  # no file yet
        issue,  # and a server that is gone meanwhile
        lambda: pids.__setitem__(0, 7),
        None,
        (tmp_path / "tls.key").unlink,
        issue,
        None,
    )
    stop: threading.Event = looks  # type: ignore[assignment]
    reloading.watch(tmp_path, lambda: pids, stop)
    assert told == [1, 7, 7]


def test_processes_are_found_by_what_they_are_called() -> None:
    assert reloading.called("no such program") == []
    assert not reloading.tell(2**22 + 1)
