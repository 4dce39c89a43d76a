"""The broker: takes every frame in its turn, and gives it to calls or messages.

Reading is fair before anything is looked at: a connection gives 16 frames, then others have their turn. While
little is going on a frame is handled as it comes in. Once more than :data:`BURST` come in within
:data:`BURST_TIME`, they line up, and are taken in the order that :mod:`crucible.bus.queue` promises.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Final

from crucible.bus import wire
from crucible.bus.calls import Calls
from crucible.bus.connection import READ_BATCH, Connection
from crucible.bus.far import Far
from crucible.bus.figures import figures
from crucible.bus.hello import read_hello, welcome
from crucible.bus.ledger import Fault, Ledger
from crucible.bus.messages import Messages
from crucible.bus.queue import Bounds, FairQueue
from crucible.bus.room import Room
from crucible.bus.roster import Roster, Seat
from crucible.bus.services import Plain, services_of
from crucible.bus.turns import Turns
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind
from crucible.model.bus import HOST

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Iterable

    from crucible.bus.call import Call
    from crucible.model.bus import Member
    from crucible.model.door import Doorway

BURST: Final = 16
"""Frames handled as they come in."""
BURST_TIME: Final = 0.0005
"""Seconds in which they may come."""
TURN: Final = 8
"""Frames handled before sockets are looked at again."""
ROOM: Final = 64 * 1024 * 1024
"""Bytes of frames that may wait for all connections together; for who has little, up to twice that in all."""
INBOUND: Final = 48 * 1024 * 1024
"""Bytes that were read of all connections together and are not yet whole frames, or not looked at; for who
has little, up to twice that in all."""
INBOUND_PARTS: Final = 32
"""By which of it who has little is known: 1.5 MiB, more than the largest frame."""
CONNECTIONS_LIMIT: Final = 8
"""Of one door."""
_SCRATCH: Final = 64 * 1024
_UNBOUNDED: Final = Bounds(2**40, 2**60, 2**40, 2**60)
"""What lines up here is bounded by what connections may have pending."""

log = logging.getLogger(__name__)


class Broker:
    """Everyone who is connected on this machine, and what goes between them.

    Attributes:
        calls: that are open.
        messages: what is published.
        ledger: what was counted.
        roster: who there is.
        far: other machines.
        turns: when what is said is written.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.scratch = memoryview(bytearray(_SCRATCH))
        self.room = Room(ROOM)
        self.inbound = Room(INBOUND, INBOUND_PARTS)
        self.roster = Roster()
        self.ledger = Ledger(loop.time)
        self.calls = Calls(loop, self.roster, self.ledger)
        self.calls.services.update(services_of(self.calls))
        self.messages = Messages(self.ledger)
        self.turns = Turns(loop)
        self.far = Far(self.calls, self.messages, self.roster, self.turns, self.room, self.inbound)
        self.calls.elsewhere = self.messages.far = self.far
        self.calls.services["$bus.machines"] = Plain(self.calls, self._machines)
        self.calls.services["$bus.figures"] = Plain(
            self.calls, lambda call: figures(call, self.roster, self.ledger)
        )
        self._loop = loop
        self._doors: dict[str, list[Connection]] = {}
        self._queue: FairQueue[tuple[Connection, Frame]] = FairQueue(_UNBOUNDED)
        self._backlogged: list[Connection] = []
        self._burst = 0
        self._burst_from = 0.0
        self._turn_is_due = False

    def _machines(self, call: Call) -> Frame:
        """Say which other machines are there, to the host application alone."""
        if not call.seat.is_host:
            return wire.error(call.frame.id, Code.NOT_PERMITTED, "the host application alone may ask this")
        return Frame(Kind.ANSWER, call.frame.id, payload=json.dumps(self.far.to_json()).encode())

    # What the controller says.

    def update(self, members: Iterable[Member]) -> None:
        """Take the whole list of Plugins; what they may not do any more ends now."""
        self._follow(*self.roster.update(members))
        self.ledger.keep({seat.member.key for seat in self.roster})

    def know(self, member: Member) -> None:
        """Take one Plugin that is new or has changed."""
        self._follow(*self.roster.put(member))

    def forget(self, uids: Collection[str]) -> None:
        """Cut off the Plugins that are no more, and nobody who came meanwhile and is still to be told of."""
        self._follow((), self.roster.drop(uids))
        self.ledger.keep({seat.member.key for seat in self.roster})

    def _follow(self, changed: Iterable[Seat], gone: Iterable[Seat]) -> None:
        for seat in changed:
            self.calls.revoke(seat.connections)
            self.messages.revoke(seat, seat.connections)
        for seat in gone:
            for connection in list(seat.connections):
                self._cut(connection, Code.NOT_PERMITTED, "the plugin is gone")
        self.far.news()

    def connect(self, doorway: Doorway, limit: int = CONNECTIONS_LIMIT) -> Connection | None:
        """Return a connection for somebody who came through a door; None when too many are in already."""
        if len(self._doors.get(doorway.key, ())) >= limit:
            why = f"{limit} connections are open already"
            self.ledger.fault(doorway.namespace, doorway.plugin, Fault.CONNECTIONS, why)
            return None
        return Connection(self, doorway, self._loop)

    def through(self, key: str) -> Connection | None:
        """Return a connection that came through a door and said HELLO."""
        found = (one for one in self._doors.get(key, ()) if one.seat is not None)
        return next(found, None)

    def open_calls(self, key: str) -> int | None:
        """Return how many calls who is behind a door has; None while it may still be given more."""
        found = [one for one in self._doors.get(key, ()) if one.seat is not None]
        if not all(one.drains for one in found):
            return None
        return sum(len(one.given) + one.waiting.count for one in found)

    def shut(self, key: str) -> None:
        """Cut everyone off who came through a door."""
        for connection in list(self._doors.get(key, ())):
            connection.close()

    # What connections say.

    def opened(self, connection: Connection) -> None:
        """Somebody connected."""
        self._doors.setdefault(connection.doorway.key, []).append(connection)

    def closed(self, connection: Connection) -> None:
        """Somebody is gone, and all that was open with it."""
        siblings = self._doors.get(connection.doorway.key, [])
        if connection in siblings:
            siblings.remove(connection)
        if not siblings:
            self._doors.pop(connection.doorway.key, None)
        seat = connection.seat
        if seat is not None and connection in seat.connections:
            seat.connections.remove(connection)
            self.roster.left(seat)
            self.far.news()
        self.messages.left(connection)
        self.calls.left(connection)

    def broken(self, connection: Connection, code: Code, why: str) -> None:
        """Somebody broke the rules."""
        doorway = connection.doorway
        self.ledger.fault(doorway.namespace, doorway.plugin, Fault.MALFORMED, why)
        self._cut(connection, code, why)

    def crowded(self, connection: Connection) -> None:
        """Somebody sends what there is no room for, and would be waited for."""
        doorway, why = connection.doorway, "too much of frames that are not whole yet"
        self.ledger.fault(doorway.namespace, doorway.plugin, Fault.OVERLOADED, why)
        self._cut(connection, Code.OVERLOADED, why)

    def _cut(self, connection: Connection, code: Code, why: str) -> None:
        connection.send(wire.error(0, code, why), "")
        connection.close()

    def backlogged(self, connection: Connection) -> None:
        """There is more of it than one turn may take."""
        if connection.seat is not None and connection.pending >= READ_BATCH:
            self.ledger.held_back(*connection.seat.member.key)
        self._backlogged.append(connection)
        self._call_soon()

    def incoming(self, connection: Connection, frames: list[Frame]) -> None:
        """Handle frames, or let them line up when there are many."""
        queue = self._queue
        with self.turns:
            for frame in frames:
                if not queue.count and self._is_calm():
                    self._handle(connection, frame)
                else:
                    sender = connection.doorway.key if connection.seat is None else connection.seat.key
                    queue.push(sender, frame.priority, (connection, frame), len(frame.payload))
                    connection.line_up(len(frame.payload))
                    self._call_soon()

    def _is_calm(self) -> bool:
        now = time.monotonic()  # the loop's own time may go by milliseconds
        if now - self._burst_from > BURST_TIME:
            self._burst_from, self._burst = now, 0
        self._burst += 1
        return self._burst <= BURST

    def _call_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_is_due = False
        with self.turns:
            for _ in range(TURN):
                entry = self._queue.pop()
                if entry is None:
                    break
                connection, frame = entry
                connection.handled(len(frame.payload))
                self._handle(connection, frame)
        backlogged, self._backlogged = self._backlogged, []
        for connection in backlogged:
            if connection.pending:
                self._backlogged.append(connection)
            else:
                connection.read_on()
        if self._queue.count or self._backlogged:
            self._call_soon()

    # What a frame means.

    def _handle(self, connection: Connection, frame: Frame) -> None:
        if connection.closing:
            return
        try:
            if connection.seat is None:
                self._greet(connection, frame)
            else:
                self._dispatch(connection, connection.seat, frame)
        except BrokenFrame as error:
            self.broken(connection, error.code, str(error))

    def _greet(self, connection: Connection, frame: Frame) -> None:
        hello = read_hello(frame)
        doorway = connection.doorway
        if doorway.plugin == HOST:
            namespace = hello.namespace or "default"
            why = self.roster.outsiders_may_not(namespace, hello.methods)
            if why:
                self._cut(connection, Code.NOT_PERMITTED, why)
                return
            seat: Seat | None = self.roster.host(namespace)
            if self.roster.outsiders is not None:
                log.info("somebody from outside of the cluster acts in %s", namespace)
        else:
            seat = self.roster.find(doorway.namespace, doorway.plugin)
        if seat is None or seat.member.uid != doorway.plugin_uid:
            self._cut(connection, Code.UNAVAILABLE, "the plugin is not known, or not any more")
            return
        connection.greeted()
        connection.methods, connection.window, connection.seat = hello.methods, hello.window, seat
        seat.connections.append(connection)
        self.far.news()
        connection.send(welcome(seat.member, f"{doorway.plugin}-{doorway.place}"), "")

    def _dispatch(self, connection: Connection, seat: Seat, frame: Frame) -> None:
        if frame.headers and not wire.RESERVED_HEADERS.isdisjoint(frame.headers):
            raise BrokenFrame(Code.MALFORMED, "a header that the broker alone sets")
        match frame.kind:
            case Kind.CALL:
                self.calls.call(connection, seat, frame)
            case Kind.ANSWER | Kind.ERROR:
                self.calls.answer(connection, frame)
            case Kind.ITEM:
                self.calls.streams.item(connection, frame)
            case Kind.CREDIT:
                self.calls.streams.credit(connection, frame)
            case Kind.CANCEL:
                self.calls.cancel(connection, frame)
            case Kind.PUBLISH:
                self.messages.publish(connection, seat, frame)
            case Kind.SUBSCRIBE:
                self.messages.subscribe(connection, seat, frame)
            case Kind.UNSUBSCRIBE:
                self.messages.unsubscribe(connection, frame)
            case _:
                raise BrokenFrame(Code.MALFORMED, f"a client does not send kind {frame.kind}")
