"""A line that nobody keeps any more is kept anew, and one that cannot be had is said."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import virtualclock

from crucible.bus.directlines import DirectLines
from crucible.model.backbone import Joining, Meeting

if TYPE_CHECKING:
    import pytest


def joining(port: int) -> Joining:
    meeting = Meeting("identity", "", port)
    return Joining("beta", "10.0.0.1", 4222, "ca", "certificate", "key", (), meeting, "10.0.0.2")


class Ground:
    """A backbone with one other machine."""

    machine, epoch = "beta", "stay"

    def __init__(self) -> None:
        self.peer = SimpleNamespace(name="alpha", meeting=Meeting("other", "10.0.0.9", 4223))

    def met(self, machine: str) -> Any:
        return self.peer if machine == "alpha" else None

    def news(self) -> None:
        return


def lines_on(ground: Ground) -> DirectLines:
    stranger: Any = None
    lines = DirectLines(ground, stranger, stranger, stranger, stranger)
    lines._joining = joining(4223)
    lines._client = stranger or object()  # type: ignore[assignment]
    return lines


def test_what_nobody_foresaw_is_told_and_the_line_is_kept_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        ground = Ground()
        lines = lines_on(ground)
        dialled: list[float] = []

        async def fails_once(*_: Any) -> None:
            dialled.append(asyncio.get_running_loop().time())
            if len(dialled) == 1:
                raise ValueError("embedded null byte")

        monkeypatch.setattr(lines, "_dial", fails_once)
        lines.look(ground.peer)  # type: ignore[arg-type]
        await asyncio.sleep(1)
        assert "embedded null byte" in lines.why["alpha"]
        await asyncio.sleep(60)
        assert len(dialled) > 1
        lines.part(ground.peer, "it is gone")  # type: ignore[arg-type]
        await asyncio.sleep(0)

    virtualclock.run(main())
    assert "is not kept any more" in caplog.text


def test_one_that_has_ended_is_no_reason_not_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        ground = Ground()
        lines = lines_on(ground)
        dialled: list[int] = []

        async def fails(*_: Any) -> None:
            dialled.append(1)
            raise ValueError("unforeseen")

        monkeypatch.setattr(lines, "_dial", fails)
        for _ in range(2):
            lines.look(ground.peer)  # type: ignore[arg-type]
            await asyncio.sleep(1)
        assert len(dialled) == 2
        lines.part(ground.peer, "it is gone")  # type: ignore[arg-type]
        await asyncio.sleep(0)

    virtualclock.run(main())


def test_it_is_shut_while_others_are_to_come_and_no_port_is_bound() -> None:
    async def main() -> None:
        lines = lines_on(Ground())
        assert lines.shut
        one = socket.create_server(("127.0.0.1", 0))
        lines.listen([one])
        assert not lines.shut
        lines.listen([])
        assert lines.shut
        lines._joining = joining(0)
        assert not lines.shut
        lines._joining = None
        assert not lines.shut

    asyncio.run(main())
