"""All objects in memory, and the one path by which they change.

A write is computed against ``head``, which includes writes still on their way to disk, so writes to one
object never lose each other. Readers, watchers and answers see a write only once it is durable. Writes that
arrive while a transaction runs share the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.errors import CrucibleError, Unavailable

from .history import record_of, restore_history
from .jsontypes import encode
from .keys import Event, Key, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .database import Database
    from .jsontypes import Object

MAX_BATCH = 256
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Commit:
    """One change, now durable: the event, and the records before and after it."""

    event: Event
    before: Record | None
    after: Record | None


@dataclass(frozen=True, slots=True)
class _Write:
    event: Event
    before: Record | None
    after: Record | None
    done: asyncio.Future[Record]
    answer: Record


class Store:
    """The objects of one database. Use from one event loop; close it before the loop ends."""

    def __init__(self, database: Database, max_events: int, max_bytes: int) -> None:
        contents = database.load()
        self._database = database
        self._visible: dict[str, dict[Key, Record]] = defaultdict(dict)
        owned: dict[bytes, Object] = {}
        for key, _, raw in contents.objects:
            record = record_of(key, raw)
            _share_owned_fields(record.body, owned)
            self._visible[key.collection][key] = record
        self._pending: dict[Key, Record | None] = {}
        self._queue: list[_Write] = []
        self._wake = asyncio.Event()
        self._allocated = contents.revision
        self.revision = contents.revision
        self.history = restore_history(contents.log, contents.revision, max_events, max_bytes)
        self._listeners: list[Callable[[Commit], None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control-db")
        self._closing = False
        self._writer = asyncio.create_task(self._write_batches())

    def listen(self, listener: Callable[[Commit], None]) -> None:
        """Call ``listener`` with each commit, in order, before its write is answered. It must not raise."""
        self._listeners.append(listener)

    def get(self, key: Key) -> Record | None:
        """The durable version of one object."""
        return self._visible[key.collection].get(key)

    def head(self, key: Key) -> Record | None:
        """The newest version of one object, durable or on its way; what a write must build on."""
        if key in self._pending:
            return self._pending[key]
        return self._visible[key.collection].get(key)

    def collection(self, collection: str) -> dict[Key, Record]:
        """The durable objects of one collection, unordered. Read it; do not change it."""
        return self._visible[collection]

    def list(self, collection: str, namespace: str = "") -> list[Record]:
        """Durable objects of a collection, in one namespace or all, ordered by namespace and name."""
        records = self._visible[collection]
        if namespace:
            return [records[key] for key in sorted(records) if key.namespace == namespace]
        return [records[key] for key in sorted(records)]

    def put(self, key: Key, body: Object) -> asyncio.Future[Record]:
        """Write ``body``, which the store now owns; the future gives the durable record.

        The body's resourceVersion is set here.
        """
        before = self.head(key)
        self._allocated += 1
        revision = self._allocated
        body["metadata"]["resourceVersion"] = str(revision)
        raw = encode(body)
        after = Record(key, revision, raw, body)
        event = Event("MODIFIED" if before else "ADDED", revision, key, raw, before.raw if before else None)
        return self._enqueue(event, before, after)

    def remove(self, before: Record, body: Object | None = None) -> asyncio.Future[Record]:
        """Delete an object; the future gives its last version, carrying the revision of the deletion.

        ``body``, where given, is that last version's content instead of ``before``'s.
        """
        self._allocated += 1
        last = dict(body or before.body)
        last["metadata"] = {**last["metadata"], "resourceVersion": str(self._allocated)}
        raw = encode(last)
        gone = Record(before.key, self._allocated, raw, last)
        event = Event("DELETED", self._allocated, before.key, raw, before.raw)
        return self._enqueue(event, before, None, gone)

    def _enqueue(
        self, event: Event, before: Record | None, after: Record | None, gone: Record | None = None
    ) -> asyncio.Future[Record]:
        if self._closing:
            raise Unavailable("the server is shutting down")
        done: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        answer = after or gone
        if answer is None:
            raise ValueError("a write leaves a record or its last version")
        self._pending[event.key] = after
        self._queue.append(_Write(event, before, after, done, answer))
        self._wake.set()
        return done

    async def _write_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._give_back()
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                events = [write.event for write in batch]
                try:
                    await loop.run_in_executor(self._thread, self._database.write, events, self.history.floor)
                except CrucibleError as error:
                    self._fail(batch, error)
                else:
                    for write in batch:
                        self._publish(write)
            if self._closing:
                return

    async def _give_back(self) -> None:
        """Shrink the file while nothing waits to be written; a write waits for one small step at most."""
        loop = asyncio.get_running_loop()
        try:
            while not (self._queue or self._closing):
                if not await loop.run_in_executor(self._thread, self._database.give_back):
                    return
        except CrucibleError as error:
            _LOG.warning("%s", error)

    def _publish(self, write: _Write) -> None:
        key = write.event.key
        if write.after is None:
            self._visible[key.collection].pop(key, None)
        else:
            self._visible[key.collection][key] = write.after
        if key in self._pending and self._pending[key] is write.after:
            del self._pending[key]
        self.revision = write.event.revision
        self.history.append(write.event)
        commit = Commit(write.event, write.before, write.after)
        for listener in self._listeners:
            listener(commit)
        if not write.done.done():
            write.done.set_result(write.answer)

    def _fail(self, batch: Sequence[_Write], error: CrucibleError) -> None:
        """Refuse the batch and all behind it: later writes may build on what was not written."""
        refused, self._queue = [*batch, *self._queue], []
        self._pending.clear()
        for write in refused:
            if not write.done.done():
                write.done.set_exception(error)
                write.done.exception()  # the caller may have gone away

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the database to ``target`` while the store is in use."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.copy_to, target)

    async def close(self) -> None:
        """Finish queued writes and close the file."""
        self._closing = True
        self._wake.set()
        with suppress(asyncio.CancelledError):
            await self._writer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()


def _share_owned_fields(body: Object, known: dict[bytes, Object]) -> None:
    """Let objects of one shape, written by the same managers, hold their largest part together."""
    for entry in body["metadata"].get("managedFields") or ():
        fields = entry.get("fieldsV1")
        if fields:
            entry["fieldsV1"] = known.setdefault(encode(fields), fields)
