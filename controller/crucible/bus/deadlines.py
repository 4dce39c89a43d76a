"""When calls run out of time: a heap that forgets what ended early, and one timer."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_TIDY: Final = 1024


class Timed(Protocol):
    """Something that may run out of time."""

    open: bool


class Deadlines:
    """Calls back for each thing that is still open when its time is over."""

    __slots__ = ("_closed", "_heap", "_loop", "_over", "_timer", "_turn")

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[Timed], None]) -> None:
        self._loop = loop
        self._over = over
        self._heap: list[tuple[float, int, Timed]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0
        self._closed = 0

    def add(self, when: float, thing: Timed) -> None:
        """Watch something until ``when``, in the loop's time."""
        self._turn += 1
        heapq.heappush(self._heap, (when, self._turn, thing))
        if self._timer is None or when < self._timer.when():
            self._arm()

    def forget_one(self) -> None:
        """Something that was added is not open any more."""
        self._closed += 1
        if self._closed > _TIDY and self._closed * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].open]
            heapq.heapify(self._heap)
            self._closed = 0

    def close(self) -> None:
        """Watch nothing any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._heap[0][0], self._look) if self._heap else None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and (self._heap[0][0] <= now or not self._heap[0][2].open):
            thing = heapq.heappop(self._heap)[2]
            if thing.open:
                self._over(thing)
            else:
                self._closed = max(self._closed - 1, 0)
        self._arm()
