"""Server-side apply as a function: live object, configuration and owners in; new object and owners out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from . import status
from .fieldsets import (
    all_paths,
    applied_paths,
    compare,
    element_of,
    shown_path,
    with_named_parents,
    without,
)
from .managed import BEFORE_FIRST_APPLY, Entry, Writer
from .structural import field_schema, is_granular_map, list_kind

if TYPE_CHECKING:
    from .fieldsets import Path, Paths
    from .jsontypes import Json, Object
    from .structural import Schema


_STAYS: Final[Paths] = frozenset({("f:metadata",)})
"""What an object is never without, though who applied the last label or annotation takes it back."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply leads to, if nothing keeps it from being written."""

    body: Object
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Application:
    """One request to apply: what, as whom, when, and whether to take fields from their owners."""

    config: Object
    writer: Writer
    now: str
    force: bool = False


def apply(live: Object, entries: tuple[Entry, ...], schema: Schema, wanted: Application) -> Applied:
    """Merge a configuration into ``live`` and move ownership.

    Fields the same writer applied before and no longer names go, unless another manager owns them.

    Raises:
        ApiError: 409 with a cause for every field another manager owns with another value.
    """
    writer = wanted.writer
    if not entries and live.get("metadata", {}).get("uid"):
        first = replace(writer, name=BEFORE_FIRST_APPLY, operation="Update", subresource="")
        entries = (Entry(first, all_paths(live, schema), wanted.now),)
    before: Paths = next((e.paths for e in entries if e.writer == writer), frozenset())
    claimed = applied_paths(wanted.config, schema)
    others = [e for e in entries if e.writer != writer]
    body = merge(live, wanted.config, schema)
    if before:
        managed = claimed.union(*(e.paths for e in others))
        gone = with_named_parents(before, schema) - with_named_parents(managed, schema) - _STAYS
        body = without(body, gone, schema, managed)
    diff = compare(live, body, schema)
    conflicts = [(e.writer, path) for e in others for path in sorted(e.paths & diff.written)]
    if conflicts and not wanted.force:
        raise _conflict(conflicts, {e.writer: e.time for e in others})
    changed = diff.written | diff.removed
    kept = [entry.owning(entry.paths - changed) for entry in others]
    mine = next((e for e in entries if e.writer == writer), None)
    unchanged = mine is not None and mine.paths == claimed and not diff.written and not diff.removed
    own = mine if mine is not None and unchanged else Entry(writer, claimed, wanted.now)
    return Applied(body, tuple(e for e in (*kept, own) if e.paths or e is own))


def merge(live: Json, config: Json, schema: Schema | None) -> Json:
    """``live`` with every value of ``config`` set; keyed lists and sets are joined, the rest replaced."""
    if isinstance(live, dict) and isinstance(config, dict) and is_granular_map(schema):
        merged = dict(live)
        for key, item in config.items():
            merged[key] = merge(live[key], item, field_schema(schema, key)[0]) if key in live else item
        return merged
    if isinstance(live, list) and isinstance(config, list) and schema and list_kind(schema) != "atomic":
        return _merged_items(live, config, schema)
    return config


def _merged_items(live: list[Json], config: list[Json], schema: Schema) -> list[Json]:
    """Items of both lists in an order that keeps the configuration's, and the live one's where it can."""
    left = {element_of(item, schema): item for item in live}
    right = {element_of(item, schema): item for item in config}
    waiting = list(right)
    merged: list[Json] = []
    for element, item in left.items():
        if element not in right:
            merged.append(item)
            continue
        while waiting and element in waiting:
            following = waiting.pop(0)
            merged.append(_merged_item(left, right, following, schema))
            if following == element:
                break
    merged += [_merged_item(left, right, element, schema) for element in waiting]
    return merged


def _merged_item(
    left: dict[str | None, Json], right: dict[str | None, Json], element: str | None, schema: Schema
) -> Json:
    if element in left:
        return merge(left[element], right[element], schema.get("items"))
    return right[element]


def _conflict(conflicts: list[tuple[Writer, Path]], times: dict[Writer, str]) -> status.ApiError:
    named = [(_shown_writer(writer, times[writer]), shown_path(path)) for writer, path in conflicts]
    causes = [status.Cause("FieldManagerConflict", path, f"conflict with {who}") for who, path in named]
    if len(named) == 1:
        message = f"Apply failed with 1 conflict: conflict with {named[0][0]}: {named[0][1]}"
    else:
        lines = []
        for who in sorted({who for who, _ in named}):
            lines.append(f"conflicts with {who}:")
            lines += [f"- {path}" for owner, path in named if owner == who]
        message = f"Apply failed with {len(named)} conflicts: " + "\n".join(lines)
    return status.ApiError(409, "Conflict", message, status.details("", "", "", causes))


def _shown_writer(writer: Writer, time: str) -> str:
    shown = f'"{writer.name}"'
    if writer.subresource:
        shown += f' with subresource "{writer.subresource}"'
    if writer.operation == "Update":
        shown += f" using {writer.api_version}" + (f" at {time}" if time else "")
    return shown
