"""Object metadata: its schema, its rules, and the names that are generated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from . import status

if TYPE_CHECKING:
    from .jsontypes import Json, Object
    from .status import Cause
    from .structural import Schema

NAME_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
NAME_SUFFIX: Final = 5
MAX_ANNOTATIONS: Final = 256 * 1024

_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_TIME: Schema = {"type": "string", "format": "date-time", "nullable": True}
_OWNER: Schema = {
    "type": "object",
    "x-kubernetes-map-type": "atomic",
    "properties": {
        "apiVersion": _STRING,
        "kind": _STRING,
        "name": _STRING,
        "uid": _STRING,
        "controller": {"type": "boolean"},
        "blockOwnerDeletion": {"type": "boolean"},
    },
}
META_SCHEMA: Final[Schema] = {
    "type": "object",
    "description": "Standard object's metadata.",
    "properties": {
        "name": {**_STRING, "description": "Name must be unique within a namespace."},
        "generateName": {**_STRING, "description": "Prefix of a name the server completes."},
        "namespace": {**_STRING, "description": "Namespace the object lives in."},
        "uid": {**_STRING, "description": "Unique in time and space; set by the server."},
        "resourceVersion": {**_STRING, "description": "Changes with every write; compare for equality only."},
        "selfLink": _STRING,
        "generation": {"type": "integer", "description": "Counts changes of the desired state."},
        "creationTimestamp": _TIME,
        "deletionTimestamp": _TIME,
        "deletionGracePeriodSeconds": {"type": "integer"},
        "labels": {**_STRINGS, "description": "Key and value pairs that selectors match."},
        "annotations": {**_STRINGS, "description": "Key and value pairs that tools keep."},
        "finalizers": {
            "type": "array",
            "items": _STRING,
            "x-kubernetes-list-type": "set",
            "description": "Must be empty before the object is removed.",
        },
        "ownerReferences": {
            "type": "array",
            "items": _OWNER,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "description": "Objects whose deletion deletes this one.",
        },
        "managedFields": {
            "type": "array",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "description": "Who manages which field.",
        },
    },
}

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PART = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN + r"\Z")
_LABEL_RE = re.compile(_LABEL + r"\Z")
_PART_RE = re.compile(_PART + r"\Z")

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', "
    f"regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', "
    f"regex used for validation is '{_LABEL}')"
)
_PART_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
    f"regex used for validation is '{_PART}')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
    f"regex used for validation is '({_PART})?')"
)


def name_problem(name: str, *, label: bool = False) -> str | None:
    """Why ``name`` cannot name an object (a DNS label where ``label``), or None if it can."""
    limit = 63 if label else 253
    if len(name) > limit:
        return f"must be no more than {limit} bytes"
    if label:
        return None if _LABEL_RE.match(name) else _LABEL_TEXT
    return None if _SUBDOMAIN_RE.match(name) else _SUBDOMAIN_TEXT


def label_key_problem(key: str) -> str | None:
    """Why ``key`` cannot be a label key, or None if it can."""
    prefix, slash, name = key.rpartition("/")
    if slash and name_problem(prefix):
        return f"prefix part {name_problem(prefix)}"
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:  # noqa: PLR2004 - the API's limit, said in the message
        return "name part must be no more than 63 bytes"
    return None if _PART_RE.match(name) else _PART_TEXT


def label_value_problem(value: str) -> str | None:
    """Why ``value`` cannot be a label value, or None if it can."""
    if len(value) > 63:  # noqa: PLR2004 - the API's limit, said in the message
        return "must be no more than 63 bytes"
    return None if not value or _PART_RE.match(value) else _VALUE_TEXT


def check_metadata(meta: Object, *, label_name: bool = False) -> list[Cause]:
    """Every rule of ObjectMeta that ``meta``, already of the right types, breaks."""
    causes = _check_name(meta, label_name=label_name)
    for key, value in (meta.get("labels") or {}).items():
        problem = label_key_problem(key)
        if problem:
            causes.append(status.invalid("metadata.labels", key, problem))
        problem = label_value_problem(value)
        if problem:
            causes.append(status.invalid("metadata.labels", value, problem))
    annotations = meta.get("annotations") or {}
    for key in annotations:
        problem = label_key_problem(key.lower())
        if problem:
            causes.append(status.invalid("metadata.annotations", key, problem))
    if sum(len(key) + len(value) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        causes.append(status.too_long("metadata.annotations", MAX_ANNOTATIONS))
    for name in meta.get("finalizers") or ():
        problem = label_key_problem(name)
        if problem:
            causes.append(status.invalid("metadata.finalizers", name, problem))
    causes += _check_owners(meta.get("ownerReferences") or [])
    return causes


def _check_name(meta: Object, *, label_name: bool) -> list[Cause]:
    name = meta.get("name", "")
    if not name:
        return [status.required("metadata.name", "name or generateName is required")]
    problem = name_problem(name, label=label_name)
    return [status.invalid("metadata.name", name, problem)] if problem else []


def _check_owners(owners: list[Object]) -> list[Cause]:
    causes = []
    controllers = 0
    for at, owner in enumerate(owners):
        where = f"metadata.ownerReferences[{at}]"
        causes += [
            status.invalid(f"{where}.{name}", owner.get(name, ""), "must not be empty")
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        ]
        controllers += owner.get("controller") is True
    if controllers > 1:
        detail = "Only one reference can have Controller set to true."
        causes.append(status.invalid("metadata.ownerReferences", None, detail))
    return causes


def check_new_finalizers(old: Object, new: Object) -> list[Cause]:
    """New finalizers on an object that is being deleted, once per place the real server checks."""
    added = [name for name in new.get("finalizers") or () if name not in (old.get("finalizers") or ())]
    if not added or not old.get("deletionTimestamp"):
        return []
    listed = ", ".join(f'"{name}"' for name in sorted(added))
    detail = (
        "no new finalizers can be added if the object is being deleted, found new finalizers "
        f"[]string{{{listed}}}"
    )
    return [status.forbidden_field("metadata.finalizers", detail)] * 2


def generated_name(prefix: str, choices: Json) -> str:
    """``prefix`` plus five characters picked by ``choices`` (as ``random.choices``), 63 at most."""
    return prefix[: 63 - NAME_SUFFIX] + "".join(choices(NAME_ALPHABET, k=NAME_SUFFIX))
