"""``$store.watch``: tells what changes in a store, as far as the watcher's credit goes."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crucible.bus.call import Refused
from crucible.bus.wire import Code, Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.bus.call import Call
    from crucible.bus.calls import Calls
    from crucible.model.bus import Member

_PENDING_BYTES: Final = 1024 * 1024 + 4096
"""Of values that wait for credit of one plugin's watchers."""
WATCHES_LIMIT: Final = 256
"""Of one plugin, on all its connections."""
_PENDING: Final = 256
"""Changes kept for a watcher without credit; one that is further behind has to begin anew."""


@dataclass(slots=True, eq=False)
class _Watcher:
    call: Call
    owner: tuple[str, str]
    prefix: str
    pending: deque[Frame] = field(default_factory=deque)
    size: int = 0


class Watches:
    """Everyone who watches a store."""

    def __init__(
        self,
        calls: Calls,
        owner_of: Callable[[Call], Member],
        refused: Callable[[Call, Refused], None],
    ) -> None:
        self._calls = calls
        self._owner_of = owner_of
        self._refused = refused
        self._watchers: dict[Call, _Watcher] = {}
        self._waiting: Counter[str] = Counter()
        """Bytes that wait for the credit of a plugin's watchers."""

    def begin(self, call: Call) -> None:
        """Tell what changes from now on."""
        if not call.stream:
            self._calls.fail(call, Code.MALFORMED, "a watch is a stream: set the flag STREAM")
            return
        try:
            owner = self._admitted(call)
        except Refused as refusal:
            self._refused(call, refusal)
            self._calls.fail(call, refusal.code, str(refusal), refusal.headers)
            return
        self._watchers[call] = _Watcher(call, owner.key, call.frame.headers.get("prefix", ""))

    def _admitted(self, call: Call) -> Member:
        """Return whose store it is about.

        Raises:
            Refused: it may not be watched, or its plugin watches enough already.
        """
        owner = self._owner_of(call)
        if sum(each.seat is call.seat for each in self._watchers) >= WATCHES_LIMIT:
            raise Refused(Code.OVERLOADED, f"{WATCHES_LIMIT} watches are open already")
        return owner

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:  # noqa: ARG002 - call.down is all of it
        """Send what waited."""
        watcher = self._watchers.get(call)
        while watcher is not None and watcher.pending and call.down and call.open:
            frame = watcher.pending.popleft()
            watcher.size -= len(frame.payload)
            self._wait_less(call, len(frame.payload))
            self._calls.streams.item_to_caller(call, frame)

    def cancelled(self, call: Call) -> None:
        """Somebody watches no more."""
        watcher = self._watchers.pop(call, None)
        if watcher is not None:
            self._wait_less(call, watcher.size)

    def permits(self, call: Call) -> bool:
        """Say whether the watcher may still look into that store."""
        try:
            self._owner_of(call)
        except Refused:
            return False
        return True

    def end(self, owner: tuple[str, str], why: str) -> None:
        """End all watches of a store: changes may have been missed."""
        for watcher in list(self._watchers.values()):
            if watcher.owner == owner:
                self._calls.fail(watcher.call, Code.UNAVAILABLE, why)

    def _wait_less(self, call: Call, size: int) -> None:
        self._waiting[call.seat.key] -= size
        if not self._waiting[call.seat.key]:
            del self._waiting[call.seat.key]

    def tell(self, owner: tuple[str, str], key: str, headers: dict[str, str], value: bytes) -> None:
        """Say that a key changed."""
        item = Frame(Kind.ITEM, 2, payload=value, headers={"key": key, **headers})
        for watcher in list(self._watchers.values()):
            if watcher.owner == owner and key.startswith(watcher.prefix):
                self._hand(watcher, item)

    def _hand(self, watcher: _Watcher, item: Frame) -> None:
        if watcher.call.down and not watcher.pending:
            self._calls.streams.item_to_caller(watcher.call, item)
            return
        plugin, size = watcher.call.seat.key, len(item.payload)
        if len(watcher.pending) < _PENDING and self._waiting[plugin] + size <= _PENDING_BYTES:
            watcher.pending.append(item)
            watcher.size += size
            self._waiting[plugin] += size
        else:
            refusal = Refused(Code.OVERLOADED, "too many changes wait for credit")
            self._refused(watcher.call, refusal)
            self._calls.fail(watcher.call, refusal.code, str(refusal))
