"""``metadata.managedFields``: who owns which field, and how a write changes that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from .fieldsets import from_wire, to_wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .fieldsets import Diff, Paths
    from .jsontypes import Json, Object

MAX_UPDATE_MANAGERS: Final = 10
ANCIENT: Final = "ancient-changes"
BEFORE_FIRST_APPLY: Final = "before-first-apply"


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: the field manager, how, and through which subresource."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one writer owns, since when (RFC 3339, whole seconds).

    Attributes:
        wire: ``paths`` as they were read, so that they need not be written out anew.
    """

    writer: Writer
    paths: Paths
    time: str
    wire: Object | None = field(default=None, compare=False)

    def owning(self, paths: Paths) -> Entry:
        """The same writer since the same moment, with these paths."""
        return self if paths == self.paths else Entry(self.writer, paths, self.time)


def read_entries(meta: Object) -> tuple[Entry, ...]:
    """The entries of an object's metadata.

    Raises:
        ValueError: They are malformed.
    """
    return tuple(_read(entry) for entry in meta.get("managedFields") or ())


def _read(entry: Json) -> Entry:
    if not isinstance(entry, dict) or entry.get("operation") not in {"Apply", "Update"}:
        raise ValueError("managedFields: operation must be Apply or Update")
    if entry.get("fieldsType") != "FieldsV1" or not isinstance(entry.get("fieldsV1", {}), dict):
        raise ValueError("managedFields: fieldsType must be FieldsV1")
    writer = Writer(
        str(entry.get("manager", "")),
        str(entry["operation"]),
        str(entry.get("apiVersion", "")),
        str(entry.get("subresource", "")),
    )
    fields = entry.get("fieldsV1") or {}
    return Entry(writer, from_wire(fields), str(entry.get("time", "")), fields)


def write_entries(entries: Iterable[Entry]) -> list[Object]:
    """The wire form: applies first, then by time and name."""
    ordered = sorted(entries, key=lambda e: (e.writer.operation, e.time, e.writer.name, e.writer.subresource))
    return [_write(entry) for entry in ordered]


def _write(entry: Entry) -> Object:
    writer = entry.writer
    found: Object = {
        "manager": writer.name,
        "operation": writer.operation,
        "apiVersion": writer.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": to_wire(entry.paths) if entry.wire is None else entry.wire,
    }
    if writer.subresource:
        found["subresource"] = writer.subresource
    return found


def after_update(entries: Iterable[Entry], diff: Diff, writer: Writer, now: str) -> tuple[Entry, ...]:
    """Ownership after a plain update: the writer gets what it wrote, all lose what changed under them."""
    written, removed = diff.written, diff.removed
    mine = Entry(writer, frozenset(), now)
    kept = []
    for entry in entries:
        if entry.writer == writer:
            mine = entry
        else:
            paths = entry.paths - written - removed
            if paths:
                kept.append(entry.owning(paths))
    paths = mine.paths - removed | written
    if paths:
        kept.append(replace(mine.owning(paths), time=now if written else mine.time))
    return _capped(kept)


def _capped(entries: list[Entry]) -> tuple[Entry, ...]:
    """At most ten updaters: the oldest are folded into one."""
    updates = sorted((e for e in entries if e.writer.operation == "Update"), key=lambda e: e.time)
    excess = len(updates) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return tuple(entries)
    folded = updates[: excess + 1]
    paths: Paths = frozenset().union(*(entry.paths for entry in folded))
    writer = replace(folded[-1].writer, name=ANCIENT, subresource="")
    kept = [entry for entry in entries if entry not in folded]
    return (*kept, Entry(writer, paths, folded[-1].time))


def same_but_time(old: Json, new: Json) -> bool:
    """True if two ``managedFields`` values say the same, whenever they say it was written."""

    def bare(entries: Json) -> list[Json]:
        listed = [{k: v for k, v in e.items() if k != "time"} for e in entries or () if isinstance(e, dict)]
        order = ("operation", "manager", "subresource")
        return sorted(listed, key=lambda entry: [str(entry.get(name, "")) for name in order])

    return bool(old == new or bare(old) == bare(new))
