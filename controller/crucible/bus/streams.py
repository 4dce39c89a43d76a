"""Streams: calls with items on the way, in either direction as far as the receiver's credit goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from crucible.bus import wire
from crucible.bus.call import called_by_name
from crucible.bus.wire import Code, Frame

if TYPE_CHECKING:
    from crucible.bus.call import Call
    from crucible.bus.connection import Connection


class Fail(Protocol):
    """How a call is ended with an error."""

    def __call__(self, call: Call, code: Code, why: str) -> None:
        """End it; both sides hear of it."""


class Streams:
    """Passes items and credit on."""

    __slots__ = ("_fail",)

    def __init__(self, fail: Fail) -> None:
        self._fail = fail

    def item(self, sender: Connection, frame: Frame) -> None:
        """Take an ITEM and pass it on, if there is credit for it."""
        from_caller = bool(frame.id & 1)
        call = (sender.calls if from_caller else sender.given).get(frame.id)
        if call is not None:
            self.pass_item(call, frame, from_caller=from_caller)

    def pass_item(self, call: Call, frame: Frame, *, from_caller: bool) -> None:
        """Pass an ITEM on, if there is credit for it."""
        credit = call.up if from_caller else call.down
        if not call.stream or credit < 1 or (frame.flags & wire.LAST and not from_caller):
            self._fail(call, Code.OVERLOADED, "an item without credit, or out of place")
            return
        if from_caller:
            call.up = 0 if frame.flags & wire.LAST else call.up - 1
            self._item_to_callee(call, frame)
        else:
            self.item_to_caller(call, frame)

    def item_to_caller(self, call: Call, frame: Frame) -> None:
        """Pass an item of the called on; there is credit."""
        call.down -= 1
        if call.caller is None:
            if call.patron is not None:
                call.patron.item(call, frame)
        elif not call.caller.send(frame._replace(id=call.frame.id), called_by_name(call)):
            self._fail(call, Code.OVERLOADED, "the caller does not read its items")

    def _item_to_callee(self, call: Call, frame: Frame) -> None:
        if call.callee is None:
            if call.service is not None:
                call.service.item(call, frame)
        elif not call.callee.send(frame._replace(id=call.callee_id), call.seat.key):
            self._fail(call, Code.OVERLOADED, "the called does not read its items")

    def credit(self, sender: Connection, frame: Frame) -> None:
        """Take a CREDIT and pass it on, as far as it does not go over the limit.

        Raises:
            BrokenFrame: it is no number, or none that may be.
        """
        items = wire.credit_of(frame)
        from_caller = bool(frame.id & 1)
        call = (sender.calls if from_caller else sender.given).get(frame.id)
        if call is not None and call.stream:
            self.pass_credit(call, items, from_caller=from_caller)

    def pass_credit(self, call: Call, items: int, *, from_caller: bool) -> None:
        """Pass credit on, as far as it does not go over the limit."""
        if from_caller:
            items = min(items, wire.LARGEST_CREDIT - call.down)
            call.down += items
            self._credit_to_callee(call, items)
        else:
            items = min(items, wire.LARGEST_CREDIT - call.up)
            call.up += items
            self.credit_to_caller(call, items)

    def _credit_to_callee(self, call: Call, items: int) -> None:
        if not items:
            return
        if call.service is not None:
            call.service.credit(call, items)
        elif call.callee is None or not call.callee_id:
            call.granted += items
        elif not call.callee.send(wire.credit(call.callee_id, items), call.seat.key):
            self._fail(call, Code.OVERLOADED, "the called does not read")

    def credit_to_caller(self, call: Call, items: int) -> None:
        """Let the caller send more items."""
        if call.patron is not None:
            call.patron.credit(call, items)
        elif (
            items
            and call.caller is not None
            and not call.caller.send(wire.credit(call.frame.id, items), called_by_name(call))
        ):
            self._fail(call, Code.OVERLOADED, "the caller does not read")
