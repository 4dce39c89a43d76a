"""``$store.…``: what is asked of plugins' stores, checked and bounded, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.bus.bucket import is_key
from crucible.bus.call import Refused
from crucible.bus.ledger import Fault
from crucible.bus.watches import Watches
from crucible.bus.wire import Code, Frame

if TYPE_CHECKING:
    from crucible.bus.call import Call, Service
    from crucible.bus.calls import Calls
    from crucible.bus.ledger import Ledger
    from crucible.model.bus import Member

WAITING_LIMIT: Final = 64
"""Requests of one plugin that may wait at once."""
PAGE: Final = 1000
CHANGES: Final = {"$store.put": "put", "$store.delete": "delete"}
_FAULTS: Final = {
    Code.NOT_PERMITTED: Fault.REFUSED,
    Code.STORE_FULL: Fault.STORE_FULL,
    Code.OVERLOADED: Fault.OVERLOADED,
}
_LARGEST_REVISION: Final = 2**63


@dataclass(slots=True)
class Request:
    """Something that was asked.

    Attributes:
        call: that asks.
        member: whose store is meant.
        key: which; empty for a list.
        expected: the revision that alone may be there; None: any.
    """

    call: Call
    member: Member
    key: str
    expected: int | None = None


class Verbs:
    """What is asked of stores; whoever keeps them takes it from here."""

    def __init__(self, calls: Calls, ledger: Ledger) -> None:
        self._calls = calls
        self._ledger = ledger
        self._watches = Watches(calls, self._owner_of, self._fault)
        self._waiting: dict[tuple[str, str], int] = {}

    def _take(self, request: Request) -> None:
        """Do it, later, and call :meth:`_finish`."""
        raise NotImplementedError

    def services(self) -> dict[str, Service]:
        """Return what is answered."""
        verbs = {f"$store.{verb}": self for verb in ("get", "put", "delete", "list")}
        return {**verbs, "$store.watch": self._watches}

    # A service, as calls see it.

    def begin(self, call: Call) -> None:
        """Let a request wait, or refuse it."""
        try:
            request = self._read(call)
        except Refused as refusal:
            self._fault(call, refusal)
            self._calls.fail(call, refusal.code, str(refusal))
            return
        key = request.member.key
        if self._waiting.get(key, 0) >= WAITING_LIMIT:
            self._ledger.fault(*key, Fault.OVERLOADED, call.method)
            self._calls.fail(call, Code.OVERLOADED, f"{WAITING_LIMIT} requests wait already")
            return
        self._waiting[key] = self._waiting.get(key, 0) + 1
        self._take(request)

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:
        """Nothing is sent in items."""

    def cancelled(self, call: Call) -> None:
        """What is written is written."""

    def permits(self, call: Call) -> bool:  # noqa: ARG002 - it was granted when it was asked for
        """Yes: it was granted when it was asked for, and is as good as done."""
        return True

    def _read(self, call: Call) -> Request:
        """Check a request.

        Raises:
            Refused: it may not be, or makes no sense.
        """
        headers = call.frame.headers
        member = self._owner_of(call)
        key = headers.get("key", "")
        if call.method in ("$store.get", "$store.put", "$store.delete") and not is_key(key):
            raise Refused(Code.MALFORMED, "header key: 1 to 255 characters of A-Z a-z 0-9 . _ - / =")
        revision = headers.get("revision")
        if revision is None:
            return Request(call, member, key)
        if not (revision.isascii() and revision.isdecimal() and int(revision[:20]) < _LARGEST_REVISION):
            raise Refused(Code.MALFORMED, "header revision: a number")
        return Request(call, member, key, int(revision))

    def _owner_of(self, call: Call) -> Member:
        """Return whose store is meant: the caller's own; the host application says whose."""
        member = call.seat.member
        if call.seat.is_host:
            name = call.frame.headers.get("plugin", "")
            seat = self._calls.roster.find(member.namespace, name)
            if seat is None:
                why = f"there is no plugin {name}" if name else "header plugin: say whose store"
                raise Refused(Code.NO_SUCH_PLUGIN, why)
            member = seat.member
        if member.grants.store is None:
            raise Refused(Code.NOT_PERMITTED, "the manifest lacks spec.capabilities.store: {size: …}")
        return member

    def _finish(self, request: Request, answer: Frame | Refused) -> None:
        """End a request."""
        key = request.member.key
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
        if isinstance(answer, Frame):
            self._calls.end(request.call, answer, told=True)
        else:
            self._fault(request.call, answer)
            self._calls.fail(request.call, answer.code, str(answer), answer.headers)

    def _fault(self, call: Call, refusal: Refused) -> None:
        fault = _FAULTS.get(refusal.code)
        if fault is not None:
            self._ledger.fault(call.seat.member.namespace, call.seat.name, fault, call.method)
