"""The newest committed changes: what resuming watches replay and paged lists look back through."""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import TYPE_CHECKING

from .keys import Key, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .keys import Event


class History:
    """A bounded, ordered window of events.

    Everything after ``floor`` is complete: a watch may resume from any revision at or above it.
    """

    def __init__(self, floor: int, max_events: int, max_bytes: int) -> None:
        self.floor = floor
        self._events: list[Event] = []
        self._revisions: list[int] = []
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes

    def append(self, event: Event) -> None:
        """Add the newest event; the oldest eighth goes when the window is full."""
        self._events.append(event)
        self._revisions.append(event.revision)
        self._bytes += len(event.raw)
        if len(self._events) > self._max_events or self._bytes > self._max_bytes:
            self._drop(max(1, len(self._events) // 8))

    def _drop(self, count: int) -> None:
        self.floor = self._revisions[count - 1]
        self._bytes -= sum(len(event.raw) for event in self._events[:count])
        del self._events[:count], self._revisions[:count]

    def after(self, revision: int) -> list[Event] | None:
        """Events later than ``revision``, oldest first; None where history does not reach back that far."""
        if revision < self.floor:
            return None
        return self._events[bisect_right(self._revisions, revision) :]

    def undo(self, records: dict[Key, Record], collection: str, revision: int) -> dict[Key, Record] | None:
        """``records`` (the present of one collection) as they stood at ``revision``, or None if unknown."""
        later = self.after(revision)
        if later is None:
            return None
        past = dict(records)
        for event in reversed(later):
            if event.key.collection != collection:
                continue
            if event.previous is None:
                past.pop(event.key, None)
            else:
                past[event.key] = record_of(event.key, event.previous)
        return past


def record_of(key: Key, raw: bytes) -> Record:
    """A record from the bytes it was stored as."""
    body = json.loads(raw)
    return Record(key, int(body["metadata"]["resourceVersion"]), raw, body)


def restore_history(events: Iterable[Event], revision: int, max_events: int, max_bytes: int) -> History:
    """The history a database's log holds; an empty log starts a window at ``revision``."""
    listed = list(events)
    history = History(listed[0].revision - 1 if listed else revision, max_events, max_bytes)
    for event in listed:
        history.append(event)
    return history
