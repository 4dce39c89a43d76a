"""Errors as the Kubernetes API words them: a Status with reason, causes and field paths."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .jsontypes import Json, Object

Reason = Literal[
    "FieldValueRequired",
    "FieldValueInvalid",
    "FieldValueTypeInvalid",
    "FieldValueNotSupported",
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldManagerConflict",
]

BLOCKING = frozenset(
    {
        "FieldValueRequired",
        "FieldValueTypeInvalid",
        "FieldValueNotSupported",
        "FieldValueTooLong",
        "FieldValueTooMany",
    }
)
"""Reasons after which CEL rules are not evaluated, because they could not trust the object's shape."""


MAX_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with one field."""

    reason: Reason
    field: str
    message: str

    def __str__(self) -> str:
        """``field: message``, as Status messages list causes."""
        return f"{self.field}: {self.message}"


class ApiError(CrucibleError):
    """A request that is answered with a failure Status.

    Attributes:
        code: The HTTP status code.
        reason: The machine-readable reason, for example ``NotFound``; empty where the API has none.
        details: The Status details, or None.
        headers: Response headers beside the usual ones.
        metadata: The Status' own metadata.
    """

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers: dict[str, str] = {}
        self.metadata: Object = {}

    def body(self) -> Object:
        """The Status object."""
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
        }
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def required(field: str, detail: str = "") -> Cause:
    """A field that must be there and is not."""
    return Cause("FieldValueRequired", field, f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Json, detail: str) -> Cause:
    """A value that breaks a rule."""
    return Cause("FieldValueInvalid", field, f"Invalid value: {shown(value)}: {detail}")


def rule_broken(field: str, detail: str) -> Cause:
    """A CEL rule that does not hold; the value is left out, as it is on a real server."""
    return Cause("FieldValueInvalid", field, f"Invalid value: {detail}")


def type_invalid(field: str, found: str, detail: str) -> Cause:
    """A value of the wrong JSON type."""
    return Cause("FieldValueTypeInvalid", field, f"Invalid value: {json.dumps(found)}: {detail}")


def unsupported(field: str, value: Json, supported: Iterable[Json]) -> Cause:
    """A value outside its enumeration."""
    allowed = ", ".join(shown(item) for item in supported)
    return Cause(
        "FieldValueNotSupported", field, f"Unsupported value: {shown(value)}: supported values: {allowed}"
    )


def duplicate(field: str, value: Json) -> Cause:
    """A second item of a set or of a keyed list."""
    return Cause("FieldValueDuplicate", field, f"Duplicate value: {shown(value)}")


def forbidden_field(field: str, detail: str) -> Cause:
    """A field that may not be set or changed here."""
    return Cause("FieldValueForbidden", field, f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> Cause:
    """A string over its length."""
    return Cause("FieldValueTooLong", field, f"Too long: may not be more than {limit} bytes")


def too_many(field: str, count: int, limit: int) -> Cause:
    """A list or map over its size."""
    return Cause("FieldValueTooMany", field, f"Too many: {count}: must have at most {limit} items")


def shown(value: Json) -> str:
    """A value as error messages quote it: JSON, cut at 200 characters."""
    text = json.dumps(value, separators=(",", ":"))
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def details(name: str, group: str, kind: str, causes: Iterable[Cause] = ()) -> Object:
    """Status details without the keys that would be empty."""
    found: Object = {"name": name, "group": group, "kind": kind}
    found = {key: value for key, value in found.items() if value}
    listed = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    if listed:
        found["causes"] = listed
    return found


def qualified(kind: str, group: str) -> str:
    """``plugins.crucible.dev``, or the kind alone in the core group."""
    return f"{kind}.{group}" if group else kind


def bad_request(message: str) -> ApiError:
    """400: the request cannot be read."""
    return ApiError(400, "BadRequest", message)


def not_found(plural: str, group: str, name: str) -> ApiError:
    """404 for a named object."""
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, details(name, group, plural))


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """409 on create."""
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(name, group, plural))


def conflict(plural: str, group: str, name: str, detail: str | None = None) -> ApiError:
    """409 on update: a precondition does not hold; by default a stale resourceVersion."""
    why = detail or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(name, group, plural))


def invalid_object(kind: str, group: str, name: str, causes: list[Cause]) -> ApiError:
    """422 with every cause; a message said twice is listed once."""
    lines = list(dict.fromkeys(str(cause) for cause in causes))
    listing = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {listing}'
    return ApiError(422, "Invalid", message, details(name, group, kind, causes))


def forbidden(plural: str, group: str, name: str, detail: str) -> ApiError:
    """403: this is never allowed."""
    message = f'{qualified(plural, group)} "{name}" is forbidden: {detail}'
    return ApiError(403, "Forbidden", message, details(name, group, plural))


def method_not_allowed() -> ApiError:
    """405: the resource exists and does not support the verb."""
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def expired(message: str) -> ApiError:
    """410: history that far back is gone."""
    return ApiError(410, "Expired", message)
