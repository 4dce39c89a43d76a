"""Garbage collection: dependents of deleted owners, and contents of deleted namespaces and definitions.

An index by owner uid makes each deletion cost its dependents, not a scan.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from crucible.errors import CrucibleError

from .definitions import CLEANUP
from .deletes import CRD_COLLECTION, NAMESPACES, DeleteOptions, delete
from .keys import Key
from .writes import FOREGROUND, ORPHAN, with_finalizers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .jsontypes import Object
    from .keys import Record
    from .resources import Catalog
    from .store import Commit, Store

_LOG = logging.getLogger(__name__)


class Collector:
    """Finishes deletions in the background, woken by commits."""

    def __init__(self, store: Store, catalog: Callable[[], Catalog], now: Callable[[], str]) -> None:
        self._store = store
        self._catalog = catalog
        self._now = now
        self._dependents: dict[str, set[Key]] = defaultdict(set)
        self._uids: dict[str, Key] = {}
        self._queue: dict[Key, None] = {}
        self._wake = asyncio.Event()

    def start(self, records: Iterable[Record]) -> None:
        """Index what is stored and queue what an earlier run left unfinished."""
        for record in records:
            self._add(record)
            if record.body["metadata"].get("ownerReferences") or record.body["metadata"].get(
                "deletionTimestamp"
            ):
                self._later(record.key)

    def see(self, commit: Commit) -> None:
        """Keep the indexes and queue what a commit gives to do."""
        if commit.before is not None:
            self._drop(commit.before)
        if commit.after is not None:
            self._add(commit.after)
            meta = commit.after.body["metadata"]
            if meta.get("deletionTimestamp") or (commit.before is None and meta.get("ownerReferences")):
                self._later(commit.after.key)
        elif commit.before is not None:
            self._gone(commit.before)

    def _gone(self, record: Record) -> None:
        meta = record.body["metadata"]
        for key in self._dependents.get(meta["uid"], ()):
            self._later(key)
        for owner in meta.get("ownerReferences") or ():
            if owner["uid"] in self._uids:
                self._later(self._uids[owner["uid"]])
        for holder in (
            Key(NAMESPACES, "", record.key.namespace),
            Key(CRD_COLLECTION, "", record.key.collection),
        ):
            found = self._store.head(holder)
            if found is not None and found.body["metadata"].get("deletionTimestamp"):
                self._later(holder)

    def _add(self, record: Record) -> None:
        meta = record.body["metadata"]
        self._uids[meta["uid"]] = record.key
        for owner in meta.get("ownerReferences") or ():
            self._dependents[owner["uid"]].add(record.key)

    def _drop(self, record: Record) -> None:
        meta = record.body["metadata"]
        self._uids.pop(meta["uid"], None)
        for owner in meta.get("ownerReferences") or ():
            self._dependents[owner["uid"]].discard(record.key)
            if not self._dependents[owner["uid"]]:
                del self._dependents[owner["uid"]]

    def _later(self, key: Key) -> None:
        self._queue[key] = None
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                key = next(iter(self._queue))
                del self._queue[key]
                try:
                    await self._finish(key)
                except CrucibleError as error:
                    _LOG.warning("cannot finish deleting %s: %s", "/".join(key), error)

    async def _finish(self, key: Key) -> None:
        record = self._store.head(key)
        if record is None:
            return
        meta = record.body["metadata"]
        if not meta.get("deletionTimestamp"):
            await self._check_owners(record)
        elif key.collection == NAMESPACES:
            await self._empty(record, [r for r in self._everything() if r.key.namespace == key.name])
        elif CLEANUP in (meta.get("finalizers") or ()):
            await self._empty(record, list(self._store.collection(key.name).values()))
        elif ORPHAN in (meta.get("finalizers") or ()):
            await self._orphan(record)
        elif FOREGROUND in (meta.get("finalizers") or ()):
            await self._delete_dependents(record)

    def _everything(self) -> list[Record]:
        collections = {resource.collection for resource in self._catalog().resources if resource.namespaced}
        return [record for name in collections for record in self._store.collection(name).values()]

    async def _delete(self, record: Record, propagation: str = "Background") -> None:
        resource = self._catalog().by_collection(record.key.collection)
        live = self._store.head(record.key)
        if resource is not None and live is not None:
            await delete(self._store, resource, live, DeleteOptions(propagation), self._now())

    async def _check_owners(self, record: Record) -> None:
        owners: list[Object] = record.body["metadata"].get("ownerReferences") or []
        alive = [owner for owner in owners if owner["uid"] in self._uids]
        if not owners or len(alive) == len(owners):
            return
        if not alive:
            await self._delete(record)
        else:
            await self._keep_owners(record, alive)

    async def _keep_owners(self, record: Record, owners: list[Object]) -> None:
        body = with_finalizers(record.body, list(record.body["metadata"].get("finalizers") or ()))
        body["metadata"]["ownerReferences"] = owners
        if not owners:
            del body["metadata"]["ownerReferences"]
        await self._store.put(record.key, body)

    async def _empty(self, holder: Record, contents: list[Record]) -> None:
        for record in contents:
            if not record.body["metadata"].get("deletionTimestamp"):
                await self._delete(record)
        if self._left(holder.key):
            return
        live = self._store.head(holder.key)
        if live is None:
            return
        finalizers = [name for name in live.body["metadata"].get("finalizers") or () if name != CLEANUP]
        if not finalizers:
            await self._store.remove(live)
        elif CLEANUP in live.body["metadata"]["finalizers"]:
            await self._store.put(live.key, with_finalizers(live.body, finalizers))

    def _left(self, holder: Key) -> bool:
        if holder.collection == NAMESPACES:
            return any(record.key.namespace == holder.name for record in self._everything())
        return bool(self._store.collection(holder.name))

    async def _orphan(self, owner: Record) -> None:
        uid = owner.body["metadata"]["uid"]
        for key in list(self._dependents.get(uid, ())):
            record = self._store.head(key)
            if record is not None:
                owners = record.body["metadata"].get("ownerReferences") or ()
                await self._keep_owners(record, [item for item in owners if item["uid"] != uid])
        await self._release(owner.key, ORPHAN)

    async def _delete_dependents(self, owner: Record) -> None:
        uid = owner.body["metadata"]["uid"]
        for key in list(self._dependents.get(uid, ())):
            record = self._store.head(key)
            if record is not None and not record.body["metadata"].get("deletionTimestamp"):
                await self._delete(record, "Foreground")
        if not any(self._blocks(key, uid) for key in self._dependents.get(uid, ())):
            await self._release(owner.key, FOREGROUND)

    def _blocks(self, key: Key, uid: str) -> bool:
        record = self._store.head(key)
        owners = record.body["metadata"].get("ownerReferences") or () if record else ()
        return any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)

    async def _release(self, key: Key, finalizer: str) -> None:
        live = self._store.head(key)
        if live is None:
            return
        left = [name for name in live.body["metadata"].get("finalizers") or () if name != finalizer]
        if left:
            await self._store.put(key, with_finalizers(live.body, left))
        else:
            await self._store.remove(live)
