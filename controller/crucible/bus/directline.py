"""One direct line between the brokers of two machines: frames over mutual TLS, bounded both ways.

TLS has verified a certificate of the backbone's authority before the first byte; whose it is is judged by
``directlines.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from crucible.bus import wire
from crucible.bus.alive import watch
from crucible.bus.pipe import Pipe
from crucible.bus.queue import Bounds, FairQueue
from crucible.bus.wire import BrokenFrame, Code, Frame

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from crucible.bus.exchange import Exchange
    from crucible.bus.peer import Peer
    from crucible.bus.room import Room
    from crucible.bus.turns import Turns

READ_BATCH: Final = 64
"""Frames read of one line before others have their turn."""
GREETING: Final = 5.0
"""Seconds for TLS, and as many for both to have introduced themselves."""
_HIGH_WATER: Final = 64 * 1024
_STRANGER_BYTES: Final = 4096
"""Of the first frame, before it is known who speaks."""
_OUTBOX: Final = Bounds(2048, 4 * 1024 * 1024, 8192, 16 * 1024 * 1024)
_SILENT: Final = 2
"""Seconds without a word after which the kernel asks whether the other side is there, and asks again."""


class Desk(Protocol):
    """Whom lines belong to."""

    turns: Turns
    """When what is sent is written."""
    room: Room
    """What waits for all together."""
    inbound: Room
    """What was read of all together, and is not a whole frame yet."""
    scratch: memoryview
    """Where all lines read into, one after the other."""

    def begun(self, line: DirectLine) -> None:
        """TLS stands; nobody has said a word."""

    def introduced(self, line: DirectLine, frame: Frame) -> None:
        """The first frame came.

        Raises:
            BrokenFrame: it is not what it should be.
        """

    def broken(self, line: DirectLine, error: BrokenFrame) -> None:
        """It broke the rules."""

    def over(self, line: DirectLine, why: str) -> None:
        """It has ended."""


class DirectLine(Pipe):
    """One line.

    Attributes:
        machine: whom we dialled; empty: it came to us.
        certificate: what the other side showed, verified.
        exchange: the calls that go by it; None until both are known to each other.
        stood: set once they are.
    """

    def __init__(self, desk: Desk, machine: str = "") -> None:
        super().__init__(desk.turns, FairQueue(_OUTBOX), _HIGH_WATER)
        self.machine = machine
        self.certificate: Mapping[str, Any] | None = None
        self.exchange: Exchange | None = None
        self.stood: asyncio.Future[None] = self._loop.create_future()
        self._desk = desk
        self._decoder = wire.Decoder()
        self._owner = "@"
        self._held = 0
        self._clock: asyncio.TimerHandle | None = None

    @property
    def speaks(self) -> bool:
        """TLS stands on it."""
        return self.certificate is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS stands: the other side has a certificate of the authority."""
        super().connection_made(transport)
        if self.lost.done():
            cast("asyncio.Transport", transport).abort()
            return
        self.certificate = transport.get_extra_info("peercert")
        watch(transport.get_extra_info("socket"), _SILENT, _SILENT, 2)
        self._clock = self._loop.call_later(GREETING, self.close, "it did not introduce itself in time")
        with self._turns:
            self._desk.begun(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - its name is asyncio's
        """Return the buffer that all lines share; it is empty again before the next one reads."""
        return self._desk.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came in."""
        self._read(self._desk.scratch[:nbytes])

    def stand(self, peer: Peer) -> None:
        """Both are known to each other: calls may go by it."""
        if self._clock is not None:
            self._clock.cancel()
        self._forget_held()
        self._outbox = FairQueue(_OUTBOX, self._desk.room, f"@{peer.name}")
        self._owner = f"@{peer.name}"
        self.machine = peer.name
        self.exchange = peer.stands(self)
        self.stood.set_result(None)

    def carry(self, sender: str, priority: int, data: bytes) -> str:
        """Send frames; return why they do not go, empty when they do."""
        return "" if self._send(sender, priority, data) else "too much waits for the line already"

    def insist(self, data: bytes) -> None:
        """Send a small frame that must not be lost: where it has no room, the line ends, and all on it."""
        if not self.lost.done() and not self._send("", wire.Priority.CRITICAL, data):
            self.close("the other side does not read")

    def say(self, frame: Frame) -> None:
        """Send a frame while nobody else speaks."""
        self._write(wire.encode(frame))

    def refuse(self, code: Code, why: str) -> None:
        """Say why it does not stand, and end it."""
        if self._transport is not None and not self.lost.done():
            self._transport.write(wire.encode(wire.error(0, code, why)))
            self._end(why)
            self._transport.close()

    def _read(self, chunk: bytes | memoryview) -> None:
        frames: list[Frame] = []
        broken: BrokenFrame | None = None
        try:
            for frame in self._decoder.feed(chunk, READ_BATCH):
                frames.append(frame)  # noqa: PERF402 - those before a broken one count
        except BrokenFrame as error:
            broken = error
        with self._turns:
            try:
                for frame in frames:
                    self._take(frame)
            except BrokenFrame as error:
                broken = error
            if broken is not None and not self.lost.done():
                self._desk.broken(self, broken)
        if self.lost.done() or not self._has_room() or self._transport is None:
            return
        if self._decoder.more:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Others had their turn."""
        if not self.lost.done():
            self._read(b"")
        if self._transport is not None and not self.lost.done() and not self._decoder.more:
            self._transport.resume_reading()

    def _take(self, frame: Frame) -> None:
        if self.lost.done():
            return
        if self.exchange is None:
            self._desk.introduced(self, frame)
        else:
            self.exchange.receive(frame)

    def _has_room(self) -> bool:
        """Count what is kept of a frame that is not whole; False when there is no room, and it is cut."""
        held, room = self._decoder.held, self._desk.inbound
        if held == self._held:
            return True
        if self.exchange is None and held > _STRANGER_BYTES:
            self.close("its first words are too many")
            return False
        if held > self._held and not room.has(self._owner):
            self.close("there is no room for what it sends")
            return False
        self._forget_held()
        if held:
            room.take(self._owner, held)
        self._held = held
        return True

    def _forget_held(self) -> None:
        if self._held:
            self._desk.inbound.give_back(self._owner, self._held)
            self._held = 0

    def _end(self, why: str) -> None:
        if self.lost.done():
            return
        if self._clock is not None:
            self._clock.cancel()
        self._decoder.end()
        self._forget_held()
        super()._end(why)
        self._desk.over(self, why)
