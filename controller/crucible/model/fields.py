"""What a manifest is made of: its parts, kinds of field, and the markers that fields carry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from crucible.model import quantity


class Part(BaseModel):
    """One part of a manifest: strict, frozen, camelCase outside; an unknown field is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Say in CEL, for the API server, what a part's validator says in Python: rule and message of each."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


@dataclass(frozen=True, slots=True)
class NotYet:
    """Marks a field, or some values of one, that this release refuses.

    Attributes:
        values: the values refused; empty: every value but an empty one.
        instead: what a person can do today.
    """

    values: frozenset[str] = frozenset()
    instead: str = "remove it"


@dataclass(frozen=True, slots=True)
class ListMap:
    """Marks a list whose items are told apart by one of their fields."""

    key: str


def _quantity_schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": pattern, "example": example})


Bytes = Annotated[
    int,
    BeforeValidator(quantity.parse_bytes),
    PlainSerializer(quantity.format_bytes),
    _quantity_schema(quantity.BYTES_PATTERN, "64Mi"),
]
Cpu = Annotated[
    int,
    BeforeValidator(quantity.parse_cpu),
    PlainSerializer(quantity.format_cpu),
    _quantity_schema(quantity.CPU_PATTERN, "500m"),
]
Share = Annotated[
    str,
    BeforeValidator(quantity.parse_share),
    PlainSerializer(lambda text: text if text.endswith("%") else int(text)),
    _quantity_schema(quantity.SHARE_PATTERN, "25%"),
]
Duration = Annotated[
    float,
    BeforeValidator(quantity.parse_duration),
    PlainSerializer(quantity.format_duration),
    WithJsonSchema({"type": "string", "pattern": quantity.DURATION_PATTERN, "example": "10s"}),
]

_PATH = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
SEMVER = (
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
)

RANGE_PATTERN = (
    r"^(\*|(\^|~|==|=|!=|>=|<=|>|<)?[0-9]{1,9}(\.[0-9]{1,9}){0,2}(-[0-9A-Za-z.-]{1,64})?"
    r"(, ?(\^|~|==|=|!=|>=|<=|>|<)?[0-9]{1,9}(\.[0-9]{1,9}){0,2}(-[0-9A-Za-z.-]{1,64})?){0,7})$"
)
"""A version or a comparison of one, up to eight of them with commas between; or any."""


def _inside(path: str) -> str:
    """Refuse a path that is absolute, climbs, or could mean two things."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} points outside the source: write a path relative to it, without '..'")
    if _PATH.fullmatch(path) is None or "." in path.split("/"):
        raise ValueError(f"{path!r} is not a plain relative path: use letters, digits, '.', '_', '-' and '/'")
    return path


def _semver(text: str) -> str:
    if re.fullmatch(SEMVER, text) is None:
        raise ValueError(f"{text!r} is not a semantic version: write three numbers like 1.4.2")
    return text


Version = Annotated[
    str,
    Field(max_length=128),
    AfterValidator(_semver),
    WithJsonSchema({"type": "string", "pattern": SEMVER, "maxLength": 128, "example": "1.4.2"}),
]
RelativePath = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_inside)]
Word = Annotated[str, Field(max_length=4096)]
