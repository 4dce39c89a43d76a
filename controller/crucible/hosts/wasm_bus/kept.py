"""The program's store, and durable events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bus import Found
from .wire import Failure

if TYPE_CHECKING:
    from .bus import Bus


def get(bus: Bus, key: str) -> int:
    """Read a value."""
    return bus.call("$store.get", b"", 0, {"key": key})


def put(bus: Bus, key: str, value: bytes, revision: int) -> int:
    """Store a value, in the place of a revision; a negative one: whichever is there."""
    return bus.call("$store.put", value, 0, _which(key, revision))


def delete(bus: Bus, key: str, revision: int) -> int:
    """Delete a value."""
    return bus.call("$store.delete", b"", 0, _which(key, revision))


def keys(bus: Bus, prefix: str, after: str) -> int:
    """List keys."""
    said = {name: text for name, text in (("prefix", prefix), ("after", after)) if text}
    return bus.call("$store.list", b"", 0, said)


def put_event(bus: Bus, subject: str, payload: bytes, ident: str) -> int:
    """Keep an event; without an identifier it is kept as often as it is put."""
    bus.set_header("subject", subject)
    if ident:
        bus.set_header("id", ident)
    return bus.call("$events.put", payload)


def take_event(bus: Bus, pattern: str, subscription: str, done: int, milliseconds: int) -> int:
    """Take the oldest durable event that fits; return 1, or 0 when none came in time."""
    headers = {"pattern": pattern, **({"subscription": subscription} if subscription else {})}
    if done > 0:
        headers["done"] = str(done)
    try:
        bus.call("$events.take", b"", milliseconds, headers)
    except Failure as failure:
        if failure.code != "DeadlineExceeded":
            raise
        return Found.NOTHING
    return 1


def _which(key: str, revision: int) -> dict[str, str]:
    return {"key": key} if revision < 0 else {"key": key, "revision": str(revision)}
