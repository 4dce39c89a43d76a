"""When calls run out of time: a heap that forgets what ended early, and one timer."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from crucible.bus.call import Call

_TIDY: Final = 1024


class Deadlines:
    """Calls back for each call that is still watched when its time is over.

    A call that ended is let go at once: what is kept of it is a time and a number.
    """

    __slots__ = ("_heap", "_loop", "_over", "_timer", "_turn", "_watched")

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[Call], None]) -> None:
        self._loop = loop
        self._over = over
        self._heap: list[tuple[float, int]] = []
        self._watched: dict[int, Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0

    @property
    def kept(self) -> int:
        """Times that are remembered, those of calls that ended among them."""
        return len(self._heap)

    def add(self, when: float, call: Call) -> int:
        """Watch a call until ``when``, in the loop's time; return the number to forget it by."""
        self._turn += 1
        self._watched[self._turn] = call
        heapq.heappush(self._heap, (when, self._turn))
        if self._timer is None or when < self._timer.when():
            self._arm()
        return self._turn

    def forget(self, number: int) -> None:
        """Watch a call no more."""
        self._watched.pop(number, None)
        if len(self._heap) > _TIDY and len(self._heap) > 2 * len(self._watched):
            self._heap = [entry for entry in self._heap if entry[1] in self._watched]
            heapq.heapify(self._heap)

    def close(self) -> None:
        """Watch nothing any more."""
        self._heap.clear()
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._heap[0][0], self._look) if self._heap else None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][1] not in self._watched):
            _, number = heapq.heappop(self._heap)
            call = self._watched.pop(number, None)
            if call is not None:
                self._over(call)
        self._arm()
