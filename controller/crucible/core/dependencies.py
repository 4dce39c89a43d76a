"""Which other Plugins one waits for, and which wait for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.core.versions import fits
from crucible.model.manifest import PluginSpec
from crucible.model.status import DependencyReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.manifest import Dependency
    from crucible.model.neighbour import Around, Neighbour


def resolve(spec: PluginSpec, around: Mapping[str, Neighbour]) -> tuple[DependencyReport, ...]:
    """Say of each dependency what there is: its version, whether it can be used, and why not."""
    return tuple(_report(wanted, around.get(wanted.name)) for wanted in spec.dependencies)


def _report(wanted: Dependency, found: Neighbour | None) -> DependencyReport:
    if found is None:
        problem = "is not there"
    elif found.deleting:
        problem = "is being deleted"
    elif not fits(found.version, wanted.version):
        problem = f"is version {found.version}, and {wanted.version} is needed"
    elif not found.ready:
        problem = f"is not ready: {found.message}"[:512] if found.message else "is not ready"
    else:
        problem = ""
    return DependencyReport(
        name=wanted.name,
        version=found.version if found is not None else "",
        fits=not problem,
        optional=wanted.optional,
        message=problem,
    )


@dataclass(frozen=True, slots=True)
class Awaited:
    """Whom a Plugin waits for.

    Attributes:
        reason: one CamelCase word; empty when it can start.
        words: whom, and why, for people.
        reports: what there is of each dependency.
    """

    reason: str = ""
    words: str = ""
    reports: tuple[DependencyReport, ...] = ()


def awaited_by(name: str, spec: PluginSpec, around: Mapping[str, Neighbour]) -> Awaited:
    """Return whom a Plugin waits for before it starts.

    Args:
        name: its own.
        spec: what it asks for.
        around: what it needs, and what that needs in turn.
    """
    reports = resolve(spec, around)
    way = cycle_of(name, spec, around)
    if way:
        words = f"spec.dependencies: {' needs '.join(way)}: none of them can be first; remove one dependency"
        return Awaited("DependencyCycle", words, reports)
    words = "; ".join(
        f"{report.name} {report.message}" for report in reports if not report.fits and not report.optional
    )
    return Awaited("WaitingForDependency" if words else "", words and f"waits: {words}", reports)


def cycle_of(name: str, spec: PluginSpec, around: Mapping[str, Neighbour]) -> tuple[str, ...]:
    """Return the names on a way from a Plugin back to itself, its own first and last; empty where none leads.

    Optional dependencies lead nowhere: nobody waits for them.
    """
    ways: list[tuple[str, ...]] = [(name, wanted.name) for wanted in spec.dependencies if not wanted.optional]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        if way[-1] == name:
            return way
        if way[-1] in seen or way[-1] not in around:
            continue
        seen.add(way[-1])
        ways += [(*way, further) for further in around[way[-1]].needs]
    return ()


def leaving_first(name: str, spec: object, around: Around) -> tuple[str, ...]:
    """Return those that are being deleted too and still run: they go before what they need.

    Of those that need each other none can go first, so none waits.
    """
    if isinstance(spec, PluginSpec) and cycle_of(name, spec, around.needed):
        return ()
    return tuple(each.name for each in around.needed_by if each.deleting and each.instances)


def left_behind(around: Around) -> tuple[str, ...]:
    """Return those that stay although what they cannot do without goes."""
    return tuple(each.name for each in around.needed_by if not each.deleting)
