"""The sending side of a connection between machines: in order of urgency, bounded, one write a turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from crucible.bus.queue import FairQueue
    from crucible.bus.turns import Turns

_BATCH: Final = 64 * 1024


class Pipe(asyncio.BufferedProtocol):
    """What is sent goes out at the end of the turn; what the other side does not take waits in its queue.

    Attributes:
        lost: why it ended; unset while it lasts.
    """

    def __init__(self, turns: Turns, outbox: FairQueue[bytes], high_water: int) -> None:
        """Prepare.

        Args:
            turns: when what is said is written.
            outbox: where it waits while the other side takes less than there is.
            high_water: bytes that the transport may hold before anything waits there.
        """
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._turns = turns
        self._outbox = outbox
        self._high_water = high_water
        self._transport: asyncio.Transport | None = None
        self._fresh: list[bytes] = []
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS stands."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._high_water, low=self._high_water // 4)

    def pause_writing(self) -> None:
        """The other side takes less than we have: keep it, in order of urgency."""
        self._paused = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._paused = False
        self._drain()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes or goes."""
        self._end(str(exc) if exc else "the other side ended it")

    def close(self, why: str = "we ended it") -> None:
        """End it at once."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def hand_over(self) -> None:
        """Write what was said in this turn."""
        fresh, self._fresh = self._fresh, []
        if self._transport is not None and not self.lost.done():
            self._transport.write(fresh[0] if len(fresh) == 1 else b"".join(fresh))

    def _send(self, sender: str, priority: int, data: bytes) -> bool:
        """Send on somebody's behalf; False when too much waits already."""
        if self.lost.done():
            return False
        if self._paused or self._outbox.count:
            return self._outbox.push(sender, priority, data, len(data)) is not None
        self._write(data)
        return True

    def _write(self, data: bytes) -> None:
        """Write with whatever else is said in this turn."""
        if not self._fresh:
            self._turns.owe(self)
        self._fresh.append(data)

    def _drain(self) -> None:
        while self._outbox.count and not self._paused and self._transport is not None:
            batch, size = [], 0
            while size < _BATCH and (data := self._outbox.pop()) is not None:
                batch.append(data)
                size += len(data)
            self._transport.write(b"".join(batch))

    def _end(self, why: str) -> None:
        """It is over: whoever waits for that is told."""
        self._outbox.clear()
        if not self.lost.done():
            self.lost.set_result(why)
