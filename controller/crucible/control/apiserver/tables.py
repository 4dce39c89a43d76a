"""Tables: how ``kubectl get`` shows objects, with the columns the server chooses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from .jsontypes import dig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .jsontypes import Json, Object
    from .resources import Column, Resource

Include = Literal["None", "Metadata", "Object"]


def table(
    bodies: Iterable[Object], resource: Resource, meta: Object, include: Include, now: datetime
) -> Object:
    """A meta.k8s.io/v1 Table of objects; ``meta`` is the list's or the object's own metadata."""
    kept = {
        name: meta[name] for name in ("resourceVersion", "continue", "remainingItemCount") if name in meta
    }
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": kept,
        "columnDefinitions": column_definitions(resource),
        "rows": [_row(body, resource, include, now) for body in bodies],
    }


def column_definitions(resource: Resource) -> list[Object]:
    """The columns of a resource, the name first."""
    name = _definition("Name", "string", "name", "Name must be unique within a namespace.", 0)
    if resource.custom:
        return [name, *(_of_column(column) for column in resource.columns)]
    columns = _CORE.get(resource.kind, _AGE)
    return [name, *(_definition(title, kind, "", title, wide) for title, kind, wide in columns)]


def _definition(name: str, kind: str, form: str, description: str, priority: int) -> Object:
    return {"name": name, "type": kind, "format": form, "description": description, "priority": priority}


def _of_column(column: Column) -> Object:
    return _definition(column.name, column.type, column.format, column.description, column.priority)


_AGE = (("Age", "date", 0),)
_CORE = {
    "Namespace": (("Status", "string", 0), *_AGE),
    "Secret": (("Type", "string", 0), ("Data", "string", 0), *_AGE),
    "ConfigMap": (("Data", "string", 0), *_AGE),
    "Lease": (("Holder", "string", 0), *_AGE),
    "CustomResourceDefinition": (("Created At", "date", 0),),
    "Pod": (("Ready", "string", 0), ("Status", "string", 0), ("Restarts", "string", 0), *_AGE,
            ("IP", "string", 1), ("Node", "string", 1)),
    "Event": (("Last Seen", "string", 0), ("Type", "string", 0), ("Reason", "string", 0),
              ("Object", "string", 0),
              ("Source", "string", 1), ("Message", "string", 0), ("Count", "integer", 1)),
}  # fmt: skip


def _row(body: Object, resource: Resource, include: Include, now: datetime) -> Object:
    cells = _custom_cells(body, resource, now) if resource.custom else _core_cells(body, resource.kind, now)
    row: Object = {"cells": [body["metadata"].get("name", ""), *cells]}
    match include:
        case "Object":
            row["object"] = body
        case "Metadata":
            row["object"] = partial(body)
        case "None":
            row["object"] = None
    return row


def partial(body: Object) -> Object:
    """The object's metadata alone, as PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": body["metadata"],
    }


def _custom_cells(body: Object, resource: Resource, now: datetime) -> list[Json]:
    return [_cell(column.path.first(body), column.type, now) for column in resource.columns]


def _cell(value: Json, kind: str, now: datetime) -> Json:
    match kind:
        case "date":
            return age(value, now)
        case "integer" | "number" if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        case "string" if value is not None and not isinstance(value, str):
            return str(value).lower() if isinstance(value, bool) else str(value)
        case _:
            return value


def _core_cells(body: Object, kind: str, now: datetime) -> list[Json]:
    created = age(body["metadata"].get("creationTimestamp"), now)
    match kind:
        case "Namespace":
            return [dig(body, "status", "phase"), created]
        case "Secret":
            return [body.get("type", ""), len(body.get("data") or {}), created]
        case "ConfigMap":
            return [len(body.get("data") or {}) + len(body.get("binaryData") or {}), created]
        case "Lease":
            return [dig(body, "spec", "holderIdentity") or "", created]
        case "CustomResourceDefinition":
            return [body["metadata"].get("creationTimestamp")]
        case "Pod":
            return _pod_cells(body, created)
        case "Event":
            return _event_cells(body, now)
        case _:
            return [created]


def _pod_cells(body: Object, created: str) -> list[Json]:
    statuses = dig(body, "status", "containerStatuses") or []
    ready = sum(bool(item.get("ready")) for item in statuses)
    total = len(dig(body, "spec", "containers") or statuses)
    restarts = sum(int(item.get("restartCount", 0)) for item in statuses)
    waiting = (dig(item, "state", "waiting", "reason") for item in statuses)
    phase = next((reason for reason in waiting if reason), dig(body, "status", "phase") or "Unknown")
    address, node = dig(body, "status", "podIP"), dig(body, "spec", "nodeName")
    return [f"{ready}/{total}", phase, str(restarts), created, address or "<none>", node or "<none>"]


def _event_cells(body: Object, now: datetime) -> list[Json]:
    about = body.get("involvedObject") or {}
    seen = body.get("lastTimestamp") or body.get("eventTime") or body.get("firstTimestamp")
    about_text = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    source = dig(body, "source", "component") or body.get("reportingComponent") or ""
    message = str(body.get("message", "")).strip()
    count = body.get("count", 1)
    return [age(seen, now), body.get("type"), body.get("reason"), about_text, source, message, count]


def age(moment: Json, now: datetime) -> str:
    """How long ago an RFC 3339 moment was, in the two largest units that matter: ``3m20s``."""
    if not isinstance(moment, str):
        return "<unknown>"
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return "<invalid>"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return human(int((now - then).total_seconds()))


def human(seconds: int) -> str:
    """A span as kubectl writes it: precise when short, coarse when long."""
    minute, hour, day, year = 60, 3600, 86400, 365 * 86400
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    if seconds < 2 * minute:
        return f"{seconds}s"
    if seconds < 10 * minute:
        return f"{seconds // minute}m" + (f"{seconds % minute}s" if seconds % minute else "")
    if seconds < 3 * hour:
        return f"{seconds // minute}m"
    if seconds < 8 * hour:
        return _two(seconds, hour, minute, "h", "m")
    if seconds < 2 * day:
        return f"{seconds // hour}h"
    if seconds < 8 * day:
        return _two(seconds, day, hour, "d", "h")
    if seconds < 2 * year:
        return f"{seconds // day}d"
    if seconds < 8 * year:
        return _two(seconds, year, day, "y", "d")
    return f"{seconds // year}y"


def _two(seconds: int, large: int, small: int, large_name: str, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large}{large_name}" + (f"{rest}{small_name}" if rest else "")
