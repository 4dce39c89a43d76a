"""The threads that run methods and handlers: as many as are needed at once, up to a limit."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections import deque

try:
    from _queue import SimpleQueue
except ImportError:
    from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LANE_LIMIT = 1024
"""Messages that may wait for one handler."""


class Crew:
    """Threads, none of them until there is work."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = allocate_lock()
        self._threads = 0
        self._free = 0
        self._queued = 0

    def do(self, task: Callable[[], object]) -> None:
        """Run a task, which must raise nothing, in a thread; at once unless all are busy."""
        with self._lock:
            self._queued += 1
            if self._queued > self._free and self._threads < self._limit:
                self._threads += 1
                self._free += 1
                start_new_thread(self._run, ())
        self._work.put(task)

    def _run(self) -> None:
        while True:
            task = self._work.get()
            with self._lock:
                self._free -= 1
                self._queued -= 1
            task()
            with self._lock:
                self._free += 1


class Lane:
    """Handles one thing after the other, in the order they came."""

    def __init__(self, crew: Crew, handle: Callable[[Any], object]) -> None:
        self._crew = crew
        self._handle = handle
        self._lock = allocate_lock()
        self._waiting: deque[Any] = deque()
        self._busy = False
        self.missed = 0

    def put(self, thing: object) -> None:
        """Let a thing be handled after those before it; when too many wait it is missed, and counted."""
        with self._lock:
            if len(self._waiting) >= LANE_LIMIT:
                self.missed += 1
                return
            self._waiting.append(thing)
            if self._busy:
                return
            self._busy = True
        self._crew.do(self._run)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = False
                    return
                thing = self._waiting.popleft()
            self._handle(thing)
