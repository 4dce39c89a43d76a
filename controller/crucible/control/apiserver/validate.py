"""Structural schemas applied to values: what is wrong, in the words of a real server.

A part of an object that an update leaves as it was is not judged again, so a rule that was tightened does
not lock the objects that exist (ratcheting).
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from . import status
from .formats import fits_format
from .structural import INT_OR_STRING, LIST_TYPE, item_keys, list_kind

if TYPE_CHECKING:
    from .jsontypes import Json, Object
    from .status import Cause
    from .structural import Schema

ABSENT = object()


def validate(value: Json, schema: Schema | None, path: str = "", old: Json = ABSENT) -> list[Cause]:
    """Every way ``value`` breaks ``schema``, wrong types first. ``old`` is what it replaces."""
    if schema is None or (old is not ABSENT and value == old):
        return []
    causes: list[Cause] = []
    _walk(value, schema, path, causes, old)
    return sorted(causes, key=lambda cause: cause.reason != "FieldValueTypeInvalid")


def validate_lists(value: Json, schema: Schema | None, path: str = "") -> list[Cause]:
    """Items that appear twice in sets and keyed lists."""
    causes: list[Cause] = []
    if schema is None:
        return causes
    if isinstance(value, list):
        causes += _repeated(value, schema, path)
        items = schema.get("items")
        for at, item in enumerate(value if items else ()):
            causes += validate_lists(item, items, f"{path}[{at}]")
    elif isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if isinstance(item, dict | list):
                below = properties.get(key, extra if isinstance(extra, dict) else None)
                causes += validate_lists(item, below, f"{path}.{key}" if path else key)
    return causes


def _repeated(value: list[Json], schema: Schema, path: str) -> list[Cause]:
    kind = list_kind(schema)
    if kind == "atomic":
        return []
    seen: set[str] = set()
    causes = []
    for at, item in enumerate(value):
        shown = item_keys(schema, item) if kind == "map" and isinstance(item, dict) else item
        mark = json.dumps(shown, sort_keys=True)
        if mark in seen:
            causes.append(status.duplicate(f"{path}[{at}]", shown))
        seen.add(mark)
    return causes


def _walk(value: Json, schema: Schema, path: str, causes: list[Cause], old: Json) -> None:
    if old is not ABSENT and value == old:
        return
    if value is None and schema.get("nullable"):
        return
    wrong = _wrong_type(value, schema, path)
    if wrong:
        causes.append(wrong)
        return
    if "enum" in schema and value not in schema["enum"]:
        causes.append(status.unsupported(path, value, schema["enum"]))
    match value:
        case dict():
            _check_object(value, schema, path, causes, old)
        case list():
            _check_list(value, schema, path, causes, old)
        case str():
            _check_text(value, schema, path, causes)
        case int() | float() if not isinstance(value, bool):
            _check_number(value, schema, path, causes)
        case _:
            pass
    _check_logic(value, schema, path, causes)


_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}


def _wrong_type(value: Json, schema: Schema, path: str) -> Cause | None:
    if schema.get(INT_OR_STRING):
        fits = (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, str)
        wanted = "integer,string"
    else:
        wanted = schema.get("type", "")
        fits = not wanted or _has_type(value, wanted)
    if fits:
        return None
    found = _type_name(value)
    return status.type_invalid(path, found, f'{path} in body must be of type {wanted}: "{found}"')


def _has_type(value: Json, wanted: str) -> bool:
    if wanted in _TYPES:
        return isinstance(value, _TYPES[wanted])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return wanted == "number" or isinstance(value, int) or value.is_integer()


def _type_name(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _check_object(value: Object, schema: Schema, path: str, causes: list[Cause], old: Json) -> None:
    before = old if isinstance(old, dict) else {}
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
    causes.extend(
        status.required(f"{path}.{name}" if path else name)
        for name in schema.get("required", ())
        if name not in value
    )
    for key, item in value.items():
        below = properties.get(key, extra if isinstance(extra, dict) else None)
        if below is not None:
            _walk(item, below, f"{path}.{key}" if path else key, causes, before.get(key, ABSENT))
    _check_count(len(value), schema, path, causes, ("minProperties", "maxProperties", "properties"))


def _check_list(value: list[Json], schema: Schema, path: str, causes: list[Cause], old: Json) -> None:
    items = schema.get("items")
    if items is not None:
        before = _matching(schema, old)
        for at, item in enumerate(value):
            _walk(item, items, f"{path}[{at}]", causes, before.get(_mark(schema, item), ABSENT))
    _check_count(len(value), schema, path, causes, ("minItems", "maxItems", "items"))


def _matching(schema: Schema, old: Json) -> dict[str, Json]:
    if not isinstance(old, list) or schema.get(LIST_TYPE) != "map":
        return {}
    return {_mark(schema, item): item for item in old}


def _mark(schema: Schema, item: Json) -> str:
    if schema.get(LIST_TYPE) != "map" or not isinstance(item, dict):
        return ""
    return json.dumps(item_keys(schema, item), sort_keys=True)


def _check_count(
    count: int, schema: Schema, path: str, causes: list[Cause], words: tuple[str, str, str]
) -> None:
    least, most, noun = words
    if count < schema.get(least, 0):
        detail = f"{path} in body should have at least {schema[least]} {noun}"
        causes.append(status.invalid(path, count, detail))
    if most in schema and count > schema[most]:
        causes.append(status.too_many(path, count, schema[most]))


def _check_text(value: str, schema: Schema, path: str, causes: list[Cause]) -> None:
    if len(value) < schema.get("minLength", 0):
        detail = f"{path} in body should be at least {schema['minLength']} chars long"
        causes.append(status.invalid(path, value, detail))
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        causes.append(status.too_long(path, schema["maxLength"]))
    pattern = schema.get("pattern")
    if pattern and not compiled_pattern(pattern).search(value):
        causes.append(status.invalid(path, value, f"{path} in body should match '{pattern}'"))
    named = schema.get("format")
    if named and not fits_format(named, value):
        causes.append(status.invalid(path, value, f'{path} in body must be of type {named}: "{value}"'))


def _check_number(value: float, schema: Schema, path: str, causes: list[Cause]) -> None:
    def wrong(detail: str) -> None:
        causes.append(status.invalid(path, value, f"{path} in body should be {detail}"))

    least, most, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if least is not None:
        if schema.get("exclusiveMinimum") and value <= least:
            wrong(f"greater than {least}")
        elif value < least:
            wrong(f"greater than or equal to {least}")
    if most is not None:
        if schema.get("exclusiveMaximum") and value >= most:
            wrong(f"less than {most}")
        elif value > most:
            wrong(f"less than or equal to {most}")
    if step and not math.isclose(value / step, round(value / step)):
        wrong(f"a multiple of {step}")
    bounds = {"int32": 2**31, "int64": 2**63}.get(schema.get("format", ""))
    if bounds and not -bounds <= value < bounds:
        causes.append(
            status.invalid(path, value, f'{path} in body must be of type {schema["format"]}: "{value}"')
        )


def _check_logic(value: Json, schema: Schema, path: str, causes: list[Cause]) -> None:
    where = f"{path} in body" if path else "body"

    def holds(branch: Schema) -> bool:
        found: list[Cause] = []
        _walk(value, branch, path, found, ABSENT)
        return not found

    for branch in schema.get("allOf", ()):
        _walk(value, branch, path, causes, ABSENT)
    if "anyOf" in schema and not schema.get(INT_OR_STRING) and not any(map(holds, schema["anyOf"])):
        causes.append(status.invalid(path, value, f"{where} must validate at least one schema (anyOf)"))
    if "oneOf" in schema and sum(map(holds, schema["oneOf"])) != 1:
        causes.append(status.invalid(path, value, f"{where} must validate one and only one schema (oneOf)"))
    if "not" in schema and holds(schema["not"]):
        causes.append(status.invalid(path, value, f"{where} must not validate the schema (not)"))


@lru_cache(maxsize=512)
def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """A schema's pattern; ``$`` means the very end, as in RE2.

    Raises:
        re.error: The pattern is malformed.
    """
    return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", pattern))
