"""Delete, and what follows it: finalizers, dependents, and the contents of namespaces and definitions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from . import status
from .definitions import CLEANUP
from .writes import FOREGROUND, ORPHAN, Outcome, with_finalizers

if TYPE_CHECKING:
    from .jsontypes import Json, Object
    from .keys import Record
    from .resources import Resource
    from .store import Store

PERMANENT = frozenset({"default", "kube-system"})
NAMESPACES = "namespaces"
CRD_COLLECTION = "customresourcedefinitions.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How an object is to be deleted."""

    propagation: str = "Background"
    uid: str | None = None
    revision: str | None = None
    dry_run: bool = False
    grace: int | None = None


def read_options(body: Json, query_propagation: str | None, dry_run: str | None) -> DeleteOptions:
    """Delete options from a body (may be None) and the query.

    Raises:
        ApiError: 400 or 422, they are malformed.
    """
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise status.bad_request("DeleteOptions must be an object")
    preconditions = body.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise status.bad_request("DeleteOptions.preconditions must be an object")
    propagation = query_propagation or body.get("propagationPolicy")
    if propagation is None:
        propagation = "Orphan" if body.get("orphanDependents") else "Background"
    if propagation not in {"Background", "Foreground", "Orphan"}:
        cause = status.unsupported("propagationPolicy", propagation, ("Foreground", "Background", "Orphan"))
        raise status.invalid_object("DeleteOptions", "meta.k8s.io", "", [cause])
    asked = dry_run or body.get("dryRun")
    if asked not in (None, [], "", "All", ["All"]):
        cause = status.unsupported("dryRun", asked, ("All",))
        raise status.invalid_object("DeleteOptions", "meta.k8s.io", "", [cause])
    grace = body.get("gracePeriodSeconds")
    return DeleteOptions(
        propagation,
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
        bool(asked),
        grace if isinstance(grace, int) else None,
    )


async def delete(store: Store, resource: Resource, live: Record, options: DeleteOptions, now: str) -> Outcome:
    """Delete an object, or mark it where finalizers or contents hold it. A second delete changes nothing.

    Raises:
        ApiError: 403 for what is permanent, 409 where a precondition fails.
    """
    _check(resource, live, options)
    meta = live.body["metadata"]
    held = _finalizers(resource, meta, options)
    grace = _grace(live.body, options) if resource.graceful else 0
    if grace > 0:
        return await _mark(store, live, grace, now)
    marked = meta.get("deletionTimestamp")
    if not held and resource.collection != NAMESPACES:
        if options.dry_run:
            return Outcome(live.body, deleted=True)
        if resource.graceful and meta.get("deletionGracePeriodSeconds") != 0:
            live = await _hasten(store, live, now)
        gone = await store.remove(live)
        return Outcome(gone.body, deleted=True, raw=gone.raw)
    if marked and held == list(meta.get("finalizers") or ()):
        return Outcome(live.body, raw=live.raw)
    changes: Object = {}
    if not marked:
        changes = {"deletionTimestamp": now, "deletionGracePeriodSeconds": 0}
        if "generation" in meta:
            changes["generation"] = meta["generation"] + 1
    body = with_finalizers(live.body, held, **changes)
    if resource.collection == NAMESPACES:
        body["status"] = {**(body.get("status") or {}), "phase": "Terminating"}
    if options.dry_run:
        return Outcome(body)
    record = await store.put(live.key, body)
    return Outcome(record.body, raw=record.raw)


def _grace(body: Object, options: DeleteOptions) -> int:
    """Seconds that something of a graceful kind has to come to an end; none where nothing of it runs."""
    asked = options.grace
    if asked is None:
        asked = int(body["spec"].get("terminationGracePeriodSeconds") or 0)
    ended = (body.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    return 0 if ended or not body["spec"].get("nodeName") else asked


async def _mark(store: Store, live: Record, grace: int, now: str) -> Outcome:
    """Note by when something has to have come to an end; the first who asks decides."""
    if live.body["metadata"].get("deletionTimestamp"):
        return Outcome(live.body, raw=live.raw)
    by = (datetime.fromisoformat(now) + timedelta(seconds=grace)).strftime("%Y-%m-%dT%H:%M:%SZ")
    held = list(live.body["metadata"].get("finalizers") or ())
    marks: Object = {"deletionTimestamp": by, "deletionGracePeriodSeconds": grace}
    record = await store.put(live.key, with_finalizers(live.body, held, **marks))
    return Outcome(record.body, raw=record.raw)


async def _hasten(store: Store, live: Record, now: str) -> Record:
    """Note that no time is left: whoever watches hears of that before the object is gone."""
    meta = live.body["metadata"]
    marked = meta.get("deletionTimestamp")
    marks: Object = {"deletionTimestamp": marked or now, "deletionGracePeriodSeconds": 0}
    if "generation" in meta and not marked:
        marks["generation"] = meta["generation"] + 1
    return await store.put(live.key, with_finalizers(live.body, [], **marks))


def _check(resource: Resource, live: Record, options: DeleteOptions) -> None:
    name, meta = live.key.name, live.body["metadata"]
    if resource.collection == NAMESPACES and name in PERMANENT:
        raise status.forbidden("namespaces", "", name, "this namespace may not be deleted")
    if options.uid is not None and options.uid != meta["uid"]:
        detail = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {meta['uid']}"
        raise status.conflict(resource.plural, resource.group, name, detail)
    if options.revision is not None and options.revision != meta["resourceVersion"]:
        detail = (
            f"Precondition failed: ResourceVersion in precondition: {options.revision}, "
            f"ResourceVersion in object meta: {meta['resourceVersion']}"
        )
        raise status.conflict(resource.plural, resource.group, name, detail)


def _finalizers(resource: Resource, meta: Object, options: DeleteOptions) -> list[str]:
    held = [name for name in meta.get("finalizers") or () if name not in {FOREGROUND, ORPHAN}]
    extra = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN], "Background": []}[options.propagation]
    if meta.get("deletionTimestamp"):
        held = list(meta.get("finalizers") or ())
        extra = []
    if resource.collection == CRD_COLLECTION:
        extra = [CLEANUP, *extra]
    return list(dict.fromkeys([*held, *extra]))
