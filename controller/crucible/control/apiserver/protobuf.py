"""Protobuf request bodies of the kinds that typed clients send so.

The wire format is read by tables of field numbers; a number no table knows refuses the request, so that
nothing a client said is lost.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from .status import bad_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .jsontypes import Json, Object

MAGIC: Final = b"k8s\x00"
MAX_NESTING: Final = 32

Field = tuple[str, str]
"""Name and type: ``text``, ``raw``, ``int``, ``bool``, ``time``, ``json``, ``texts`` (map), ``blobs`` (map
of bytes), or a message's name; ``*`` after it means repeated."""

MESSAGES: Final[dict[str, dict[int, Field]]] = {
    "Unknown": {1: ("type", "TypeMeta"), 2: ("raw", "raw"), 3: ("encoding", "text"), 4: ("media", "text")},
    "TypeMeta": {1: ("apiVersion", "text"), 2: ("kind", "text")},
    "ObjectMeta": {
        1: ("name", "text"), 2: ("generateName", "text"), 3: ("namespace", "text"), 4: ("selfLink", "text"),
        5: ("uid", "text"), 6: ("resourceVersion", "text"), 7: ("generation", "int"),
        8: ("creationTimestamp", "time"), 9: ("deletionTimestamp", "time"),
        10: ("deletionGracePeriodSeconds", "int"), 11: ("labels", "texts"), 12: ("annotations", "texts"),
        13: ("ownerReferences", "OwnerReference*"), 14: ("finalizers", "text*"),
        17: ("managedFields", "ManagedFieldsEntry*"),
    },
    "OwnerReference": {
        1: ("kind", "text"), 3: ("name", "text"), 4: ("uid", "text"), 5: ("apiVersion", "text"),
        6: ("controller", "bool"), 7: ("blockOwnerDeletion", "bool"),
    },
    "ManagedFieldsEntry": {
        1: ("manager", "text"), 2: ("operation", "text"), 3: ("apiVersion", "text"), 4: ("time", "time"),
        6: ("fieldsType", "text"), 7: ("fieldsV1", "FieldsV1"), 8: ("subresource", "text"),
    },
    "FieldsV1": {1: ("Raw", "json")},
    "Namespace": {
        1: ("metadata", "ObjectMeta"), 2: ("spec", "NamespaceSpec"), 3: ("status", "NamespaceStatus"),
    },
    "NamespaceSpec": {1: ("finalizers", "text*")},
    "NamespaceStatus": {1: ("phase", "text")},
    "Secret": {
        1: ("metadata", "ObjectMeta"), 2: ("data", "blobs"), 3: ("type", "text"), 4: ("stringData", "texts"),
        5: ("immutable", "bool"),
    },
    "ConfigMap": {
        1: ("metadata", "ObjectMeta"), 2: ("data", "texts"), 3: ("binaryData", "blobs"),
        4: ("immutable", "bool"),
    },
    "Lease": {1: ("metadata", "ObjectMeta"), 2: ("spec", "LeaseSpec")},
    "LeaseSpec": {
        1: ("holderIdentity", "text"), 2: ("leaseDurationSeconds", "int"), 3: ("acquireTime", "microtime"),
        4: ("renewTime", "microtime"), 5: ("leaseTransitions", "int"), 6: ("strategy", "text"),
        7: ("preferredHolder", "text"),
    },
    "Event": {
        1: ("metadata", "ObjectMeta"), 2: ("involvedObject", "ObjectReference"), 3: ("reason", "text"),
        4: ("message", "text"), 5: ("source", "EventSource"), 6: ("firstTimestamp", "time"),
        7: ("lastTimestamp", "time"), 8: ("count", "int"), 9: ("type", "text"),
        10: ("eventTime", "microtime"),
        11: ("series", "EventSeries"), 12: ("action", "text"), 13: ("related", "ObjectReference"),
        14: ("reportingComponent", "text"), 15: ("reportingInstance", "text"),
    },
    "EventSource": {1: ("component", "text"), 2: ("host", "text")},
    "EventSeries": {1: ("count", "int"), 2: ("lastObservedTime", "microtime")},
    "ObjectReference": {
        1: ("kind", "text"), 2: ("namespace", "text"), 3: ("name", "text"), 4: ("uid", "text"),
        5: ("apiVersion", "text"), 6: ("resourceVersion", "text"), 7: ("fieldPath", "text"),
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "int"), 2: ("preconditions", "Preconditions"),
        3: ("orphanDependents", "bool"),
        4: ("propagationPolicy", "text"), 5: ("dryRun", "text*"),
        6: ("ignoreStoreReadErrorWithClusterBreakingPotential", "bool"),
    },
    "Preconditions": {1: ("uid", "text"), 2: ("resourceVersion", "text")},
    "SelfSubjectAccessReview": {
        1: ("metadata", "ObjectMeta"), 2: ("spec", "AccessSpec"), 3: ("status", "AccessStatus"),
    },
    "AccessSpec": {
        1: ("resourceAttributes", "ResourceAttributes"), 2: ("nonResourceAttributes", "PathAttributes"),
    },
    "AccessStatus": {
        1: ("allowed", "bool"), 2: ("reason", "text"), 3: ("evaluationError", "text"), 4: ("denied", "bool"),
    },
    "ResourceAttributes": {
        1: ("namespace", "text"), 2: ("verb", "text"), 3: ("group", "text"), 4: ("version", "text"),
        5: ("resource", "text"), 6: ("subresource", "text"), 7: ("name", "text"),
    },
    "PathAttributes": {1: ("path", "text"), 2: ("verb", "text")},
    "SelfSubjectRulesReview": {
        1: ("metadata", "ObjectMeta"), 2: ("spec", "RulesSpec"), 3: ("status", "RulesStatus"),
    },
    "RulesSpec": {1: ("namespace", "text")},
    "RulesStatus": {3: ("incomplete", "bool"), 4: ("evaluationError", "text")},
    "SelfSubjectReview": {1: ("metadata", "ObjectMeta"), 2: ("status", "ReviewStatus")},
    "ReviewStatus": {1: ("userInfo", "UserInfo")},
    "UserInfo": {1: ("username", "text"), 2: ("uid", "text"), 3: ("groups", "text*")},
}  # fmt: skip

KINDS: Final = frozenset(
    {"Namespace", "Secret", "ConfigMap", "Lease", "Event", "DeleteOptions"}
    | {"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SelfSubjectReview"}
)
_KEEPS_ZERO: Final = frozenset(
    {
        "gracePeriodSeconds",
        "deletionGracePeriodSeconds",
        "orphanDependents",
        "controller",
        "blockOwnerDeletion",
    }
    | {"immutable", "uid", "resourceVersion", "leaseDurationSeconds", "leaseTransitions"}
)


def decode_protobuf(raw: bytes) -> Object:
    """The object in an enveloped protobuf body, as its JSON would decode.

    Raises:
        ApiError: 400, it is malformed, of a kind that is not taken as protobuf, or has an unknown field.
    """
    if not raw.startswith(MAGIC):
        raise bad_request("the body is not in the Kubernetes protobuf format")
    try:
        envelope = _message("Unknown", raw[len(MAGIC) :], 0)
        named = envelope.get("type") or {}
        kind = str(named.get("kind", ""))
        if kind not in KINDS:
            raise bad_request(f"{kind or 'objects'} cannot be sent as protobuf to this server; send JSON")
        body = _message(kind, envelope.get("raw", b""), 0)
    except (IndexError, ValueError, OverflowError) as error:
        raise bad_request(f"malformed protobuf: {error}") from error
    return {"apiVersion": str(named.get("apiVersion", "")), "kind": kind, **body}


def _message(name: str, raw: bytes, depth: int) -> Object:
    if depth > MAX_NESTING:
        raise ValueError("nested too deeply")
    table = MESSAGES[name]
    found: Object = {}
    for number, wire, value in _fields(raw):
        if number not in table:
            raise bad_request(f"unknown protobuf field {number} in {name}; send JSON")
        field, kind = table[number]
        _store(found, field, kind, _typed(kind, wire, value, depth))
    return {key: value for key, value in found.items() if value not in ("", 0) or key in _KEEPS_ZERO}


def _store(found: Object, field: str, kind: str, value: Json) -> None:
    if kind.endswith("*"):
        found.setdefault(field, []).append(value)
    elif kind in {"texts", "blobs"}:
        found.setdefault(field, {}).update(value)
    elif kind == "json" or value is not None:
        found[field] = value


def _typed(kind: str, wire: int, value: int | bytes, depth: int) -> Json:
    bare = kind.removesuffix("*")
    if bare in {"int", "bool"}:
        if not isinstance(value, int):
            raise ValueError(f"wire type {wire} for a number")
        signed = value - 2**64 if value >= 2**63 else value
        return bool(value) if bare == "bool" else signed
    if not isinstance(value, bytes):
        raise ValueError(f"wire type {wire} for {bare}")  # noqa: TRY004 - the body is wrong, not a type
    return _typed_bytes(bare, value, depth)


def _typed_bytes(bare: str, value: bytes, depth: int) -> Json:
    match bare:
        case "text":
            return value.decode()
        case "raw" | "json":
            return value
        case "time" | "microtime":
            return _time(value, micro=bare == "microtime")
        case "texts":
            return _pair(value, binary=False)
        case "blobs":
            return _pair(value, binary=True)
        case "FieldsV1":
            return _fields_v1(value)
        case _:
            return _message(bare, value, depth + 1)


def _fields_v1(raw: bytes) -> Json:
    text = next((value for number, _, value in _fields(raw) if number == 1), b"{}")
    return json.loads(text) if isinstance(text, bytes) else {}


def _time(raw: bytes, *, micro: bool) -> str | None:
    seconds, nanos = 0, 0
    for number, _, value in _fields(raw):
        if isinstance(value, int):
            seconds, nanos = (value, nanos) if number == 1 else (seconds, value)
    if not seconds:
        return None
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _pair(raw: bytes, *, binary: bool) -> Object:
    parts = {number: value for number, _, value in _fields(raw) if isinstance(value, bytes)}
    value = parts.get(2, b"")
    shown = base64.b64encode(value).decode() if binary else value.decode()
    return {parts.get(1, b"").decode(): shown}


def _fields(raw: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire = tag & 7
        if wire == 0:
            number, at = _varint(raw, at)
            yield tag >> 3, wire, number
        elif wire == 2:  # noqa: PLR2004 - length-delimited, in the format's own numbering
            length, at = _varint(raw, at)
            if at + length > len(raw):
                raise ValueError("cut short")
            yield tag >> 3, wire, raw[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {wire}")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value & (2**64 - 1), at
        shift += 7
        if shift > 63:  # noqa: PLR2004 - 64 bits
            raise ValueError("number too long")
