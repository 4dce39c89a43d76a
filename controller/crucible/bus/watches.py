"""``$store.watch``: tells what changes in a store, as far as the watcher's credit goes."""

from __future__ import annotations

from collections import deque
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

    def __init__(self, calls: Calls, owner_of: Callable[[Call], Member]) -> None:
        self._calls = calls
        self._owner_of = owner_of
        self._watchers: dict[Call, _Watcher] = {}

    def begin(self, call: Call) -> None:
        """Tell what changes from now on."""
        if not call.stream:
            self._calls.fail(call, Code.MALFORMED, "a watch is a stream: set the flag STREAM")
            return
        try:
            owner = self._owner_of(call)
        except Refused as refusal:
            self._calls.fail(call, refusal.code, str(refusal), refusal.headers)
            return
        self._watchers[call] = _Watcher(call, owner.key, call.frame.headers.get("prefix", ""))

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:  # noqa: ARG002 - call.down is all of it
        """Send what waited."""
        watcher = self._watchers.get(call)
        while watcher is not None and watcher.pending and call.down and call.open:
            frame = watcher.pending.popleft()
            watcher.size -= len(frame.payload)
            self._calls.streams.item_to_caller(call, frame)

    def cancelled(self, call: Call) -> None:
        """Somebody watches no more."""
        self._watchers.pop(call, None)

    def tell(self, owner: tuple[str, str], key: str, headers: dict[str, str], value: bytes) -> None:
        """Say that a key changed."""
        item = Frame(Kind.ITEM, 2, payload=value, headers={"key": key, **headers})
        for watcher in list(self._watchers.values()):
            if watcher.owner == owner and key.startswith(watcher.prefix):
                self._hand(watcher, item)

    def _hand(self, watcher: _Watcher, item: Frame) -> None:
        if watcher.call.down and not watcher.pending:
            self._calls.streams.item_to_caller(watcher.call, item)
        elif len(watcher.pending) < _PENDING and watcher.size + len(item.payload) <= _PENDING_BYTES:
            watcher.pending.append(item)
            watcher.size += len(item.payload)
        else:
            self._calls.fail(watcher.call, Code.OVERLOADED, "too many changes wait for credit")
