"""Streams and watches: items both ways, as far as the other side wants them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from . import wire
from .flow import Served
from .wire import Failure, Frame, failure_of

if TYPE_CHECKING:
    from .bus import Bus
    from .flow import Flow

NOTHING, ITEM, OVER = range(3)
"""What ``take`` found."""
_MOMENT: Final = 0.001


def begin(bus: Bus, name: str, payload: bytes, milliseconds: int) -> int:
    """Call a method that answers with many items; return the stream's number."""
    return bus.begin(name, payload, max(milliseconds, 0), flags=wire.STREAM).id


def watch(bus: Bus, prefix: str) -> int:
    """Let ``next`` bring what changes in the store from now on; return the watch's number."""
    headers = {"prefix": prefix} if prefix else {}
    flow = bus.begin("$store.watch", b"", 0, flags=wire.STREAM, headers=headers, watched=prefix)
    bus.grant(flow)
    return flow.id


def take(bus: Bus, ident: int, milliseconds: int) -> int:
    """Take a stream's next item, and wait for it as long as is said."""
    flow = _stream(bus, ident)
    until = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
    looked = False
    while not flow.items:
        if flow.over:
            return _over(bus, flow)
        bus.grant(flow)
        left = None if until is None else until - time.monotonic()
        if looked and left is not None and left <= 0:
            return NOTHING
        _wait(bus, ident, flow, left)
        looked = True
    bus.got = flow.item()
    return ITEM


def give(bus: Bus, ident: int, payload: bytes, flags: int = 0) -> int:
    """Send an item once the other side wants one; to a caller that takes none, keep it for the answer."""
    flow = _stream(bus, ident)
    if isinstance(flow, Served) and not flow.streams:
        flow.collect(payload)
        return 0
    if len(payload) > wire.PAYLOAD_LIMIT:
        raise Failure("TooLarge", "an item has 1048576 bytes at most")
    while not flow.credit:
        if flow.end is not None:
            bus.drop(flow)
            raise _why(flow)
        _wait(bus, ident, flow, None)
    bus.tell(flow.gives(payload, flags))
    return 0


def finish(bus: Bus, ident: int) -> int:
    """Say that no more items go to whom is called."""
    if ident == 0:
        raise Failure("Malformed", "who is called ends a stream with its answer")
    return give(bus, ident, b"", wire.LAST)


def close(bus: Bus, ident: int) -> int:
    """End a stream of ours, or a watch."""
    if ident == 0:
        raise Failure("Malformed", "who is called ends a stream with its answer")
    bus.drop(bus.flow(ident))
    return 0


def _stream(bus: Bus, ident: int) -> Flow:
    flow = bus.flow(ident)
    if flow.watched is not None:
        raise Failure("Malformed", "that is a watch: bus_next brings its changes")
    return flow


def _wait(bus: Bus, ident: int, flow: Flow, seconds: float | None) -> None:
    """Wait for anything, within the time of the stream."""
    left = flow.left
    if left is not None and left <= 0 and isinstance(flow, Served):
        raise Failure("DeadlineExceeded", "nothing came in time")
    known = [one for one in (left, seconds) if one is not None]
    bus.look(max(min(known), _MOMENT) if known else None)
    bus.flow(ident)  # it may be unwanted now


def _over(bus: Bus, flow: Flow) -> int:
    if flow.end is None:
        bus.got = Frame(wire.ANSWER)
        return OVER
    bus.drop(flow)
    if flow.end.kind == wire.ERROR:
        raise _why(flow)
    bus.got = flow.end
    return OVER


def _why(flow: Flow) -> Failure:
    end = flow.end
    if end is not None and end.kind == wire.ERROR:
        return failure_of(end)
    return Failure("Cancelled", "the call has ended")
