"""Structural schemas applied to values: pruning, defaulting, and the types SSA and CEL see.

A schema is the decoded ``openAPIV3Schema``. None stands for "anything", as below
``x-kubernetes-preserve-unknown-fields``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .jsontypes import clone

if TYPE_CHECKING:
    from .jsontypes import Json, Object

Schema = dict[str, "Json"]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
EMBEDDED = "x-kubernetes-embedded-resource"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
MAP_TYPE = "x-kubernetes-map-type"
RULES = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Pruned:
    """A value without the fields its schema does not know, and the paths of those."""

    value: Json
    unknown: tuple[str, ...] = field(default=())


def prune(value: Json, schema: Schema | None, path: str = "") -> Pruned:
    """Drop fields the schema does not declare; ``unknown`` lists them in order of appearance."""
    unknown: list[str] = []
    return Pruned(_pruned(value, schema, path, unknown), tuple(unknown))


def _pruned(value: Json, schema: Schema | None, path: str, unknown: list[str]) -> Json:
    if schema is None:
        return value
    if isinstance(value, dict):
        return _pruned_object(value, schema, path, unknown)
    if isinstance(value, list):
        items = schema.get("items")
        if items is None:
            return value
        return [_pruned(item, items, f"{path}[{at}]", unknown) for at, item in enumerate(value)]
    return value


def _pruned_object(value: Object, schema: Schema, path: str, unknown: list[str]) -> Object:
    properties = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    keep = schema.get(PRESERVE) or extra is True
    embedded = bool(schema.get(EMBEDDED))
    found: Object = {}
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if key in properties:
            found[key] = _pruned(item, properties[key], where, unknown)
        elif isinstance(extra, dict):
            found[key] = _pruned(item, extra, where, unknown)
        elif keep or (embedded and key in {"apiVersion", "kind", "metadata"}):
            found[key] = item
        else:
            unknown.append(where)
    return found


def fill_defaults(value: Json, schema: Schema | None) -> Json:
    """``value`` with defaults set; a null that may not be null counts as absent."""
    if schema is None:
        return value
    if isinstance(value, list):
        items = schema.get("items")
        return [fill_defaults(item, items) for item in value] if items else value
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    found: Object = {}
    for key, item in value.items():
        below = properties.get(key, extra if isinstance(extra, dict) else None)
        if item is None and key in properties and not below.get("nullable"):
            continue
        found[key] = fill_defaults(item, below)
    for key, below in properties.items():
        if key not in found and "default" in below:
            found[key] = fill_defaults(clone(below["default"]), below)
    return found


def field_schema(schema: Schema | None, key: str) -> tuple[Schema | None, bool]:
    """The schema of one field, and whether the field is declared by name."""
    if schema is None:
        return None, False
    properties = schema.get("properties")
    if properties and key in properties:
        return properties[key], True
    extra = schema.get("additionalProperties")
    return (extra if isinstance(extra, dict) else None), False


def knows_field(schema: Schema | None, key: str) -> bool:
    """True if ``key`` may appear in an object of this schema."""
    if schema is None or schema.get(PRESERVE) or schema.get("additionalProperties"):
        return True
    return key in schema.get("properties", {}) or bool(
        schema.get(EMBEDDED) and key in {"apiVersion", "kind", "metadata"}
    )


def is_granular_map(schema: Schema | None) -> bool:
    """True if an object's fields have owners of their own."""
    return schema is None or schema.get(MAP_TYPE) != "atomic"


def list_kind(schema: Schema | None) -> str:
    """``atomic``, ``set`` or ``map``."""
    return "atomic" if schema is None else str(schema.get(LIST_TYPE, "atomic"))


def item_keys(schema: Schema, item: Object) -> Object:
    """The key fields of a keyed list's item, defaults included; a missing key is left out."""
    declared = schema.get("items", {}).get("properties", {})
    found: Object = {}
    for name in schema.get(LIST_KEYS, ()):
        if name in item:
            found[name] = item[name]
        elif "default" in declared.get(name, {}):
            found[name] = declared[name]["default"]
    return found
