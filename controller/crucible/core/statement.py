"""What every status of a Plugin shares, whatever it says."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from crucible.core.enforce import enforcement_of
from crucible.model.manifest import PluginSpec
from crucible.model.status import Condition, ControlReport, PluginStatus, SourceReport

if TYPE_CHECKING:
    from crucible.model.enforcement import Enforcement
    from crucible.model.status import Phase
    from crucible.model.world import World

Truth = Literal["True", "False", "Unknown"]
Claim = tuple[str, bool, str, str]
"""Condition type, whether it holds, reason, message."""


def status_of(world: World, phase: Phase, *claims: Claim) -> PluginStatus:
    """Build the parts of a status that every rung of the ladder shares."""
    before = {condition.type: condition for condition in world.status.conditions}
    return PluginStatus(
        observed_generation=world.identity.generation,
        phase=phase,
        conditions=tuple(_condition(world, claim, before.get(claim[0])) for claim in claims),
        runtime=world.capabilities.runtime,
        replicas=sum(instance.alive for instance in world.instances),
        attempts=attempts_of(world),
        source=world.source if isinstance(world.source, SourceReport) else world.status.source,
        history=world.status.history,
        looked_at=world.status.looked_at,
        rollback=world.status.rollback,
        answered=world.status.answered,
        thawed_at=world.status.thawed_at,
        enforcement=_reports(enforcement_of(_spec_of(world), world.capabilities)),
    )


@lru_cache(maxsize=64)
def _reports(entries: tuple[Enforcement, ...]) -> tuple[ControlReport, ...]:
    """Return what is said of controls; of all Plugins for which the same hold, the very same."""
    return tuple(
        ControlReport(control=entry.control.value, level=entry.level.value, by=entry.by) for entry in entries
    )


def of_one_reason(  # noqa: PLR0913 - one word for each condition
    world: World,
    phase: Phase,
    why: tuple[str, str],
    *,
    ready: bool = False,
    progressing: bool = False,
    degraded: bool = False,
    stalled: bool = False,
) -> PluginStatus:
    """Build a status in which every condition has the same reason and message.

    Args:
        world: what is.
        phase: in a word.
        why: reason, message.
        ready: whether that condition holds; so the others.
        progressing: the same.
        degraded: the same.
        stalled: the same.
    """
    return status_of(
        world,
        phase,
        ("Ready", ready, *why),
        ("Progressing", progressing, *why),
        ("Degraded", degraded, *why),
        ("Stalled", stalled, *why),
    )


def _spec_of(world: World) -> PluginSpec | None:
    return world.spec if isinstance(world.spec, PluginSpec) else None


def _condition(world: World, claim: Claim, before: Condition | None) -> Condition:
    kind, holds, reason, message = claim
    truth: Truth = "True" if holds else "False"
    unchanged = before is not None and before.status == truth
    return Condition(
        type=kind,
        status=truth,
        reason=reason,
        message=message[:2048],
        last_transition_time=before.last_transition_time if before is not None and unchanged else world.now,
        observed_generation=world.identity.generation,
    )


def attempts_of(world: World) -> int:
    """Return how many instances were started so far: as was said, or more if a report went missing."""
    return max([world.status.attempts, *(instance.slot.attempt for instance in world.instances)])


def said(world: World, kind: str, reason: str) -> bool:
    """Whether a condition has a reason already."""
    return any(each.type == kind and each.reason == reason for each in world.status.conditions)
