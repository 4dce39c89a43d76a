"""One connection of the bus: bytes in and out, bounded both ways. What frames mean is its desk's business."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

from crucible.bus import wire
from crucible.bus.queue import UNIT_BYTES, FairQueue
from crucible.bus.wire import BrokenFrame, Code, Frame

if TYPE_CHECKING:
    from crucible.bus.call import Call
    from crucible.bus.room import Room
    from crucible.bus.roster import Seat
    from crucible.bus.topics import Subscription
    from crucible.bus.turns import Turns
    from crucible.model.door import Doorway

READ_BATCH: Final = 16
"""Frames read of one connection before others have their turn."""
READ_BYTES: Final = READ_BATCH * UNIT_BYTES
"""Bytes of frames of one connection that line up before it is read again."""
HELLO_TIME: Final = 10.0
"""Seconds for a client to introduce itself, and for a frame that began to come in to be whole."""
_HIGH_WATER: Final = 64 * 1024
_LOW_WATER: Final = 16 * 1024


class Desk(Protocol):
    """Whom connections bring their frames to."""

    room: Room
    """What waits for all connections together."""
    inbound: Room
    """What was read of all connections together, and is not a whole frame yet or not looked at."""
    scratch: memoryview
    """Where all connections read into, one after the other."""
    turns: Turns
    """When what is sent is written."""

    def opened(self, connection: Connection) -> None:
        """Somebody connected."""

    def incoming(self, connection: Connection, frames: list[Frame]) -> None:
        """Take frames that came in; ``connection.pending`` counts those not handled yet."""

    def backlogged(self, connection: Connection) -> None:
        """See to it that ``connection.read_on`` is called when nothing of it is pending."""

    def broken(self, connection: Connection, code: Code, why: str) -> None:
        """It broke the rules."""

    def crowded(self, connection: Connection) -> None:
        """It sent a part of a frame for which there is no room."""

    def closed(self, connection: Connection) -> None:
        """It is gone."""


class Connection(asyncio.BufferedProtocol):
    """One client's connection.

    Attributes:
        doorway: whose socket it came through.
        seat: the plugin it speaks for; None until it said HELLO.
        methods: what may be called on it.
        window: calls it takes at once.
        calls: those it made and that are open, by its id.
        given: those it was given and did not answer yet, by ours.
        waiting: those for it that do not fit its window.
        subscriptions: by its id.
        pending: frames of it that are read and not handled; ``pending_bytes`` is what they take.
        ready: the plugin called itself ready on it.
    """

    __slots__ = (
        "_decoder",
        "_desk",
        "_fresh",
        "_fresh_bytes",
        "_held",
        "_loop",
        "_next_id",
        "_outbox",
        "_owner",
        "_partial",
        "_paused",
        "_transport",
        "_written",
        "calls",
        "closing",
        "doorway",
        "given",
        "methods",
        "pending",
        "pending_bytes",
        "ready",
        "seat",
        "subscriptions",
        "waiting",
        "window",
    )

    def __init__(self, desk: Desk, doorway: Doorway, loop: asyncio.AbstractEventLoop) -> None:
        self.doorway = doorway
        self.seat: Seat | None = None
        self.methods: frozenset[str] = frozenset()
        self.window = 0
        self.calls: dict[int, Call] = {}
        self.given: dict[int, Call] = {}
        self._owner = owner = f"{doorway.namespace}/{doorway.plugin}"
        self.waiting: FairQueue[Call] = FairQueue(room=desk.room, owner=owner)
        self.subscriptions: dict[int, Subscription] = {}
        self.pending = 0
        self.pending_bytes = 0
        self.ready = False
        self.closing = False
        self._desk = desk
        self._loop = loop
        self._decoder = wire.Decoder()
        self._outbox: FairQueue[bytes] = FairQueue(room=desk.room, owner=owner)
        self._fresh: list[bytes] = []
        self._fresh_bytes = 0
        self._paused = False
        self._held = 0
        self._written = 0
        self._next_id = 0
        self._partial: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def drains(self) -> bool:
        """It is given nothing new: its instance is to be stopped."""
        return self.seat is not None and self.doorway.place in self.seat.member.draining

    @property
    def unread(self) -> int:
        """Bytes that wait until the client reads."""
        return self._outbox.size

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock for HELLO."""
        if self.closing:
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)
        self._partial = self._loop.call_later(HELLO_TIME, self._too_slow)
        self._desk.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - its name is asyncio's
        """Return the buffer that all connections share; it is empty again before the next one reads."""
        return self._desk.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came in."""
        self._read(self._desk.scratch[:nbytes])

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to: keep what comes, in order of urgency."""
        self._paused = True
        if self._transport is not None and not self._written:
            self._written = self._transport.get_write_buffer_size()
            self._desk.room.take(self._owner, self._written)

    def resume_writing(self) -> None:
        """There is room again."""
        self._paused = False
        self._forget_written()
        transport = self._transport
        while transport is not None and not self._paused:
            data = self._outbox.pop()
            if data is None:
                return
            transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its name is asyncio's
        """Nothing more comes or goes."""
        self.closing = True
        self._transport = None
        self._stop_clock()
        self._outbox.clear()
        self._forget_partial()
        self._forget_written()
        self._desk.closed(self)

    # What the desk calls.

    def greeted(self) -> None:
        """The client introduced itself in time."""
        self._stop_clock()

    def read_on(self) -> None:
        """Handle what was read and left; then read again."""
        if self._transport is not None and not self.closing:
            self._read(b"")
            if not self._has_enough() and not self.closing:
                self._transport.resume_reading()

    def line_up(self, size: int) -> None:
        """A frame of it waits to be handled."""
        self.pending += 1
        self.pending_bytes += size
        self._desk.inbound.take(self._owner, size)

    def handled(self, size: int) -> None:
        """One that waited is handled."""
        self.pending -= 1
        self.pending_bytes -= size
        self._desk.inbound.give_back(self._owner, size)

    def send(self, frame: Frame, sender: str) -> bool:
        """Send a frame; False when the client has too much to read already."""
        return self.send_bytes(wire.encode(frame), frame.priority, sender)

    def has_room(self, size: int, sender: str) -> bool:
        """Say whether a frame of this size would be sent, before it is made."""
        if self.closing:
            return False
        if self._paused or self._outbox.count:
            return self._outbox.fits(sender, size)
        return size <= _HIGH_WATER or self._desk.room.has(self._owner)

    def send_bytes(self, data: bytes, priority: int, sender: str) -> bool:
        """Send an encoded frame, on behalf of a sender; False as above."""
        if self._paused or self._outbox.count:
            return not self.closing and self._outbox.push(sender, priority, data, len(data)) is not None
        if not self.has_room(len(data), sender):
            return False
        if not self._fresh:
            self._desk.turns.owe(self)
        self._fresh.append(data)
        self._fresh_bytes += len(data)
        if self._fresh_bytes > _HIGH_WATER:
            self.hand_over()
        return True

    def hand_over(self) -> None:
        """Hand over what was sent to the kernel."""
        if self._fresh and self._transport is not None:
            data = self._fresh[0] if len(self._fresh) == 1 else b"".join(self._fresh)
            self._fresh.clear()
            self._fresh_bytes = 0
            self._transport.write(data)

    def close(self) -> None:
        """End it once what was sent is written, or after a while if the client does not read.

        One that has not begun never does.
        """
        if self._transport is None:
            self.closing = True
        elif not self.closing:
            self.hand_over()
            self.closing = True
            self._stop_clock()
            self._forget_partial()
            unwritten = self._transport.get_write_buffer_size()  # closed, one of TLS may not know it any more
            self._transport.close()
            if unwritten:
                self._partial = self._loop.call_later(HELLO_TIME, self._transport.abort)

    def next_id(self) -> int:
        """Return an even id that no open call has."""
        while True:
            self._next_id = (self._next_id + 2) & 0xFFFFFFFE or 2
            if self._next_id not in self.given:
                return self._next_id

    def _read(self, chunk: bytes | memoryview) -> None:
        frames: list[Frame] = []
        try:
            for frame in self._decoder.feed(chunk, READ_BATCH):
                frames.append(frame)  # noqa: PERF402 - those before a broken one count
        except BrokenFrame as error:
            self._desk.incoming(self, frames)
            self._desk.broken(self, error.code, str(error))
            return
        self._watch_partial(progress=bool(frames))
        self._desk.incoming(self, frames)
        if self.closing or not self._has_room_for_partial():
            return
        if self._has_enough() and self._transport is not None:
            self._transport.pause_reading()
            self._desk.backlogged(self)

    def _has_enough(self) -> bool:
        """Say whether what was read is to be handled before more is."""
        return self._decoder.more or self.pending >= READ_BATCH or self.pending_bytes >= READ_BYTES

    def _has_room_for_partial(self) -> bool:
        """Count what is kept of a frame that is not whole; False when there is no room, and it is cut off."""
        held = self._decoder.held
        if held == self._held:
            return True
        room = self._desk.inbound
        if held > self._held and not room.has(self._owner):
            self._desk.crowded(self)
            return False
        if self._held:
            room.give_back(self._owner, self._held)
        if held:
            room.take(self._owner, held)
        self._held = held
        return True

    def _forget_written(self) -> None:
        if self._written:
            self._desk.room.give_back(self._owner, self._written)
            self._written = 0

    def _forget_partial(self) -> None:
        self._decoder.end()
        if self._held:
            self._desk.inbound.give_back(self._owner, self._held)
            self._held = 0

    def _watch_partial(self, *, progress: bool) -> None:
        """Give a frame that began to come in its time; a client that sends byte by byte is not waited for."""
        if self.seat is None:
            return
        if progress or self._decoder.more:
            self._stop_clock()
        if self._decoder.waiting and not self._decoder.more and self._partial is None:
            self._partial = self._loop.call_later(HELLO_TIME, self._too_slow)

    def _too_slow(self) -> None:
        self._partial = None
        what = "no HELLO" if self.seat is None else "no whole frame"
        self._desk.broken(self, Code.MALFORMED, f"{what} within {HELLO_TIME:.0f} s")

    def _stop_clock(self) -> None:
        if self._partial is not None:
            self._partial.cancel()
            self._partial = None
