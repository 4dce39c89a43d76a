"""What is said in one turn goes out at its end, in one write for each connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Writer(Protocol):
    """Who has something to write."""

    def hand_over(self) -> None:
        """Write it."""


class Turns:
    """A turn begins when bytes have come in, and is over when all that follows from them is done."""

    __slots__ = ("_inside", "_loop", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[Writer] = []
        self._inside = False

    def owe(self, writer: Writer) -> None:
        """Have somebody write at the end of this turn, or soon when there is none."""
        self._writers.append(writer)
        if not self._inside and len(self._writers) == 1:
            self._loop.call_soon(self._write)

    def __enter__(self) -> None:
        """Begin one."""
        self._inside = True

    def __exit__(self, *_: object) -> None:
        """Write."""
        self._inside = False
        self._write()

    def _write(self) -> None:
        for writer in self._writers:
            writer.hand_over()
        self._writers.clear()
