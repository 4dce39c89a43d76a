"""Sets of field paths: what one manager owns of an object.

A path is a tuple of elements as ``fieldsV1`` writes them: ``f:name`` for a field, ``k:{"name":"a"}`` for an
item of a keyed list, ``v:"x"`` for an item of a set.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from .structural import field_schema, is_granular_map, item_keys, knows_field, list_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .jsontypes import Json, Object
    from .structural import Schema

Path = tuple[str, ...]
Paths = frozenset[Path]

_UNOWNED = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {("f:metadata", f"f:{name}") for name in ("name", "namespace", "creationTimestamp", "selfLink", "uid")}
    | {("f:metadata", f"f:{name}") for name in ("generation", "managedFields", "resourceVersion")}
)
"""Fields nobody owns: identity and what the server keeps itself."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Which paths two versions of an object differ in."""

    added: Paths = field(default=frozenset())
    removed: Paths = field(default=frozenset())
    modified: Paths = field(default=frozenset())

    @property
    def written(self) -> Paths:
        """Paths whose new value somebody wrote."""
        return self.added | self.modified


def from_wire(fields: Object) -> Paths:
    """The set that a ``fieldsV1`` value holds.

    Raises:
        ValueError: It is not a fieldsV1 value.
    """
    return frozenset(_members(fields, ()))


def _members(node: Object, path: Path) -> Iterator[Path]:
    for element, below in node.items():
        if element == ".":
            yield path
        elif not isinstance(below, dict) or element[:2] not in {"f:", "k:", "v:", "i:"}:
            raise ValueError(f"not a field path element: {element!r}")
        elif below:
            yield from _members(below, (*path, element))
        else:
            yield (*path, element)


@lru_cache(maxsize=256)
def to_wire(paths: Paths) -> Object:
    """The ``fieldsV1`` value of a set, elements in order. Equal sets share one value: do not change it."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_lone_dots(root)


def _without_lone_dots(node: Object) -> Object:
    return {
        element: {} if below.keys() == {"."} else (below if element == "." else _without_lone_dots(below))
        for element, below in node.items()
    }


def element_of(item: Json, schema: Schema) -> str | None:
    """The path element of a list item; None where a keyed item lacks a key."""
    if list_kind(schema) == "set":
        return "v:" + json.dumps(item, separators=(",", ":"))
    if not isinstance(item, dict):
        return None
    keys = item_keys(schema, item)
    if not keys or len(keys) < len(schema.get("x-kubernetes-list-map-keys", ())):
        return None
    return "k:" + json.dumps(keys, separators=(",", ":"), sort_keys=True)


def applied_paths(config: Object, schema: Schema) -> Paths:
    """What an applied configuration claims: leaves, and the items and map keys it names."""
    return frozenset(_applied(config, schema, ())) - _UNOWNED


def _applied(value: Json, schema: Schema | None, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and is_granular_map(schema):
        for key, item in value.items():
            below, declared = field_schema(schema, key)
            here = (*path, f"f:{key}")
            if item is None or item == {} or not declared:
                yield here
            yield from _applied(item, below, here)
    elif isinstance(value, list) and schema is not None and list_kind(schema) != "atomic":
        for item in value:
            here = (*path, element_of(item, schema) or "")
            yield here
            yield from _applied(item, schema.get("items"), here)
    elif not isinstance(value, dict) or value or not is_granular_map(schema):
        yield path


def all_paths(value: Json, schema: Schema | None) -> Paths:
    """Every path of an object, containers included."""
    return frozenset(_everything(value, schema, ())) - _UNOWNED - {()}


def _everything(value: Json, schema: Schema | None, path: Path) -> Iterator[Path]:
    yield path
    if isinstance(value, dict) and is_granular_map(schema):
        for key, item in value.items():
            yield from _everything(item, field_schema(schema, key)[0], (*path, f"f:{key}"))
    elif isinstance(value, list) and schema is not None and list_kind(schema) != "atomic":
        for item in value:
            yield from _everything(item, schema.get("items"), (*path, element_of(item, schema) or ""))


def compare(old: Object, new: Object, schema: Schema) -> Diff:
    """How ``new`` differs from ``old``; equal parts are not entered."""
    added: set[Path] = set()
    removed: set[Path] = set()
    modified: set[Path] = set()

    def enter(before: Json, after: Json, below: Schema | None, path: Path) -> None:
        if before == after and type(before) is type(after):
            return
        left, right = _children(before, below), _children(after, below)
        if left is None or right is None or not (left or right):
            modified.add(path)
            removed.update(set(_everything(before, below, path)) - {path})
            added.update(set(_everything(after, below, path)) - {path})
            return
        for element in left.keys() | right.keys():
            here = (*path, element)
            if element not in right:
                removed.update(_everything(*left[element], here))
            elif element not in left:
                added.update(_everything(*right[element], here))
            else:
                enter(left[element][0], *right[element], here)

    enter(old, new, schema, ())
    return Diff(frozenset(added) - _UNOWNED, frozenset(removed) - _UNOWNED, frozenset(modified) - _UNOWNED)


def _children(value: Json, schema: Schema | None) -> dict[str, tuple[Json, Schema | None]] | None:
    """The parts of a value that have owners of their own, or None for a leaf."""
    if isinstance(value, dict) and is_granular_map(schema):
        return {f"f:{key}": (item, field_schema(schema, key)[0]) for key, item in value.items()}
    if isinstance(value, list) and schema is not None and list_kind(schema) != "atomic":
        return {element_of(item, schema) or "": (item, schema.get("items")) for item in value}
    return None


def with_named_parents(paths: Paths, schema: Schema) -> Paths:
    """``paths`` and every declared field on the way to them."""
    found = set(paths)
    for path in paths:
        below: Schema | None = schema
        for depth, element in enumerate(path[:-1], 1):
            if element.startswith("f:"):
                below, declared = field_schema(below, element[2:])
                if declared:
                    found.add(path[:depth])
            else:
                below = below.get("items") if below else None
    return frozenset(found)


def without(value: Json, paths: Paths, schema: Schema | None, keep: Paths = frozenset()) -> Json:
    """``value`` less everything at ``paths``; a container this empties goes too, unless it is in ``keep``."""
    return _cut(value, _nested(paths), schema, (), keep)


_Tree = dict[str, "_Tree | None"]


def _nested(paths: Iterable[Path]) -> _Tree:
    root: _Tree = {}
    for path in sorted(paths, key=len):
        node: _Tree | None = root
        for element in path[:-1]:
            if node is None:
                break
            node = node.setdefault(element, {})
        if node is not None and path:
            node[path[-1]] = None
    return root


def _cut(value: Json, tree: _Tree, schema: Schema | None, path: Path, keep: Paths) -> Json:
    if isinstance(value, dict):
        kept: Object = {}
        for key, item in value.items():
            below = tree.get(f"f:{key}", {})
            if below is None:
                continue
            here = (*path, f"f:{key}")
            cut = _cut(item, below, field_schema(schema, key)[0], here, keep) if below else item
            if cut or cut == item or here in keep:
                kept[key] = cut
        return kept
    if isinstance(value, list) and schema is not None and list_kind(schema) != "atomic":
        kept_items = []
        for item in value:
            element = element_of(item, schema) or ""
            below = tree.get(element, {})
            if below is not None:
                inside = schema.get("items")
                kept_items.append(_cut(item, below, inside, (*path, element), keep) if below else item)
        return kept_items
    return value


def shown_path(path: Path) -> str:
    """A path as conflict messages write it: ``.spec.env[name="A"].value``."""
    return "".join(_shown_element(element) for element in path)


def _shown_element(element: str) -> str:
    kind, rest = element[:2], element[2:]
    if kind == "f:":
        return f".{rest}"
    if kind == "k:":
        pairs = ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items())
        return f"[{pairs}]"
    return f"[={rest}]" if kind == "v:" else f"[{rest}]"


def typed_problems(value: Json, schema: Schema | None, path: str = "") -> Iterator[str]:
    """Why a configuration cannot be applied: unknown fields, items without key, keys said twice."""
    if schema is None or value is None:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not knows_field(schema, key):
                yield f"{path}.{key}: field not declared in schema"
            else:
                yield from typed_problems(item, field_schema(schema, key)[0], f"{path}.{key}")
    elif isinstance(value, list):
        kind = list_kind(schema)
        elements = [element_of(item, schema) for item in value] if kind != "atomic" else []
        for at, element in enumerate(elements):
            if element is None:
                what = "associative list with keys has an element that omits a key field"
                yield f"{path}: element {at}: {what}"
            elif element in elements[:at]:
                yield f"{path}: duplicate entries for key {_shown_element(element)}"
        for item in value:
            yield from typed_problems(item, schema.get("items"), f"{path}[]")
