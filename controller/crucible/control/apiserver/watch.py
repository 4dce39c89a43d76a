"""Watches: who is told about which committed change, in bounded queues."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .keys import Event
    from .store import Commit


class Watcher:
    """One watch's queue. When it overflows it is closed, and the client lists again."""

    def __init__(self, collection: str, namespace: str, limit: int) -> None:
        self.collection = collection
        self.namespace = namespace
        self.closed = False
        self._limit = limit
        self._events: list[Event] = []
        self._wake = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Queue an event, or close the watch if it is too far behind."""
        if self.namespace and event.key.namespace != self.namespace:
            return
        if len(self._events) >= self._limit:
            self.close()
        else:
            self._events.append(event)
            self._wake.set()

    def close(self) -> None:
        """End the watch; what is queued is dropped, so the client sees no gap, only an end."""
        self.closed = True
        self._events.clear()
        self._wake.set()

    async def take(self, timeout: float) -> list[Event]:  # noqa: ASYNC109 - a bookmark is due then
        """All queued events, waiting up to ``timeout`` seconds for the first; empty when none came."""
        if not self._events and not self.closed:
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return []
        self._wake.clear()
        events, self._events = self._events, []
        return events


class Hub:
    """Every open watch, by collection."""

    def __init__(self, queue_limit: int) -> None:
        self._limit = queue_limit
        self._watchers: dict[str, set[Watcher]] = defaultdict(set)

    def open(self, collection: str, namespace: str) -> Watcher:
        """Start queueing the events of a collection, in one namespace or, with "", in all."""
        watcher = Watcher(collection, namespace, self._limit)
        self._watchers[collection].add(watcher)
        return watcher

    def close(self, watcher: Watcher) -> None:
        """Forget a watch."""
        self._watchers[watcher.collection].discard(watcher)

    def count(self) -> int:
        """How many watches are open."""
        return sum(map(len, self._watchers.values()))

    def publish(self, commit: Commit) -> None:
        """Tell the watches of the commit's collection."""
        for watcher in self._watchers.get(commit.event.key.collection, ()):
            watcher.offer(commit.event)

    def end(self, collection: str) -> None:
        """Close every watch of a collection that is no longer served."""
        for watcher in self._watchers.pop(collection, set()):
            watcher.close()

    def end_all(self) -> None:
        """Close every watch: the server stops."""
        for collection in list(self._watchers):
            self.end(collection)
