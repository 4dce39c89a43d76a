"""From a request's object to one that may be stored: shape, defaults, and every rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import status
from .corerules import check_core, complete
from .jsontypes import dig
from .metadata import check_metadata, check_new_finalizers
from .rules import check_rules
from .structural import fill_defaults, prune
from .validate import ABSENT, validate, validate_lists

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.errors import Violation

    from .jsontypes import Json, Object
    from .resources import Resource
    from .status import Cause

OURS = ("crucible.dev", "plugins")
"""The kind whose text is also read as the controller reads it."""
Validation = Literal["Strict", "Warn", "Ignore"]
MAX_WARNINGS = 8

_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to "
    "complete validation"
)


@dataclass(frozen=True, slots=True)
class Shaped:
    """An object of its schema's shape, and what the client is warned about."""

    body: Object
    warnings: tuple[str, ...] = ()


def shape(
    body: Object, resource: Resource, validation: Validation, duplicates: tuple[str, ...] = ()
) -> Shaped:
    """Drop unknown fields and set defaults; under ``Strict`` unknown or repeated fields refuse the request.

    Raises:
        ApiError: 400, the object cannot be decoded as its kind.
    """
    pruned = prune(body, resource.schema)
    problems = [f'unknown field "{path}"' for path in pruned.unknown]
    problems += [f'duplicate field "{path}"' for path in duplicates]
    if problems and validation == "Strict":
        raise StrictError(resource, problems)
    filled = fill_defaults(pruned.value, resource.schema)
    _check_decodable(filled, resource)
    return Shaped(filled, tuple(problems[:MAX_WARNINGS]) if validation == "Warn" else ())


class StrictError(status.ApiError):
    """400: the object has fields its kind does not know, or has one twice."""

    def __init__(self, resource: Resource, problems: list[str]) -> None:
        self.said = "strict decoding error: " + ", ".join(problems)
        kind, version = resource.kind, resource.version
        message = f'{kind} in version "{version}" cannot be handled as a {kind}: {self.said}'
        super().__init__(400, "BadRequest", message)


def _check_decodable(body: Object, resource: Resource) -> None:
    """Refuse what a typed server could not even read: wrong types in metadata and in core kinds."""
    schema = resource.schema
    parts: list[tuple[Json, Json, str]] = [
        (body.get("metadata"), schema["properties"]["metadata"], "metadata")
    ]
    if not resource.custom:
        parts = [(body, schema, "")]
    for value, below, path in parts:
        found = validate(value, below, path)
        wrong = [c for c in found if c.reason == "FieldValueTypeInvalid" or c.field.startswith("data.")]
        if wrong:
            kind, version = resource.kind, resource.version
            detail = wrong[0].message.removeprefix("Invalid value: ")
            raise status.bad_request(
                f'{kind} in version "{version}" cannot be handled as a {kind}: '
                f"json: cannot unmarshal into field {kind}.{wrong[0].field}: {detail}"
            )


def finish(resource: Resource, body: Object, old: Object | None, now: str) -> Object:
    """Add what the server itself sets for the kind."""
    return complete(resource, body, old, now)


def check(
    resource: Resource,
    body: Object,
    old: Object | None,
    admit: Callable[[Object], tuple[Violation, ...]] | None,
) -> None:
    """Hold a shaped object against every rule.

    Raises:
        ApiError: 422 with a cause for each broken rule.
    """
    before = ABSENT if old is None else old
    causes = check_metadata(body["metadata"], label_name=resource.label_name)
    if old is not None:
        causes += check_new_finalizers(old["metadata"], body["metadata"])
    causes += _without_metadata(validate(body, resource.schema, "", before))
    causes += check_core(resource, body, old)
    causes += _check_scale(resource, body)
    changed = {key: item for key, item in body.items() if old is None or item != old.get(key)}
    causes += validate_lists(changed, resource.schema)
    if resource.rules is not None:
        if any(cause.reason in status.BLOCKING for cause in causes):
            causes.append(status.invalid("<nil>", None, _NOT_CHECKED))
        else:
            causes += check_rules(body, resource.rules, "", before)
    if (
        not causes
        and admit is not None
        and (resource.group, resource.plural) == OURS
        and _desire_changed(body, old)
    ):
        causes = [
            status.Cause("FieldValueInvalid", v.field, f"Invalid value: {v.message}") for v in admit(body)
        ]
    if causes:
        name = str(body["metadata"].get("name", ""))
        raise status.invalid_object(resource.kind, resource.group, name, causes)


def _desire_changed(body: Object, old: Object | None) -> bool:
    if old is None:
        return True
    desired = (body.keys() | old.keys()) - {"metadata", "status"}
    return any(body.get(key) != old.get(key) for key in desired)


def _without_metadata(causes: list[Cause]) -> list[Cause]:
    return [
        cause for cause in causes if cause.field != "metadata" and not cause.field.startswith("metadata.")
    ]


def _check_scale(resource: Resource, body: Object) -> list[Cause]:
    if resource.scale is None:
        return []
    causes = []
    for path in (resource.scale.replicas, resource.scale.status_replicas):
        value, where = dig(body, *path), "." + ".".join(path)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            kind = {"str": "string", "float": "float64", "bool": "bool"}.get(type(value).__name__, "object")
            detail = f"{where} accessor error: {value} is of the type {kind}, expected int64"
            causes.append(status.invalid(where, 0, detail))
        elif value < 0:
            causes.append(status.invalid(where, value, "should be a non-negative integer"))
    return causes
