"""What the core kinds ask beyond their schemas: defaults, conversions and rules of their own."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from . import status
from .definitions import accepted, check_definition, with_default_names

if TYPE_CHECKING:
    from .jsontypes import Json, Object
    from .resources import Resource
    from .status import Cause

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
MAX_DATA = 1024 * 1024


def complete(resource: Resource, body: Object, old: Object | None, now: str) -> Object:
    """``body`` with what the server adds for its kind. ``body`` may be changed."""
    match resource.kind if not resource.custom else "":
        case "Namespace":
            return _namespace(body, old)
        case "Secret":
            return _secret(body, old)
        case "CustomResourceDefinition":
            return _definition(body, old, now)
        case _:
            return body


def _namespace(body: Object, old: Object | None) -> Object:
    meta = body["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), NAMESPACE_LABEL: meta.get("name", "")}
    body["spec"] = (old or {}).get("spec") or {"finalizers": ["kubernetes"]}
    if not body.get("status") or old is None:
        body["status"] = {"phase": "Active"}
    return body


def _secret(body: Object, old: Object | None) -> Object:
    plain = body.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        body["data"] = {**(body.get("data") or {}), **encoded}
    if not body.get("type"):
        body["type"] = (old or {}).get("type") or "Opaque"
    return body


def _definition(body: Object, old: Object | None, now: str) -> Object:
    filled = with_default_names(body)
    if old is not None and "status" in old:
        filled["status"] = old["status"]
    if not check_definition(filled):
        filled["status"] = accepted(filled, now)
    return filled


def check_core(resource: Resource, body: Object, old: Object | None) -> list[Cause]:
    """The rules of a core kind that ``body`` breaks."""
    match resource.kind if not resource.custom else "":
        case "Secret" | "ConfigMap":
            return _check_data(resource.kind, body, old)
        case "Event":
            return _check_event(body)
        case "Lease":
            return _check_lease(body)
        case "CustomResourceDefinition":
            return check_definition(body)
        case _:
            return []


def _check_data(kind: str, body: Object, old: Object | None) -> list[Cause]:
    causes = []
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (body.get(field) or {}).items():
            size += len(value)
            if not _DATA_KEY.match(key) or key in {".", ".."} or len(key) > 253:  # noqa: PLR2004 - the API's limit
                detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                causes.append(status.invalid(f"{field}[{key}]", key, detail))
    if size > MAX_DATA * 4 // 3:
        causes.append(status.too_long("data", MAX_DATA))
    if old is None:
        return causes
    if old.get("immutable"):
        changed = [f for f in ("data", "binaryData") if (body.get(f) or {}) != (old.get(f) or {})]
        causes += [status.forbidden_field(f, "field is immutable when `immutable` is set") for f in changed]
        if not body.get("immutable"):
            detail = "field is immutable when `immutable` is set"
            causes.append(status.forbidden_field("immutable", detail))
    if kind == "Secret" and body.get("type") != old.get("type"):
        causes.append(status.invalid("type", body.get("type"), "field is immutable"))
    return causes


def _check_event(body: Object) -> list[Cause]:
    about: Json = body.get("involvedObject") or {}
    namespace = about.get("namespace") or "default"
    if body["metadata"].get("namespace") != namespace:
        detail = "does not match event.namespace"
        return [status.invalid("involvedObject.namespace", about.get("namespace", ""), detail)]
    return []


def _check_lease(body: Object) -> list[Cause]:
    spec = body.get("spec") or {}
    causes = []
    if (spec.get("leaseDurationSeconds") or 1) <= 0:
        detail = "must be greater than 0"
        causes.append(status.invalid("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], detail))
    if (spec.get("leaseTransitions") or 0) < 0:
        detail = "must be greater than or equal to 0"
        causes.append(status.invalid("spec.leaseTransitions", spec["leaseTransitions"], detail))
    return causes
