"""What a manifest says in one place, and in another that it can never be: each field alone is fine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.core import versions
from crucible.errors import Violation
from crucible.model.quantity import format_bytes, format_cpu, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.model.manifest import PluginSpec
    from crucible.model.probe import Probe


def violations(spec: PluginSpec) -> Iterator[Violation]:
    """Find what cannot both be meant; each names the two fields."""
    yield from _dependencies(spec)
    yield from _thresholds(spec)
    yield from _trial(spec)


def _dependencies(spec: PluginSpec) -> Iterator[Violation]:
    for index, each in enumerate(spec.dependencies):
        if versions.is_empty(each.version):
            yield Violation(
                f"spec.dependencies[{index}].version",
                f"no version is in {each.version}: {each.name} would be waited for for ever",
            )


def _thresholds(spec: PluginSpec) -> Iterator[Violation]:
    """Refuse a probe of what is used that could not fail: the plugin is held below its threshold."""
    limits = spec.resources
    for name, probe in spec.health.probes:
        if probe.resource is None:
            continue
        asked = probe.resource
        for what, threshold, limit, written in (
            ("memory", asked.memory, limits.memory, format_bytes),
            ("cpu", asked.cpu, limits.cpu, format_cpu),
            ("pids", asked.pids, limits.pids, str),
        ):
            if threshold is not None and threshold > limit:
                yield Violation(
                    f"spec.health.{name}.resource.{what}",
                    f"{written(threshold)} is more than spec.resources.{what} allows, {written(limit)}, so "
                    "the probe could not fail: write less",
                )


def _trial(spec: PluginSpec) -> Iterator[Violation]:
    """Refuse a trial that every revision would fail: it is over before its probes can have passed."""
    if not spec.update.rollback_on_failure:
        return
    for name, probe in (("startup", spec.health.startup), ("ready", spec.health.ready)):
        if probe is not None and _soonest(probe) >= spec.update.trial:
            yield Violation(
                f"spec.health.{name}",
                f"cannot pass before {format_duration(_soonest(probe))}, but spec.update.verify gives a new "
                f"revision {format_duration(spec.update.trial)}, and rollbackOnFailure would take back each: "
                "write a longer verify, or a shorter initial or interval",
            )


def _soonest(probe: Probe) -> float:
    """Return after how many seconds a probe can have passed, if it is always answered well."""
    return probe.initial + (probe.successes - 1) * probe.interval * (1 - probe.jitter)
