"""One Plugin object, read: who it is, and what it asks for."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from crucible.errors import InvalidManifest, Violation
from crucible.model import names
from crucible.model.asked import MOST, looked_at, manifest_digest, read_rollback
from crucible.model.encoding import encoded
from crucible.model.fields import NotYet
from crucible.model.manifest import PluginSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

SPEC_LIMIT = 1024 * 1024
"""Bytes of JSON a spec may have; far below it every real one ends."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What can be read of any Plugin object, however wrong its spec is.

    Attributes:
        namespace: where it lives.
        name: unique there.
        uid: unique for ever; owns everything made for the Plugin.
        generation: counts changes of the spec.
        deleting: somebody asked for its deletion.
        restart: value of the restart annotation.
        source_digest: value of the source digest annotation.
        rollback: value of the rollback annotation.
        manifest: digest of what makes its revision, where that annotation speaks of one.
        looked_at: tells this manifest and restart from any other of the Plugin.
        frozen: value of the annotation by which a person asks to hold every instance still.
        finalizers: what must happen before the object may disappear.
        resource_version: of the object this was read from.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool = False
    restart: str = ""
    source_digest: str = ""
    rollback: str = ""
    manifest: str = ""
    looked_at: str = ""
    frozen: str = ""
    finalizers: tuple[str, ...] = ()
    resource_version: str = ""

    @property
    def held(self) -> bool:
        """The object cannot disappear before its instances are gone."""
        return names.FINALIZER in self.finalizers


def read_identity(plugin: Mapping[str, Any]) -> Identity:
    """Read the metadata that an API server vouches for."""
    meta = plugin["metadata"]
    annotations = meta.get("annotations") or {}
    rollback = str(annotations.get(names.ROLLBACK, ""))[:MOST]
    return Identity(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation", 1),
        deleting="deletionTimestamp" in meta,
        restart=annotations.get(names.RESTARTED_AT, ""),
        source_digest=annotations.get(names.SOURCE_DIGEST, ""),
        rollback=rollback,
        manifest=manifest_digest(plugin) if read_rollback(rollback).manifest else "",
        looked_at=looked_at(meta),
        frozen=annotations.get(names.FROZEN, ""),
        finalizers=tuple(meta.get("finalizers") or ()),
        resource_version=meta.get("resourceVersion", ""),
    )


def parse_spec(spec: object) -> PluginSpec:
    """Read a spec strictly.

    Raises:
        InvalidManifest: every field that is unknown, of a wrong type, out of bounds or not supported yet.
    """
    try:
        text = encoded(spec)
    except RecursionError:
        raise InvalidManifest((Violation("spec", "is nested too deeply"),)) from None
    if len(text) > SPEC_LIMIT:
        raise InvalidManifest((Violation("spec", "is larger than 1 MiB: move files into source.path"),))
    try:
        parsed = PluginSpec.model_validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise InvalidManifest(tuple(_violation(problem) for problem in problems[:32])) from None
    refused = tuple(_not_yet(parsed, "spec"))
    if refused:
        raise InvalidManifest(refused)
    return parsed


def _violation(problem: ErrorDetails) -> Violation:
    field = field_path(("spec", *problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            return Violation(field, f"unknown field{_suggestion(problem['loc'])}")
        case "missing":
            return Violation(field, "is required")
        case _:
            return Violation(field, message[:1].lower() + message[1:])


def field_path(loc: Sequence[str | int]) -> str:
    """Return ``spec.env[0].name`` for ``("spec", "env", 0, "name")``."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path


def _suggestion(loc: tuple[str | int, ...]) -> str:
    """Offer the field a person probably meant, or list what there is."""
    model = _model_at(loc[:-1])
    if model is None:
        return ": remove it"
    known = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f": did you mean {close[0]}?" if close else f": remove it (known: {', '.join(known)})"


def _model_at(loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = PluginSpec
    for part in loc:
        if isinstance(part, int):
            continue
        field = next(
            (field for name, field in model.model_fields.items() if part in (field.alias, name)), None
        )
        inner = None if field is None else next(models(field.annotation), None)
        if inner is None:
            return None
        model = inner
    return model


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the models inside ``tuple[Model, ...]``, ``Model | None`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models(argument)


def _not_yet(part: BaseModel, path: str) -> Iterator[Violation]:
    """Find every value that this release would accept and not enforce."""
    for name, alias, marked in _fields(type(part)):
        value = getattr(part, name)
        here = f"{path}.{alias}"
        for marker in marked:
            yield from _refused(value, marker, here)
        for index, item in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(item, BaseModel):
                yield from _not_yet(item, f"{here}[{index}]" if isinstance(value, tuple) else here)


@functools.cache
def _fields(model: type[BaseModel]) -> tuple[tuple[str, str, tuple[NotYet, ...]], ...]:
    """Return the name, the name in a manifest, and the markers of each field that may hold a marked one."""
    return tuple(
        (name, field.alias or name, markers(field))
        for name, field in model.model_fields.items()
        if markers(field) or any(map(_fields, models(field.annotation)))
    )


def _refused(value: object, marker: NotYet, path: str) -> Iterator[Violation]:
    if marker.values:
        for item in value if isinstance(value, tuple) else (value,):
            if item in marker.values:
                yield Violation(path, f"{item} is not supported yet: {marker.instead}")
    elif value is not None and value != ():
        yield Violation(path, f"is not supported yet: {marker.instead}")


def markers(field: FieldInfo) -> tuple[NotYet, ...]:
    """Return the markers of a field and of the items of its list."""
    found = [entry for entry in field.metadata if isinstance(entry, NotYet)]
    for argument in getattr(field.annotation, "__args__", ()):
        found += [entry for entry in getattr(argument, "__metadata__", ()) if isinstance(entry, NotYet)]
    return tuple(found)
