"""Whom we owe a word: each gets it once, a moment later, however often it asks meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Owed:
    """The machines that are to be told something soon."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, tell: Callable[[str], None]) -> None:
        """Owe nobody anything.

        Args:
            loop: where it is said.
            seconds: how long asking is gathered.
            tell: called with the name of each machine that asked.
        """
        self._loop = loop
        self._seconds = seconds
        self._tell = tell
        self._machines: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, machine: str) -> None:
        """Tell a machine soon."""
        self._machines.add(machine)
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._pay)

    def forget(self) -> None:
        """Owe nobody anything any more."""
        self._machines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pay(self) -> None:
        self._timer = None
        machines, self._machines = self._machines, set()
        for machine in machines:
            self._tell(machine)
