"""The one decision point: from everything that is to what should happen now."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from crucible.core import report
from crucible.core.dependencies import awaited_by, leaving_first, left_behind
from crucible.core.enforce import Refusal, refusal_of
from crucible.core.health import Asking
from crucible.core.render import render
from crucible.core.replica import Policy, supervise_replica, wind_down
from crucible.core.restart import STARTS_A_SECOND
from crucible.core.secrets import missing
from crucible.core.takeover import turn_of
from crucible.model.decision import Decision, Hold, Start
from crucible.model.manifest import PluginSpec
from crucible.model.status import Replica, SourceReport
from crucible.model.world import Waiting

if TYPE_CHECKING:
    from crucible.errors import Violation
    from crucible.model.instance import Instance
    from crucible.model.world import Reach, World

DEFAULT_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a plugin whose manifest cannot be read."""
OUTAGE_RETRY = 2.0
"""Seconds until a runtime that does not answer is looked at again."""
ENDPOINT_INTERVAL = 10.0
"""Seconds between two looks at an endpoint that someone else runs."""
SOURCE_RETRY = 30.0
"""Seconds until a source that could not be had is tried again."""


def decide(world: World) -> Decision:
    """Return what to do for one Plugin, what to say of it, and when to look again.

    A ladder of guards; the first that holds decides and names the reason. Deciding twice from the same
    world gives the same answer, and once a world is as it should be the answer holds no action.
    """
    if world.outage and (world.reach is None or world.instances):
        return _await_runtime(world)
    if world.identity.deleting:
        return _terminate(world)
    if not isinstance(world.spec, PluginSpec):
        return _refuse(world, Refusal("Invalid", "; ".join(str(violation) for violation in world.spec)))
    refusal = refusal_of(world.spec, world.capabilities)
    if refusal is not None:
        return _refuse(world, refusal)
    if not isinstance(world.source, SourceReport):
        return _await_source(world, world.source)
    if world.spec.suspend:
        return _suspend(world, world.spec)
    if world.reach is not None:
        return _attend(world, world.reach)
    absent = missing(world.spec, world.secrets)
    if absent:
        return report.without_secret(world, absent)
    return _run(world, world.spec, world.source)


def _await_runtime(world: World) -> Decision:
    """Do nothing blindly: what runs is not known, and none of it can be reached."""
    decision = report.without_runtime(world)
    return replace(decision, revisit=world.now + OUTAGE_RETRY)


def _terminate(world: World) -> Decision:
    first = leaving_first(world.identity.name, world.spec, world.around)
    if first and world.instances:
        return report.outliving(world, first)
    down = wind_down(world.instances, _grace(world), world.now)
    return Decision(
        actions=down.actions,
        status=report.terminating(world),
        events=report.bereaved(world, left_behind(world.around)),
        revisit=down.revisit,
        released=not world.instances,
    )


def _refuse(world: World, refusal: Refusal) -> Decision:
    down = wind_down(world.instances, _grace(world), world.now, world.status.attempts)
    return report.refused(world, refusal.reason, refusal.message, down)


def _await_source(world: World, why: Violation | Waiting) -> Decision:
    """Leave what runs as it is; the source may come, or come back."""
    if isinstance(why, Waiting):
        return report.fetching(world, why.message)
    decision = report.without_source(world, why)
    return replace(decision, revisit=world.now + SOURCE_RETRY)


def _attend(world: World, reach: Reach) -> Decision:
    """Look after an endpoint that someone else runs: there is nothing to start, and nothing to mend."""
    down = wind_down(world.instances, _grace(world), world.now)
    revisit = min(world.now + ENDPOINT_INTERVAL, down.revisit or math.inf)
    return replace(report.attended(world, reach, down), revisit=revisit)


def _suspend(world: World, spec: PluginSpec) -> Decision:
    down = wind_down(world.instances, spec.stop_grace, world.now, world.status.attempts)
    return report.suspended(world, down)


def _run(world: World, spec: PluginSpec, source: SourceReport) -> Decision:
    workload = render(world.identity, spec, source, world.secrets)
    if world.capabilities.asks:
        workload = replace(workload, probes=spec.health.probes)
    known = {replica.ordinal: replica for replica in world.status.instances}
    attempts = report.attempts_of(world)
    awaited = awaited_by(world.identity.name, spec, world.around.needed)
    asking = Asking(spec.health, world.streaks, elsewhere=world.capabilities.asks)
    turn = turn_of(world.instances, known, workload.revision, spec.replicas)
    verdicts = []
    for ordinal in range(spec.replicas):
        before = known.get(ordinal, Replica(ordinal=ordinal))
        policy = Policy(
            spec.recovery,
            spec.update,
            attempts + 1,
            world.now,
            turn=ordinal == turn,
            asking=asking,
            awaited=bool(awaited.words),
            crowded=world.started_lately >= STARTS_A_SECOND,
        )
        verdict = supervise_replica(before, _of(world.instances, ordinal), workload, policy)
        attempts = max(attempts, verdict.replica.attempt)
        verdicts.append(verdict)
    surplus = wind_down(
        tuple(instance for instance in world.instances if instance.slot.ordinal >= spec.replicas),
        spec.stop_grace,
        world.now,
        world.status.attempts,
    )
    supervision = report.Supervision(spec, workload.revision, tuple(verdicts), surplus, awaited)
    decision = report.supervised(world, supervision)
    starts = any(isinstance(action, Start) for action in decision.actions)
    if starts and not world.identity.held:
        return replace(decision, actions=(Hold(), *decision.actions))
    return decision


def _of(instances: tuple[Instance, ...], ordinal: int) -> tuple[Instance, ...]:
    return tuple(instance for instance in instances if instance.slot.ordinal == ordinal)


def _grace(world: World) -> float:
    return world.spec.stop_grace if isinstance(world.spec, PluginSpec) else DEFAULT_GRACE
