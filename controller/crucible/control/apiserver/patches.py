"""JSON merge patch, JSON patch and strategic merge patch, as functions of values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .jsontypes import clone

if TYPE_CHECKING:
    from .jsontypes import Json, Object

MAX_OPERATIONS: Final = 10_000


class PatchFailed(Exception):
    """A JSON patch operation cannot be done to this document."""


class PatchMalformed(Exception):
    """The patch itself is not one."""


def merge_patch(target: Json, patch: Json) -> Json:
    """RFC 7396: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged: Object = dict(target) if isinstance(target, dict) else {}
    for key, item in patch.items():
        if item is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), item)
    return merged


def json_patch(document: Json, operations: Json) -> Json:
    """RFC 6902 on a copy of ``document``.

    Raises:
        PatchMalformed: ``operations`` is not a JSON patch.
        PatchFailed: An operation does not fit the document, or a test fails.
    """
    if not isinstance(operations, list):
        raise PatchMalformed("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise PatchMalformed(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        )
    result = clone(document)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("op"), str):
            raise PatchMalformed("a JSON patch operation is an object with op and path")
        result = _operate(result, operation)
    return result


def _operate(document: Json, operation: Object) -> Json:
    name, path = operation["op"], _steps(operation.get("path"))
    match name:
        case "add":
            return _add(document, path, clone(_value(operation)))
        case "remove":
            return _remove(document, path)
        case "replace":
            _get(document, path)
            return _set(document, path, clone(_value(operation)))
        case "test":
            if not same(_get(document, path), operation.get("value")):
                raise PatchFailed(f"testing value {operation.get('path')} failed")
            return document
        case "copy":
            return _add(document, path, clone(_get(document, _steps(operation.get("from")))))
        case "move":
            source = _steps(operation.get("from"))
            moved = _get(document, source)
            if path[: len(source)] == source and len(path) > len(source):
                raise PatchFailed("cannot move a value into itself")
            return _add(_remove(document, source), path, moved)
        case _:
            raise PatchMalformed(f"Unexpected kind: {name}")


def same(left: Json, right: Json) -> bool:
    """JSON equality: true is not 1, and 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(item, right[key]) for key, item in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _value(operation: Object) -> Json:
    if "value" not in operation:
        raise PatchMalformed(f"operation {operation['op']} needs a value")
    return operation["value"]


def _steps(pointer: Json) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise PatchMalformed(f"not a JSON pointer: {pointer!r}")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _index(container: list[Json], step: str, *, end: bool = False) -> int:
    if end and step == "-":
        return len(container)
    if not (step.isascii() and step.isdigit()) or (len(step) > 1 and step[0] == "0") or len(step) > 9:  # noqa: PLR2004 - no list is a billion long
        raise PatchFailed(f"not an array index: {step}")
    index = int(step)
    if index >= len(container) + end:
        raise PatchFailed(f"Unable to access invalid index: {index}")
    return index


def _get(document: Json, path: list[str]) -> Json:
    for step in path:
        match document:
            case dict() if step in document:
                document = document[step]
            case list():
                document = document[_index(document, step)]
            case _:
                raise PatchFailed(f"missing path: /{'/'.join(path)}")
    return document


def _add(document: Json, path: list[str], value: Json) -> Json:
    if not path:
        return value
    parent = _get(document, path[:-1])
    match parent:
        case dict():
            parent[path[-1]] = value
        case list():
            parent.insert(_index(parent, path[-1], end=True), value)
        case _:
            raise PatchFailed(f"missing path: /{'/'.join(path)}")
    return document


def _set(document: Json, path: list[str], value: Json) -> Json:
    if not path:
        return value
    parent = _get(document, path[:-1])
    parent[_index(parent, path[-1]) if isinstance(parent, list) else path[-1]] = value
    return document


def _remove(document: Json, path: list[str]) -> Json:
    _get(document, path)
    if not path:
        return None
    parent = _get(document, path[:-1])
    del parent[_index(parent, path[-1]) if isinstance(parent, list) else path[-1]]
    return document


_MERGE_KEYS: Final = (("ownerReferences", "uid"), ("conditions", "type"))


def strategic_patch(target: Json, patch: Json) -> Json:
    """Strategic merge for the flat core kinds: lists with a known key merge, finalizers join, others replace.

    Raises:
        PatchMalformed: The patch is not an object, or its directive is unknown.
    """
    if not isinstance(patch, dict):
        raise PatchMalformed("a strategic merge patch is an object")
    return _strategic(target, patch)


def _strategic(target: Json, patch: Object) -> Object:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: item for key, item in patch.items() if key != "$patch"}
    if directive not in {None, "merge"}:
        raise PatchMalformed(f"unknown patch directive {directive!r}")
    merged: Object = dict(target) if isinstance(target, dict) else {}
    for key, item in patch.items():
        if key.startswith("$retainKeys"):
            merged = {name: value for name, value in merged.items() if name in item}
        elif key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            merged[field] = [value for value in merged.get(field) or [] if value not in item]
        elif key.startswith("$"):
            continue
        elif item is None:
            merged.pop(key, None)
        else:
            merged[key] = _strategic_field(merged.get(key), key, item)
    return merged


def _strategic_field(target: Json, key: str, item: Json) -> Json:
    if isinstance(item, dict):
        return _strategic(target, item)
    if isinstance(item, list) and isinstance(target, list):
        merge_key = dict(_MERGE_KEYS).get(key)
        if merge_key:
            return _joined(target, item, merge_key)
        if key == "finalizers":
            return [*target, *(value for value in item if value not in target)]
    return item


def _joined(items: list[Json], patch: list[Json], key: str) -> list[Json]:
    merged = {item[key]: item for item in items if isinstance(item, dict) and key in item}
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise PatchMalformed(f"list item without its merge key {key}")
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = _strategic(merged.get(item[key]), item)
    return list(merged.values())
