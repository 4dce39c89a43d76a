"""Commands in the instances of a runtime in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crucible.runtimes.base import NOT_THERE, STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KILLED = 137


class FakeSession:
    """A command in an instance: ``echo WORDS``, ``cat``, ``exit CODE``, ``size``, ``sleep`` and no other.

    ``size`` says how large the terminal is when it has been told; ``sleep`` goes on until it is closed.
    """

    def __init__(self, command: tuple[str, ...], *, stdin: bool, tty: bool) -> None:
        self._said: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._command = command
        self._tty = tty
        match command:
            case ("echo", *words):
                self._say(STDOUT, " ".join(words).encode() + b"\n")
                self.end(0)
            case ("exit", code):
                self.end(int(code))
            case ("cat",) if not stdin:
                self.end(0)
            case ("cat" | "size" | "sleep",):
                pass
            case _:
                self._say(STDERR, f"{command[0]}: not found\n".encode())
                self.end(NOT_THERE)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what it says."""
        while (said := await self._said.get()) is not None:
            yield said

    async def write(self, data: bytes) -> None:
        """Let ``cat`` say it."""
        if self._command == ("cat",):
            self._say(STDOUT, data)

    async def close_stdin(self) -> None:
        """End ``cat``."""
        if self._command == ("cat",):
            self.end(0)

    async def resize(self, rows: int, columns: int) -> None:
        """Let ``size`` say it, and end."""
        if self._command == ("size",) and self._tty:
            self._say(STDOUT, f"{rows} {columns}\n".encode())
            self.end(0)

    async def wait(self) -> int:
        """Return the exit code once there is one."""
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        """Kill it."""
        self.end(KILLED)

    def end(self, code: int) -> None:
        """End it unless it has ended."""
        if not self._code.done():
            self._code.set_result(code)
            self._said.put_nowait(None)

    def _say(self, channel: int, data: bytes) -> None:
        if not self._code.done():
            self._said.put_nowait((STDOUT if self._tty else channel, data))
