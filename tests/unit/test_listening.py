"""Commands that write without end: little is kept, and others go on meanwhile."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from crucible.listening import QUICKLY, beginning
from crucible.runtimes.base import STDOUT
from crucible.runtimes.docker import commands
from crucible.runtimes.process import session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

CHUNK = b"x" * 65536
CHUNKS = 5000
FRAME = b"\1\0\0\0\0\0\0\1x"


class Flood:
    """Writes as fast as it is read."""

    def __init__(self) -> None:
        self.written = 0

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            self.written += len(CHUNK)
            yield STDOUT, CHUNK


async def test_a_flood_is_taken_slowly() -> None:
    flood = Flood()
    task = asyncio.create_task(beginning(flood, 10))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    for _ in range(100):  # turns of the loop, in which one without a pause would take as many chunks
        await asyncio.sleep(0)
    assert QUICKLY < flood.written < QUICKLY + 50 * len(CHUNK)
    task.cancel()
    await asyncio.wait({task})


async def others_had_their_turn(output: AsyncIterator[tuple[int, bytes]]) -> bool:
    """Say whether somebody else ran before all was read."""
    ran, taken = asyncio.Event(), 0
    asyncio.get_running_loop().call_soon(ran.set)
    async for _ in output:
        taken += 1
        if ran.is_set():
            return True
    return False


async def test_output_that_is_always_there_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [CHUNK] * CHUNKS
    monkeypatch.setattr(session, "_read", lambda _: left.pop() if left else b"")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    out, into = os.pipe()
    one = session.Session(ours, session.Streams(None, ((out, STDOUT),)))
    try:
        assert await others_had_their_turn(one.output())
    finally:
        theirs.close()
        await one.close()
        os.close(into)


async def test_a_container_that_always_writes_leaves_others_their_turn() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.setblocking(False)
        theirs.send(FRAME * 20_000)
        theirs.shutdown(socket.SHUT_WR)
        stream = commands.Stream("id", ours, None)  # type: ignore[arg-type] # nobody asks the engine
        one = commands.DockerExec(None, "container", stream, tty=False)  # type: ignore[arg-type]
        assert await others_had_their_turn(one.output())


async def test_a_command_that_speaks_as_the_engine_does_has_it_asked_once() -> None:
    asked: list[str] = []

    class Engine:
        class client:  # noqa: N801 - as the engine has it
            inspect_container = None

        async def call(self, _: object, container: str) -> dict[str, dict[str, bool]]:
            asked.append(container)
            return {"State": {"Running": True}}

    ours, theirs = socket.socketpair()
    said = b"OCI runtime exec failed: or is it"
    with ours, theirs:
        ours.setblocking(False)
        theirs.send((b"\1\0\0\0" + len(said).to_bytes(4, "big") + said) * 100)
        theirs.shutdown(socket.SHUT_WR)
        stream = commands.Stream("id", ours, None)  # type: ignore[arg-type] # nothing is closed
        one = commands.DockerExec(Engine(), "container", stream, tty=False)  # type: ignore[arg-type]
        heard = [text async for _, text in one.output()]
    assert heard == [said] * 100
    assert asked == ["container"]
