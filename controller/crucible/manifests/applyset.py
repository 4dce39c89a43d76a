"""What a folder of manifests asks of the control plane: which objects to apply, which to remove.

Pure. Everything the folder brought carries two marks: the label of its set, as Kubernetes' ApplySets do, and
the file it came from. So what a file that is broken now once gave is known without any memory of our own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.manifests.resources import RESOURCES, Resource
from crucible.manifests.wanted import Wanted, given_twice, wanted_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from crucible.errors import Violation
    from crucible.manifests.folder import Content

PART_OF: Final = "applyset.kubernetes.io/part-of"
"""Label: the set that an object belongs to."""
ORIGIN: Final = "config.kubernetes.io/origin"
"""Annotation: the file that an object came from, ``path: FILE``, as kustomize writes it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, read and checked.

    Attributes:
        name: its path relative to the folder.
        wanted: what it asks for; nothing where anything is wrong with it.
        problems: what is wrong: file, line, field and fix.
    """

    name: str
    wanted: tuple[Wanted, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """An object of the set, as the control plane has it.

    Attributes:
        resource: its kind.
        path: where it lives in the API.
        namespace: where it belongs; empty for what lives in none.
        name: its name.
        uid: of this very object.
        shape: changes whenever a person changes what is desired; never with its status.
        origin: the file it came from; None where that was removed from it.
        leaving: it is being deleted.
    """

    resource: Resource
    path: str
    namespace: str
    name: str
    uid: str
    shape: str
    origin: str | None
    leaving: bool = False

    @property
    def label(self) -> str:
        """``plugin.crucible.dev/name``, as output names it."""
        return f"{self.resource.label}/{self.name}"


@dataclass(frozen=True, slots=True)
class Mark:
    """What was applied, and the shape that the object had then."""

    sent: str
    shape: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do.

    Attributes:
        apply: in this order; each with the name of its file.
        refused: what is wrong with files, a line each.
        held: files of which something was refused: what they gave before stays.
    """

    apply: tuple[tuple[str, Wanted], ...]
    refused: tuple[str, ...]
    held: frozenset[str]


def source_of(content: Content, default: str, part_of: str) -> Source:
    """Read and check one file. Its plugins' own folders are read too, for the digest of what is in them."""
    if content.data is None:
        return Source(content.name, (), (content.problem,))
    wanted, problems = wanted_of(content.data, content.path, None, default)
    if problems:
        return Source(content.name, (), tuple(str(problem) for problem in problems))
    return Source(content.name, tuple(_marked(each, part_of, content.name) for each in wanted))


def _marked(wanted: Wanted, part_of: str, name: str) -> Wanted:
    meta = wanted.body["metadata"]
    marks = {
        "labels": {**(meta.get("labels") or {}), PART_OF: part_of},
        "annotations": {**(meta.get("annotations") or {}), ORIGIN: f"path: {name}\n"},
    }
    return wanted.with_body({**wanted.body, "metadata": {**meta, **marks}})


def member_of(resource: Resource, found: Mapping[str, Any]) -> Member:
    """Return what matters here of an object that the control plane listed."""
    meta = found["metadata"]
    origin = (meta.get("annotations") or {}).get(ORIGIN)
    return Member(
        resource=resource,
        path=resource.path(meta.get("namespace", ""), meta["name"]),
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        uid=meta["uid"],
        shape=shape_of(found),
        origin=None if origin is None else origin.removeprefix("path:").strip(),
        leaving="deletionTimestamp" in meta,
    )


def shape_of(found: Mapping[str, Any]) -> str:
    """Return what changes with every change of what is desired of an object."""
    meta = found["metadata"]
    version = meta.get("generation") or meta.get("resourceVersion")
    return _digest([meta["uid"], version, meta.get("labels"), meta.get("annotations")])


def mark_of(wanted: Wanted, answer: Mapping[str, Any]) -> Mark:
    """Return the mark of an object that was applied just now."""
    return Mark(_digest(wanted.body), shape_of(answer))


def plan(sources: Sequence[Source], members: Mapping[str, Member], marks: Mapping[str, Mark]) -> Plan:
    """Return what to apply: all that is new, was changed in the folder, or was changed by someone else.

    Args:
        sources: the files of the folder, in order; of two that hold the same object the first counts.
        members: the objects of the set, by path.
        marks: what was applied before, by path.
    """
    refused = [problem for source in sources for problem in source.problems]
    held = {source.name for source in sources if source.problems}
    chosen: dict[str, tuple[str, Wanted]] = {}
    for source in sources:
        for wanted in source.wanted:
            if wanted.path in chosen:
                refused += [str(twice) for twice in given_twice([chosen[wanted.path][1], wanted])]
                held.add(source.name)
            else:
                chosen[wanted.path] = (source.name, wanted)
    due = [
        (name, wanted)
        for path, (name, wanted) in chosen.items()
        if _is_due(wanted, members.get(path), marks.get(path))
    ]
    due.sort(key=lambda entry: RESOURCES.index(entry[1].resource))
    return Plan(tuple(due), tuple(refused), frozenset(held))


def _is_due(wanted: Wanted, member: Member | None, mark: Mark | None) -> bool:
    if member is None or mark is None:
        return True
    return not member.leaving and mark != Mark(_digest(wanted.body), member.shape)


def leftovers(
    sources: Iterable[Source], members: Mapping[str, Member], held: Collection[str]
) -> tuple[Member, ...]:
    """Return what to remove: objects of the set that no file holds any more; dependents before namespaces.

    What a held file gave stays. A held file that gave nothing yet may be one that was renamed and broken at
    once: as long as there is one, what files gave that are gone now stays too.
    """
    files = list(sources)
    wanted = {each.path for source in files for each in source.wanted}
    present = {source.name for source in files}
    unknown = set(held) - {member.origin for member in members.values()}

    def stays(member: Member) -> bool:
        if member.leaving or member.path in wanted or member.origin in held:
            return True
        return (bool(unknown) and member.origin not in present) or (bool(held) and member.origin is None)

    gone = [member for path, member in sorted(members.items()) if not stays(member)]
    return tuple(sorted(gone, key=lambda member: -RESOURCES.index(member.resource)))


def refusal_of(wanted: Wanted, violations: Sequence[Violation]) -> tuple[str, ...]:
    """Return a line for each thing that the control plane has against an object."""
    return tuple(f"{wanted.place}: {wanted.label}: {violation}" for violation in violations)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
