"""What may be done a little later: nobody waits for it, and of one Plugin it is done in order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Work = Callable[[], Awaitable[None]]

_LANES: Final = 8
_ROOM: Final = 4096
"""What may wait in each lane."""
_PATIENCE: Final = 3.0
"""Seconds in which what still waits is done, once nothing is to come any more."""

log = logging.getLogger(__name__)


class Backlog:
    """Does what it is given beside whoever gives it. Use as an async context manager."""

    def __init__(self, room: int = _ROOM, patience: float = _PATIENCE) -> None:
        self._lanes: tuple[asyncio.Queue[Work], ...] = tuple(asyncio.Queue(room) for _ in range(_LANES))
        self._patience = patience
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(_work_off(lane)) for lane in self._lanes]
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.gather(*(lane.join() for lane in self._lanes))
        except TimeoutError:
            log.warning("%d Events are lost: there was no time left to tell them", self.waiting)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How much has not been begun."""
        return sum(lane.qsize() for lane in self._lanes)

    def put(self, uid: str, work: Work) -> bool:
        """Have something done for a Plugin, after all that was put for it before; False: no room.

        Args:
            uid: of the Plugin.
            work: does it, and deals with its own errors.
        """
        try:
            self._lanes[hash(uid) % _LANES].put_nowait(work)
        except asyncio.QueueFull:
            return False
        return True


async def _work_off(lane: asyncio.Queue[Work]) -> None:
    while True:
        work = await lane.get()
        try:
            await work()
        except Exception:  # the boundary: what goes wrong for one is not the end of its lane
            log.exception("something put off could not be done")
        finally:
            lane.task_done()
