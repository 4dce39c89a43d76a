"""Create and update: the rules that turn a request and the live object into the next one."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import admission, status
from .fieldsets import compare
from .identity import check_identity, check_preconditions, metadata_of
from .jsontypes import clone
from .keys import Key
from .managed import Writer, after_update, read_entries, same_but_time, write_entries
from .metadata import generated_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.errors import Violation

    from .admission import Validation
    from .jsontypes import Json, Object
    from .keys import Record
    from .managed import Entry
    from .resources import Resource
    from .store import Store

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Call:
    """How a write is asked for.

    Attributes:
        manager: The field manager.
        now: The moment of the request, RFC 3339 in whole seconds.
        apply: True for server-side apply, whose body brings the managedFields it computed.
        duplicates: Fields the request's body says twice.
    """

    manager: str
    now: str
    validation: Validation = "Warn"
    dry_run: bool = False
    force: bool = False
    subresource: str = ""
    apply: bool = False
    duplicates: tuple[str, ...] = ()

    def writer(self, resource: Resource) -> Writer:
        """The owner that managedFields record for this write."""
        operation = "Apply" if self.apply else "Update"
        return Writer(self.manager, operation, resource.api_version, self.subresource)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write answers."""

    body: Object
    warnings: tuple[str, ...] = ()
    created: bool = False
    deleted: bool = False
    raw: bytes | None = None


class Writes:
    """Create and update on one store."""

    def __init__(
        self,
        store: Store,
        admit: Callable[[Object], tuple[Violation, ...]] | None,
        choices: Callable[..., list[str]],
    ) -> None:
        self._store = store
        self._admit = admit
        self._choices = choices

    async def create(self, resource: Resource, namespace: str, body: Object, call: Call) -> Outcome:
        """Store a new object.

        Raises:
            ApiError: The object may not be stored, or exists.
        """
        self._check_namespace(resource, namespace)
        meta = metadata_of(body, resource)
        check_identity(resource, namespace, meta.get("name"), body, meta)
        if meta.get("resourceVersion"):
            raise status.bad_request("resourceVersion should not be set on objects to be created")
        shaped = admission.shape(_new_body(resource, body, meta), resource, call.validation, call.duplicates)
        new = shaped.body
        self._name(new["metadata"], resource, namespace)
        if resource.custom and resource.has_status:
            new.pop("status", None)
        new = admission.finish(resource, new, None, call.now)
        admission.check(resource, new, None, self._admit)
        key = Key(resource.collection, namespace, new["metadata"]["name"])
        if self._store.head(key):
            raise status.already_exists(resource.plural, resource.group, key.name)
        self._stamp(new, resource, call, entries=meta.get("managedFields") if call.apply else None)
        if call.dry_run:
            return Outcome(new, shaped.warnings, created=True)
        record = await self._store.put(key, new)
        return Outcome(record.body, shaped.warnings, created=True, raw=record.raw)

    def _check_namespace(self, resource: Resource, namespace: str) -> None:
        if not resource.namespaced:
            return
        found = self._store.head(Key("namespaces", "", namespace))
        if found is None:
            raise status.not_found("namespaces", "", namespace)
        if found.body["metadata"].get("deletionTimestamp"):
            detail = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = status.forbidden(resource.plural, resource.group, "", detail)
            error.details = {"causes": [{"reason": "NamespaceTerminating", "message": detail}]}
            raise error

    def _name(self, meta: Object, resource: Resource, namespace: str) -> None:
        if resource.namespaced:
            meta["namespace"] = namespace
        else:
            meta.pop("namespace", None)
        prefix = meta.get("generateName")
        if prefix and not meta.get("name"):
            meta["name"] = generated_name(prefix, self._choices)

    def _stamp(self, body: Object, resource: Resource, call: Call, entries: Json) -> None:
        meta = body["metadata"]
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = call.now
        if resource.counts_generation:
            meta["generation"] = 1
        if entries is None:
            desired = {k: v for k, v in body.items() if k != "status" or not resource.has_status}
            diff = compare({"metadata": {}}, desired, resource.schema)
            entries = write_entries(after_update((), diff, call.writer(resource), call.now))
        meta["managedFields"] = entries

    async def update(
        self,
        resource: Resource,
        live: Record,
        body: Object,
        call: Call,
    ) -> Outcome:
        """Replace an object by ``body``, or only its status through that subresource.

        Nothing is written when nothing changes.

        Raises:
            ApiError: The object may not become so.
        """
        old = live.body
        meta = metadata_of(body, resource)
        check_identity(resource, live.key.namespace, live.key.name, body, meta)
        check_preconditions(resource, live, meta)
        asked = _status_alone(body) if call.subresource == "status" else body
        shaped = admission.shape({**asked, "metadata": meta}, resource, call.validation, call.duplicates)
        new = _merged(resource, old, shaped.body, call.subresource)
        new = admission.finish(resource, new, old, call.now)
        admission.check(resource, new, old, self._admit)
        self._generation(resource, old, new)
        managed = meta.get("managedFields", []) if call.apply else _managed(resource, old, new, call)
        new["metadata"]["managedFields"] = managed
        if _unchanged(old, new):
            return Outcome(old, shaped.warnings, raw=live.raw)
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            return await self._vanish(resource, live, new, call, shaped.warnings)
        if call.dry_run:
            return Outcome(new, shaped.warnings)
        record = await self._store.put(live.key, new)
        return Outcome(record.body, shaped.warnings, raw=record.raw)

    async def _vanish(
        self, resource: Resource, live: Record, new: Object, call: Call, warnings: tuple[str, ...]
    ) -> Outcome:
        """The last finalizer of an object that is being deleted is gone, and so is the object."""
        if resource.collection in {"namespaces", "customresourcedefinitions.apiextensions.k8s.io"}:
            record = live if call.dry_run else await self._store.put(live.key, new)
            return Outcome(record.body, warnings, raw=record.raw)
        if call.dry_run:
            return Outcome(new, warnings, deleted=True)
        record = await self._store.remove(live, new)
        return Outcome(record.body, warnings, deleted=True, raw=record.raw)

    def _generation(self, resource: Resource, old: Object, new: Object) -> None:
        generation = old["metadata"].get("generation")
        if generation is None:
            new["metadata"].pop("generation", None)
            return
        quiet = {"metadata", "status"} if resource.has_status else {"metadata"}
        changed = any(old.get(key) != new.get(key) for key in (old.keys() | new.keys()) - quiet)
        new["metadata"]["generation"] = generation + changed


def _status_alone(body: Object) -> Object:
    """What of a body the status endpoint looks at."""
    return {key: body[key] for key in ("apiVersion", "kind", "status") if key in body}


def _new_body(resource: Resource, body: Object, meta: Object) -> Object:
    kept = {key: value for key, value in meta.items() if key not in _SERVER_OWNED}
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": kept}
    return {**body, **head}


_MARKS = ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion")
_FIXED = ("uid", "creationTimestamp", "name", "namespace", "generateName", *_MARKS)
_SERVER_OWNED = frozenset({"uid", "selfLink", "creationTimestamp", "managedFields", *_MARKS})


def _merged(resource: Resource, old: Object, new: Object, subresource: str) -> Object:
    """The parts of ``new`` this endpoint may change, the rest from ``old``."""
    before, after = old["metadata"], new["metadata"]
    if subresource == "status":
        body: Object = dict(old)
        body.pop("status", None)
        if "status" in new:
            body["status"] = new["status"]
        body["metadata"] = dict(before)
        if "managedFields" in after:
            body["metadata"]["managedFields"] = before.get("managedFields", [])
        return body
    body = dict(new)
    body["apiVersion"], body["kind"] = resource.api_version, resource.kind
    meta = {key: value for key, value in after.items() if value is not None and key not in _FIXED}
    meta.update({key: before[key] for key in _FIXED if key in before})
    body["metadata"] = meta
    if resource.has_status:
        body.pop("status", None)
        if "status" in old:
            body["status"] = old["status"]
    return body


def _managed(resource: Resource, old: Object, new: Object, call: Call) -> list[Object]:
    """ManagedFields after an update; a client may rewrite them, and ``[{}]`` clears them."""
    given = new["metadata"].get("managedFields")
    if given == [{}]:
        return []
    entries = _rewritten(given) if given and given != old["metadata"].get("managedFields") else None
    if entries is None:
        entries = read_entries(old["metadata"])
    diff = compare(old, new, resource.schema)
    return write_entries(after_update(entries, diff, call.writer(resource), call.now))


def _rewritten(given: Json) -> tuple[Entry, ...] | None:
    """The entries a client wrote, each to be written out our way; None where they are malformed."""
    try:
        return tuple(replace(entry, wire=None) for entry in read_entries({"managedFields": given}))
    except ValueError:
        return None


def _unchanged(old: Object, new: Object) -> bool:
    before, after = old["metadata"], new["metadata"]
    if any(old.get(key) != new.get(key) for key in (old.keys() | new.keys()) - {"metadata"}):
        return False
    quiet = {"managedFields", "resourceVersion"}
    if any(before.get(key) != after.get(key) for key in (before.keys() | after.keys()) - quiet):
        return False
    return same_but_time(before.get("managedFields"), after.get("managedFields"))


def with_finalizers(body: Object, finalizers: list[str], **meta: Json) -> Object:
    """A copy of ``body`` whose metadata has these finalizers and the given fields."""
    changed: Object = clone(body)
    changed["metadata"].update(meta)
    changed["metadata"]["finalizers"] = finalizers
    if not finalizers:
        del changed["metadata"]["finalizers"]
    return changed
