"""Calls: from one connection to another, or to a service of the broker itself.

Every call ends exactly once: with the answer, an error of the called, or one of ours (cancelled, out of time,
gone, overloaded). Whoever is left is told, and later frames of that call are dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from crucible.bus import wire
from crucible.bus.call import Call, called_by_name
from crucible.bus.deadlines import Deadlines
from crucible.bus.ledger import Fault
from crucible.bus.roster import SILENT
from crucible.bus.streams import Streams
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping

    from crucible.bus.call import Patron, Service
    from crucible.bus.connection import Connection
    from crucible.bus.ledger import Ledger
    from crucible.bus.roster import Roster, Seat


class Elsewhere(Protocol):
    """Other machines."""

    def choose(self, call: Call, plugin: str, code: Code, why: str) -> tuple[Code | None, str]:
        """Find one for a call that nobody here answers, and make it the call's service; else say why not."""
        ...


CALLS_LIMIT: Final = 1024
"""Calls that one connection may have open."""
DEFAULT_TIME: Final = 30.0
"""Seconds for a call that names no deadline."""


@dataclass(slots=True)
class Calls:
    """All calls that are open on this machine."""

    loop: asyncio.AbstractEventLoop
    roster: Roster
    ledger: Ledger
    services: dict[str, Service] = field(default_factory=dict)
    elsewhere: Elsewhere | None = None
    deadlines: Deadlines = field(init=False)
    streams: Streams = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.streams = Streams(self.fail)
        self.deadlines = Deadlines(self.loop, self._over)

    # What callers send.

    def call(self, caller: Connection, seat: Seat, frame: Frame) -> None:
        """Take a CALL from a connection.

        Raises:
            BrokenFrame: its id is not a new one of a client.
        """
        if not frame.id & 1 or frame.id in caller.calls:
            raise BrokenFrame(Code.MALFORMED, f"id {frame.id} is in use, or not a client's to choose")
        if len(caller.calls) >= CALLS_LIMIT:
            self._refuse(caller, seat, frame, Code.OVERLOADED, f"{CALLS_LIMIT} calls are open already")
            return
        self.ledger.of(seat.member.namespace, seat.name).calls += 1
        call = Call(frame, "", seat, caller)
        self._begin(call, caller.calls)

    def ask(self, connection: Connection, seat: Seat, frame: Frame, patron: Patron) -> Call:
        """Call a method of one connection on behalf of the broker; what is not there, it answers itself."""
        call = Call(frame, frame.name, seat, None, patron, callee=connection)
        self._time(call)
        self._queue(call)
        return call

    def serve(self, seat: Seat, frame: Frame, patron: Patron) -> Call:
        """Take a CALL from somebody who is not connected here and was judged elsewhere."""
        call = Call(frame, "", seat, None, patron)
        self._begin(call, {}, judged=True)
        return call

    def _begin(self, call: Call, open_calls: dict[int, Call], *, judged: bool = False) -> None:
        frame, seat = call.frame, call.seat
        service = self.services.get(frame.name) if frame.name[0] == "$" else None
        if service is not None:
            call.method, call.service = frame.name, service
            open_calls[frame.id] = call
            self._time(call)
            service.begin(call)
            return
        plugin, dot, call.method = frame.name.partition(".")
        if not dot or not call.method:
            self._reject(call, Code.MALFORMED, f"{frame.name!r} is no plugin.method")
        elif not judged and not seat.may_call(frame.name):
            self._reject(
                call, Code.NOT_PERMITTED, f"the manifest lacks spec.capabilities.bus.call: [{frame.name}]"
            )
        else:
            code, why = self._choose(call, plugin)
            if code is not None and self.elsewhere is not None and not judged:
                code, why = self.elsewhere.choose(call, plugin, code, why)
            if code is not None:
                self._reject(call, code, why)
                return
            open_calls[frame.id] = call
            self._time(call)
            if call.service is not None:
                call.service.begin(call)
            else:
                self._queue(call)

    def _choose(self, call: Call, plugin: str) -> tuple[Code | None, str]:
        """Find the connection with the fewest open calls that has the method; else say why there is none."""
        seat = self.roster.find(call.seat.member.namespace, plugin)
        if seat is None:
            return Code.NO_SUCH_PLUGIN, f"there is no plugin {plugin}"
        best: Connection | None = None
        takes = [connection for connection in seat.connections if not connection.drains]
        for connection in takes:
            if call.method in connection.methods and (
                best is None or len(connection.given) < len(best.given)
            ):
                best = connection
        if best is not None:
            call.callee = best
            return None, ""
        if len(takes) < len(seat.connections) and not any(connection.methods for connection in takes):
            return Code.UNAVAILABLE, f"{plugin}: it is about to be stopped, and takes no new calls"
        if not any(connection.methods for connection in seat.connections):
            state = seat.member.state or SILENT
            return Code.UNAVAILABLE, f"{plugin}: {state}"
        return Code.NO_SUCH_METHOD, f"{plugin} has no method {call.method}"

    def cancel(self, caller: Connection, frame: Frame) -> None:
        """Take a CANCEL: the caller does not want the answer any more."""
        call = caller.calls.get(frame.id)
        if call is not None:
            self.fail(call, Code.CANCELLED, "cancelled by the caller")

    # What the called sends.

    def answer(self, callee: Connection, frame: Frame) -> None:
        """Take an ANSWER or ERROR of the called."""
        call = callee.given.get(frame.id)
        if call is None:
            return
        seat = callee.seat
        if seat is not None:
            self.ledger.of(seat.member.namespace, seat.name).answered += 1
        if frame.kind == Kind.ERROR and seat is not None:
            frame = frame._replace(headers={**frame.headers, "from": seat.name})
        self.end(call, frame, told=True)

    # How calls end.

    def fail(self, call: Call, code: Code, why: str, headers: Mapping[str, str] | None = None) -> None:
        """End a call with an error of ours; both sides hear of it."""
        self.end(call, wire.error(call.frame.id, code, why, headers or {}))

    def end(self, call: Call, frame: Frame, *, told: bool = False) -> None:
        """End a call with an ANSWER or ERROR.

        Args:
            call: which; one that ended already stays as it is.
            frame: what the caller gets; its id and priority are set here.
            told: whoever was called knows.
        """
        if not call.open:
            return
        call.open = False
        if call.watched:
            self.deadlines.forget(call.watched)
        self._leave_callee(call, told)
        kind, _, name, payload, headers, _, deadline, flags = frame
        last = Frame(kind, call.frame.id, name, payload, headers, call.frame.priority, deadline, flags)
        if call.caller is not None:
            call.caller.calls.pop(call.frame.id, None)
            self._last_word(call.caller, last, called_by_name(call))
        elif call.patron is not None:
            call.patron.ended(call, last)

    def _leave_callee(self, call: Call, told: bool) -> None:
        callee = call.callee
        if call.service is not None:
            if not told:
                call.service.cancelled(call)
        elif callee is not None and call.ticket is not None:
            callee.waiting.discard(call.ticket, call.frame.priority)
        elif callee is not None and callee.given.pop(call.callee_id, None) is not None:
            if not told:
                self._last_word(
                    callee, Frame(Kind.CANCEL, call.callee_id, priority=call.frame.priority), call.seat.key
                )
            self.give_next(callee)

    def left(self, gone: Connection) -> None:
        """A connection is gone: its calls are cancelled, those it was given have failed."""
        for call in list(gone.calls.values()):
            self.fail(call, Code.CANCELLED, "the caller is gone")
        while (waiting := gone.waiting.pop()) is not None:
            waiting.ticket = None
            self.fail(waiting, Code.UNAVAILABLE, self._gone(gone))
        for call in list(gone.given.values()):
            self.fail(call, Code.UNAVAILABLE, self._gone(gone))

    def revoke(self, connections: Iterable[Connection]) -> None:
        """End what its caller may not do any more."""
        for connection in connections:
            for call in list(connection.calls.values()):
                service = call.service
                if not (call.seat.may_call(call.frame.name) if service is None else service.permits(call)):
                    self.fail(call, Code.NOT_PERMITTED, f"{call.frame.name} was granted, and is not any more")

    def _over(self, call: Call) -> None:
        self.fail(call, Code.DEADLINE_EXCEEDED, f"no answer from {call.frame.name} in time")

    # How calls are given to the called.

    def _queue(self, call: Call) -> None:
        callee = call.callee
        if callee is None:
            return
        if len(callee.given) < callee.window and not callee.waiting.count:
            self._give(callee, call)
            return
        frame = call.frame
        call.ticket = callee.waiting.push(
            call.seat.key, frame.priority, call, wire.HEAD_SIZE + len(frame.payload)
        )
        if call.ticket is None:
            self._overloaded(call, "too many calls wait for it already")

    def give_next(self, callee: Connection) -> None:
        """Give a connection what waits for it, as far as its window goes."""
        while callee.waiting.count and len(callee.given) < callee.window and not callee.closing:
            call = callee.waiting.pop()
            if call is not None:
                call.ticket = None
                self._give(callee, call)

    def _give(self, callee: Connection, call: Call) -> None:
        frame = call.frame
        left = 0
        if call.due != math.inf:
            left = max(int((call.due - self.loop.time()) * 1000), 1)
        call.callee_id = callee.next_id()
        callee.given[call.callee_id] = call
        given = Frame(
            Kind.CALL,
            call.callee_id,
            call.method,
            frame.payload,
            {**frame.headers, "from": call.seat.name},
            frame.priority,
            left,
            frame.flags,
        )
        try:
            taken = callee.send(given, call.seat.key)
        except BrokenFrame as error:
            del callee.given[call.callee_id]
            self.fail(call, error.code, str(error))
            return
        if taken and call.granted:
            taken = callee.send(wire.credit(call.callee_id, call.granted), call.seat.key)
        if not taken:
            del callee.given[call.callee_id]
            self._overloaded(call, "it does not read what it is sent")

    def _time(self, call: Call) -> None:
        milliseconds = call.frame.deadline
        if milliseconds or not call.stream:
            call.due = self.loop.time() + (milliseconds / 1000 if milliseconds else DEFAULT_TIME)
            call.watched = self.deadlines.add(call.due, call)

    # Small things.

    def _overloaded(self, call: Call, why: str) -> None:
        seat = call.seat
        self.ledger.fault(seat.member.namespace, seat.name, Fault.OVERLOADED, call.frame.name)
        self.fail(call, Code.OVERLOADED, f"{called_by_name(call)}: {why}")

    def _reject(self, call: Call, code: Code, why: str) -> None:
        """End a call that never began."""
        call.open = False
        if call.caller is not None:
            self._refuse(call.caller, call.seat, call.frame, code, why)
        elif call.patron is not None:
            call.patron.ended(call, wire.error(call.frame.id, code, why))

    def _refuse(self, caller: Connection, seat: Seat, frame: Frame, code: Code, why: str) -> None:
        fault = {Code.NOT_PERMITTED: Fault.REFUSED, Code.OVERLOADED: Fault.OVERLOADED}.get(code)
        if fault is not None:
            self.ledger.fault(seat.member.namespace, seat.name, fault, f"call {frame.name}")
        self._last_word(caller, wire.error(frame.id, code, why)._replace(priority=frame.priority), "")

    def _last_word(self, to: Connection, frame: Frame, sender: str) -> None:
        """Send what must not be lost; a client that left no room for it is cut off."""
        try:
            sent = to.send(frame, sender)
        except BrokenFrame as error:
            sent = to.send(wire.error(frame.id, error.code, str(error)), sender)
        if not sent and not to.closing:
            if to.seat is not None:
                self.ledger.fault(to.seat.member.namespace, to.seat.name, Fault.UNREAD, "its queue is full")
            to.close()

    @staticmethod
    def _gone(connection: Connection) -> str:
        return f"{connection.doorway.plugin} went away during the call"
