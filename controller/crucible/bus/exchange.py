"""Calls between this machine and another that go one way: from here to its plugins, and from there to ours.

Frames are those of the wire, with two differences: a CALL is named ``NAMESPACE/CALLER/PLUGIN.METHOD``, and
whoever began a call uses its odd id, the other side that id and one more. A call ends on the way on which it
began: what is lost with a way was never on another, so nothing is done twice.
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Final, Protocol

from crucible.bus import wire
from crucible.bus.ledger import Fault
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind
from crucible.core import backbone

if TYPE_CHECKING:
    from crucible.bus.call import Call
    from crucible.bus.calls import Calls
    from crucible.bus.peer import Peer

CALLS_LIMIT: Final = 1024
"""Calls open at once between two machines, in each direction, whatever way they go."""


class Way(Protocol):
    """How frames get to another machine."""

    def carry(self, sender: str, priority: int, data: bytes) -> str:
        """Send frames; return why they do not go, empty when they do."""

    def insist(self, data: bytes) -> None:
        """Send a small frame that must not be lost."""


class Exchange:
    """The calls of one way; the peer's name, what it may do and who calls from there are :class:`Peer`'s."""

    def __init__(self, peer: Peer, way: Way, calls: Calls) -> None:
        self.name = peer.name
        self._peer = peer
        self._way = way
        self._calls = calls
        self._made: dict[int, Call] = {}
        self._served: dict[int, Call] = {}
        self._last = 2 * secrets.randbelow(2**29) + 1  # what is late is no answer to anything new

    @property
    def made(self) -> int:
        """Calls to it that are open."""
        return len(self._made)

    @property
    def served(self) -> int:
        """Calls from it that are open."""
        return len(self._served)

    # Calls from here: the peer is the service that is called.

    def begin(self, call: Call) -> None:
        """Send a CALL."""
        if self._peer.made >= CALLS_LIMIT:
            self._calls.fail(call, Code.OVERLOADED, f"{CALLS_LIMIT} calls to {self.name} are open already")
            return
        frame, left = call.frame, 0
        if call.due != math.inf:
            left = max(int((call.due - self._calls.loop.time()) * 1000), 1)
        self._last = (self._last + 2) & 0x7FFFFFFF
        while self._last in self._made:
            self._last = (self._last + 2) & 0x7FFFFFFF
        call.callee_id = self._last
        self._made[call.callee_id] = call
        kind, _, asked, payload, headers, priority, _, flags = frame
        name = backbone.calling(call.seat.member.namespace, call.seat.name, asked)
        sent = Frame(kind, call.callee_id, name, payload, headers, priority, left, flags)
        self._send(call, sent, call.seat.key)

    def cancelled(self, call: Call) -> None:
        """Send a CANCEL: the call ended otherwise."""
        if self._made.pop(call.callee_id, None) is not None:
            cancel = Frame(Kind.CANCEL, call.callee_id, priority=call.frame.priority)
            self._way.insist(wire.encode(cancel))

    def permits(self, call: Call) -> bool:
        """Say whether who calls may still do so."""
        return call.seat.may_call(call.frame.name)

    # Calls from there: the peer is the patron who calls.

    def ended(self, call: Call, frame: Frame) -> None:
        """Send the ANSWER or ERROR."""
        self._served.pop(call.frame.id, None)
        kind, _, name, payload, headers, priority, deadline, flags = frame
        last = Frame(kind, call.frame.id + 1, name, payload, headers, priority, deadline, flags)
        try:
            why = self._way.carry(call.frame.name, priority, wire.encode(last))
            code = Code.OVERLOADED
        except BrokenFrame as error:
            why, code = str(error), error.code
        if why:
            self._way.insist(wire.encode(wire.error(last.id, code, why)))

    # Both: items and credit.

    def item(self, call: Call, frame: Frame) -> None:
        """Send an ITEM."""
        self._send(call, frame._replace(id=self._id_of(call)), call.seat.key)

    def credit(self, call: Call, items: int) -> None:
        """Send a CREDIT."""
        if items:
            self._send(call, wire.credit(self._id_of(call), items), call.seat.key)

    def _id_of(self, call: Call) -> int:
        return call.callee_id if call.service is self else call.frame.id + 1

    def _send(self, call: Call, frame: Frame, sender: str) -> None:
        try:
            why = self._way.carry(sender, call.frame.priority, wire.encode(frame))
        except BrokenFrame as error:
            self._calls.fail(call, error.code, str(error))
            return
        if why:
            self._calls.fail(call, Code.OVERLOADED, f"{call.frame.name} on {self.name}: {why}")

    # What the peer sends.

    def receive(self, frame: Frame) -> None:
        """Take a frame of the peer's.

        Raises:
            BrokenFrame: it breaks the rules.
        """
        if frame.headers and not wire.RESERVED_HEADERS.isdisjoint(frame.headers) and frame.kind != Kind.ERROR:
            raise BrokenFrame(Code.MALFORMED, "a header that a broker alone sets")
        if frame.kind == Kind.CALL:
            self._called(frame)
        elif frame.id & 1:
            self._of_caller(frame)
        else:
            self._of_called(frame)

    def _of_caller(self, frame: Frame) -> None:
        call = self._served.get(frame.id)
        if call is None:
            return
        match frame.kind:
            case Kind.CANCEL:
                self._calls.fail(call, Code.CANCELLED, "cancelled by the caller")
            case Kind.ITEM:
                self._calls.streams.pass_item(call, frame, from_caller=True)
            case Kind.CREDIT if call.stream:
                self._calls.streams.pass_credit(call, wire.credit_of(frame), from_caller=True)
            case _:
                raise BrokenFrame(Code.MALFORMED, f"a caller does not send kind {frame.kind}")

    def _of_called(self, frame: Frame) -> None:
        call = self._made.get(frame.id - 1)
        if call is None:
            return
        match frame.kind:
            case Kind.ANSWER | Kind.ERROR:
                del self._made[frame.id - 1]
                self._calls.end(call, self._signed(call, frame), told=True)
            case Kind.ITEM:
                self._calls.streams.pass_item(call, frame, from_caller=False)
            case Kind.CREDIT if call.stream:
                self._calls.streams.pass_credit(call, wire.credit_of(frame), from_caller=False)
            case _:
                raise BrokenFrame(Code.MALFORMED, f"who is called does not send kind {frame.kind}")

    def _signed(self, call: Call, frame: Frame) -> Frame:
        """Return the end of a call as the caller here gets it: what the called said is said by the called."""
        if not frame.headers:
            return frame
        headers = {name: text for name, text in frame.headers.items() if name not in wire.RESERVED_HEADERS}
        if "from" in frame.headers:
            headers["from"] = self._peer.terms.called(call.frame.name.partition(".")[0], self.name)
        return frame._replace(headers=headers)

    def _called(self, frame: Frame) -> None:
        """Take a CALL: whether it may come in is for us to say, whatever was checked where it comes from."""
        if not frame.id & 1 or frame.id in self._served:
            raise BrokenFrame(Code.MALFORMED, f"id {frame.id} is in use, or not a caller's to choose")
        what = self._peer.called(frame.name)
        if what is None:
            self._refuse(frame, Code.MALFORMED, "it names no method of a plugin", frame.name)
        elif not self._peer.may_enter(frame.name, what):
            self._refuse(
                frame, Code.NOT_PERMITTED, self._peer.why_not(what), f"call {what.name} in {what.namespace}"
            )
        elif self._peer.served >= CALLS_LIMIT:
            self._refuse(frame, Code.OVERLOADED, f"{CALLS_LIMIT} calls are open already", what.name)
        elif (seat := self._peer.caller(what)) is None:
            self._refuse(frame, Code.UNAVAILABLE, f"{what.caller} is not known here", what.name)
        else:
            kind, ident, _, payload, headers, priority, deadline, flags = frame
            called = Frame(kind, ident, what.name, payload, headers, priority, deadline, flags)
            call = self._calls.serve(seat, called, self)
            if call.open:
                self._served[frame.id] = call

    def _refuse(self, frame: Frame, code: Code, why: str, detail: str) -> None:
        fault = {Code.NOT_PERMITTED: Fault.REFUSED, Code.OVERLOADED: Fault.OVERLOADED}
        self._calls.ledger.fault("", f"@{self.name}", fault.get(code, Fault.MALFORMED), detail)
        refusal = wire.error(frame.id + 1, code, why)._replace(priority=frame.priority)
        self._way.insist(wire.encode(refusal))

    # How it ends.

    def fall(self, why: str) -> None:
        """The line that this went by has ended."""
        self._peer.falls(self, why)

    def lost(self, why: str) -> None:
        """End every call, in both directions."""
        made, self._made = self._made, {}
        served, self._served = self._served, {}
        for call in (*made.values(), *served.values()):
            self._calls.fail(call, Code.UNAVAILABLE, f"{self.name}: {why}")

    def recheck(self) -> None:
        """End what is not shared any more."""
        for call in (*self._made.values(), *self._served.values()):
            if not self._is_shared(call):
                why = f"{call.frame.name} was shared, and is not any more"
                self._calls.fail(call, Code.NOT_PERMITTED, why)

    def _is_shared(self, call: Call) -> bool:
        namespace = call.seat.member.namespace
        if call.service is self:
            return self._peer.terms.joins(namespace, self.name)
        plugin, _, method = call.frame.name.partition(".")
        caller = call.seat.name.partition("@")[0]
        return self._peer.terms.may_enter(self.name, backbone.Called(namespace, caller, plugin, method))
