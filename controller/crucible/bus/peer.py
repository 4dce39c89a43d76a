"""One other machine: calls from here to its plugins, and from there to ours.

Frames are those of the wire, with two differences: a CALL is named ``NAMESPACE/CALLER/PLUGIN.METHOD``, and
whoever began a call uses its odd id, the other side that id and one more.
"""

from __future__ import annotations

import logging
import math
import secrets
from typing import TYPE_CHECKING, Final, Protocol

from crucible.bus import wire
from crucible.bus.ledger import Fault
from crucible.bus.terms import CALLERS_LIMIT
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind
from crucible.core import backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.bus.call import Call
    from crucible.bus.calls import Calls
    from crucible.bus.terms import Callers, Terms

CALLS_LIMIT: Final = 1024
"""Calls open at once between two machines, each way."""

log = logging.getLogger(__name__)


class Road(Protocol):
    """How frames get to another machine."""

    terms: Terms
    """What may come and go."""

    def carry(self, machine: str, sender: str, priority: int, data: bytes) -> str:
        """Send frames; return why they do not go, empty when they do."""

    def insist(self, machine: str, data: bytes) -> None:
        """Send a small frame that must not be lost."""


class Peer:
    """One other machine, as long as it is heard of.

    Attributes:
        name: of the machine.
        epoch: its word for this stay of it on the backbone; another means that all calls are lost.
        version: of what it said it has.
        plugins: what it has for us: why it would not answer, empty when it would, by namespace and name.
        heard_at: when, in the loop's time.
    """

    def __init__(self, name: str, road: Road, calls: Calls) -> None:
        self.name = name
        self.epoch = ""
        self.version = -1
        self.plugins: Mapping[tuple[str, str], str] = {}
        self.heard_at = calls.loop.time()
        self._road = road
        self._calls = calls
        self._made: dict[int, Call] = {}
        self._served: dict[int, Call] = {}
        self._callers: Callers = {}
        self._entered: dict[str, backbone.Called] = {}
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
        if len(self._made) >= CALLS_LIMIT:
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
        name = backbone.calling(call.seat.member.namespace, call.seat.name, frame.name)
        self._send(call, frame._replace(id=call.callee_id, name=name, deadline=left), call.seat.key)

    def cancelled(self, call: Call) -> None:
        """Send a CANCEL: the call ended otherwise."""
        if self._made.pop(call.callee_id, None) is not None:
            cancel = Frame(Kind.CANCEL, call.callee_id, priority=call.frame.priority)
            self._road.insist(self.name, wire.encode(cancel))

    def permits(self, call: Call) -> bool:
        """Say whether who calls may still do so."""
        return call.seat.may_call(call.frame.name)

    # Calls from there: the peer is the patron who calls.

    def ended(self, call: Call, frame: Frame) -> None:
        """Send the ANSWER or ERROR."""
        self._served.pop(call.frame.id, None)
        last = frame._replace(id=call.frame.id + 1)
        try:
            why = self._road.carry(self.name, call.frame.name, last.priority, wire.encode(last))
            code = Code.OVERLOADED
        except BrokenFrame as error:
            why, code = str(error), error.code
        if why:
            self._road.insist(self.name, wire.encode(wire.error(last.id, code, why)))

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
            why = self._road.carry(self.name, sender, call.frame.priority, wire.encode(frame))
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
            headers["from"] = self._road.terms.called(call.frame.name.partition(".")[0], self.name)
        return frame._replace(headers=headers)

    def _called(self, frame: Frame) -> None:
        """Take a CALL: whether it may come in is for us to say, whatever was checked where it comes from."""
        if not frame.id & 1 or frame.id in self._served:
            raise BrokenFrame(Code.MALFORMED, f"id {frame.id} is in use, or not a caller's to choose")
        what = self._entered.get(frame.name) or backbone.called(frame.name)
        if what is None:
            self._refuse(frame, Code.MALFORMED, "it names no method of a plugin", frame.name)
        elif not self._may_enter(frame.name, what):
            why = self._why_not(what)
            self._refuse(frame, Code.NOT_PERMITTED, why, f"call {what.name} in {what.namespace}")
        elif len(self._served) >= CALLS_LIMIT:
            self._refuse(frame, Code.OVERLOADED, f"{CALLS_LIMIT} calls are open already", what.name)
        elif (seat := self._road.terms.caller(self._callers, self.name, what)) is None:
            self._refuse(frame, Code.OVERLOADED, f"more than {CALLERS_LIMIT} callers", what.name)
        else:
            call = self._calls.serve(seat, frame._replace(name=what.name), self)
            if call.open:
                self._served[frame.id] = call

    def _may_enter(self, name: str, what: backbone.Called) -> bool:
        """Say whether a call may come in; a machine's is remembered until something else is shared."""
        if name in self._entered and not self._road.terms.kindred:
            return True
        if not self._road.terms.may_enter(self.name, what):
            return False
        if len(self._entered) >= CALLERS_LIMIT:
            self._entered.clear()
        self._entered[name] = what
        return True

    def _why_not(self, what: backbone.Called) -> str:
        if self._road.terms.kindred:
            return f"the manifest of {what.caller} lacks spec.capabilities.bus.call: [{what.name}]"
        return f"the machine that {what.plugin} runs on does not share {what.name} with {self.name}"

    def _refuse(self, frame: Frame, code: Code, why: str, detail: str) -> None:
        fault = {Code.NOT_PERMITTED: Fault.REFUSED, Code.OVERLOADED: Fault.OVERLOADED}
        self._calls.ledger.fault("", f"@{self.name}", fault.get(code, Fault.MALFORMED), detail)
        refusal = wire.error(frame.id + 1, code, why)._replace(priority=frame.priority)
        self._road.insist(self.name, wire.encode(refusal))

    # How it ends.

    def lost(self, why: str) -> None:
        """End every call, in both directions."""
        made, self._made = self._made, {}
        served, self._served = self._served, {}
        for call in (*made.values(), *served.values()):
            self._calls.fail(call, Code.UNAVAILABLE, f"{self.name}: {why}")

    def recheck(self) -> None:
        """End what is not shared any more, and judge anew what comes in."""
        self._entered.clear()
        for call in (*self._made.values(), *self._served.values()):
            if not self._is_shared(call):
                why = f"{call.frame.name} was shared, and is not any more"
                self._calls.fail(call, Code.NOT_PERMITTED, why)

    def _is_shared(self, call: Call) -> bool:
        namespace = call.seat.member.namespace
        if call.service is self:
            return self._road.terms.joins(namespace, self.name)
        plugin, _, method = call.frame.name.partition(".")
        caller = call.seat.name.partition("@")[0]
        return self._road.terms.may_enter(self.name, backbone.Called(namespace, caller, plugin, method))
