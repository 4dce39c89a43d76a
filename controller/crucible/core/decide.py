"""The one decision point: from everything that is to what should happen now."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from crucible.core import report, standstill
from crucible.core.dependencies import awaited_by, leaving_first, left_behind
from crucible.core.draining import with_drain
from crucible.core.ending import wind_down
from crucible.core.enforce import Refusal, refusal_of
from crucible.core.freezing import hold_still, still_wanted, thaw
from crucible.core.handover import with_route
from crucible.core.health import Asking
from crucible.core.history import approve, is_good, last_good, remember, rollback_of
from crucible.core.hooks import with_hooks
from crucible.core.render import render
from crucible.core.replica import supervise_replica
from crucible.core.restart import STARTS_A_SECOND
from crucible.core.secrets import missing
from crucible.core.statement import attempts_of
from crucible.core.takeover import turns_of
from crucible.core.verdict import Policy
from crucible.model.decision import Decision, Forget, Hold, Remember, Start
from crucible.model.manifest import PluginSpec, Strategy
from crucible.model.revision import Revision, revision_name
from crucible.model.status import Phase, Replica, RevisionReport, SourceReport
from crucible.model.world import Waiting

if TYPE_CHECKING:
    from crucible.errors import Violation
    from crucible.model.instance import Instance
    from crucible.model.status import PluginStatus, RollbackReport
    from crucible.model.workload import Workload
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
    """Return what to do for one Plugin, what to say of it, and when to look again."""
    return with_hooks(world, with_route(world, with_drain(world, _decide(world))))


def _decide(world: World) -> Decision:
    """Go down the ladder.

    A ladder of guards; the first that holds decides and names the reason. Deciding twice from the same
    world gives the same answer, and once a world is as it should be the answer holds no action.
    """
    if world.outage and (world.reach is None or world.instances):
        return _await_runtime(world)
    spec = _admitted(world)
    still = isinstance(spec, PluginSpec) and still_wanted(world, spec)
    if not still and any(instance.frozen for instance in world.instances if instance.alive):
        return thaw(world)
    if world.identity.deleting:
        return _terminate(world)
    if isinstance(spec, Refusal):
        return _refuse(world, spec)
    if still:
        return _looked_at(world, spec, hold_still(world, spec))
    if not isinstance(world.source, SourceReport):
        return _await_source(world, world.source)
    if spec.suspend:
        return _looked_at(world, spec, _suspend(world, spec))
    if world.reach is not None:
        return _attend(world, world.reach)
    absent = missing(spec, world.secrets)
    if absent:
        return standstill.without_secret(world, absent)
    return _run(world, spec, world.source)


def _admitted(world: World) -> PluginSpec | Refusal:
    """Return what the Plugin asks for, or why it may not run here."""
    if not isinstance(world.spec, PluginSpec):
        return Refusal("Invalid", "; ".join(str(violation) for violation in world.spec))
    return refusal_of(world.spec, world.capabilities) or world.spec


def _await_runtime(world: World) -> Decision:
    """Do nothing blindly: what runs is not known, and none of it can be reached."""
    decision = standstill.without_runtime(world)
    return replace(decision, revisit=world.now + OUTAGE_RETRY)


def _terminate(world: World) -> Decision:
    first = leaving_first(world.identity.name, world.spec, world.around)
    if first and world.instances:
        return standstill.outliving(world, first)
    down = wind_down(world.instances, _grace(world), world.now)
    return Decision(
        actions=down.actions,
        status=standstill.terminating(world),
        events=standstill.bereaved(world, left_behind(world.around)),
        revisit=down.revisit,
        released=not world.instances,
    )


def _refuse(world: World, refusal: Refusal) -> Decision:
    down = wind_down(world.instances, _grace(world), world.now, world.status.attempts)
    return standstill.refused(world, refusal.reason, refusal.message, down)


def _await_source(world: World, why: Violation | Waiting) -> Decision:
    """Leave what runs as it is; the source may come, or come back."""
    if isinstance(why, Waiting):
        return standstill.fetching(world, why.message)
    decision = standstill.without_source(world, why)
    return replace(decision, revisit=world.now + SOURCE_RETRY)


def _attend(world: World, reach: Reach) -> Decision:
    """Look after an endpoint that someone else runs: there is nothing to start, and nothing to mend."""
    down = wind_down(world.instances, _grace(world), world.now)
    revisit = min(world.now + ENDPOINT_INTERVAL, down.revisit or math.inf)
    return replace(standstill.attended(world, reach, down), revisit=revisit)


def _looked_at(world: World, spec: PluginSpec, decision: Decision) -> Decision:
    """Note that what is held still or suspended asks for the revision it asked for before, if it does."""
    source, history = world.source, world.status.history
    if decision.status.looked_at == world.identity.looked_at or not history:
        return decision
    if not isinstance(source, SourceReport) or missing(spec, world.secrets):
        return decision
    if _workload(world, spec, source).revision != history[-1].revision:
        return decision
    status = decision.status.model_copy(update={"looked_at": world.identity.looked_at})
    return replace(decision, status=status)


def _suspend(world: World, spec: PluginSpec) -> Decision:
    down = wind_down(world.instances, spec.stop_grace, world.now, world.status.attempts)
    return standstill.suspended(world, down)


def _run(world: World, spec: PluginSpec, source: SourceReport) -> Decision:
    """Keep running what the manifest asks for, or the revision that runs in its place."""
    wanted = _workload(world, spec, source)
    answer = rollback_of(world.identity, world.status, wanted.revision)
    back, running = answer.rollback, answer.rollback.revision if answer.rollback is not None else ""
    entry = _entry(world, spec, wanted)
    remembered = remember(world.status.history, entry, spec.revision_history_limit, running)
    found = world.recalled.get(running)
    unfit = _unfit(world, found) if back is not None else ""
    if back is not None and found is not None and not unfit:
        kept = found.spec.model_copy(update={"replicas": spec.replicas, "update": spec.update})
        then = replace(world, identity=replace(world.identity, restart=found.restart))
        decision = _supervise(world, kept, _workload(then, kept, found.source), back)
    else:
        decision = _supervise(world, spec, wanted, None)
    decision = report.answered(world, decision, answer.refused or unfit)
    status = decision.status
    history = remembered.history
    revisit = decision.revisit
    if status.rollback is None and status.phase is Phase.RUNNING and status.replicas == status.ready_replicas:
        due = _proven_at(status, spec)
        if due <= world.now:
            history = approve(history, wanted.revision)
        elif math.isfinite(due) and not is_good(history, wanted.revision):
            revisit = min(revisit or math.inf, due)
    snapshot = _snapshot(world, spec, source, wanted.revision)
    keeping = (
        *((Remember(snapshot),) if remembered.new else ()),
        *(Forget(revision_name(world.identity.name, each.revision)) for each in remembered.forgotten),
    )
    status = status.model_copy(update={"history": history, "looked_at": world.identity.looked_at})
    return replace(decision, status=status, keeping=keeping, revisit=revisit)


def _unfit(world: World, found: Revision | None) -> str:
    """Return why an earlier revision cannot run here now."""
    if found is None:
        return "that revision is not kept whole any more: see 'crucible history'"
    refusal = refusal_of(found.spec, world.capabilities)
    return "" if refusal is None else f"that revision may not run here now: {refusal.message}"


def _proven_at(status: PluginStatus, spec: PluginSpec) -> float:
    """Return when a revision counts as good: at once, but after a while where it may be taken back."""
    careful = spec.update.rollback_on_failure or Strategy.ROLLBACK in spec.recovery.strategy
    since = [replica.ready_since or math.inf for replica in status.instances]
    return max(since, default=math.inf) + (spec.update.verification if careful else 0.0)


def _workload(world: World, spec: PluginSpec, source: SourceReport) -> Workload:
    workload = render(world.identity, spec, source, world.secrets)
    if not world.capabilities.asks:
        return workload
    asked = tuple(
        (name, probe) for name, probe in spec.health.probes if probe.kind in world.capabilities.asks
    )
    return replace(workload, probes=asked, pre_stop=spec.lifecycle.pre_stop)


def _entry(world: World, spec: PluginSpec, wanted: Workload) -> RevisionReport:
    return RevisionReport(
        number=0, revision=wanted.revision, version=spec.version, at=world.now, source=wanted.source
    )


def _snapshot(world: World, spec: PluginSpec, source: SourceReport, revision: str) -> Revision:
    name = revision_name(world.identity.name, revision)
    return Revision(name, revision, spec, source, world.identity.restart)


def _supervise(world: World, spec: PluginSpec, workload: Workload, back: RollbackReport | None) -> Decision:
    """Keep one workload running in every replica."""
    known = {replica.ordinal: replica for replica in world.status.instances}
    attempts = attempts_of(world)
    turns = turns_of(world.instances, known, workload.revision, spec, world.now)
    awaited = awaited_by(world.identity.name, spec, world.around.needed)
    policy = _policy(world, spec, workload.revision, back)
    verdicts = []
    for ordinal in range(spec.replicas):
        before = known.get(ordinal, Replica(ordinal=ordinal))
        own = replace(
            policy,
            attempt=attempts + 1,
            beside=ordinal in turns.beside,
            instead=ordinal in turns.instead and not awaited.words,
            awaited=bool(awaited.words),
        )
        verdict = supervise_replica(before, _of(world.instances, ordinal), workload, own)
        attempts = max(attempts, verdict.replica.attempt)
        verdicts.append(verdict)
    surplus = wind_down(
        tuple(instance for instance in world.instances if instance.slot.ordinal >= spec.replicas),
        spec.stop_grace,
        world.now,
        world.status.attempts,
    )
    supervision = report.Supervision(spec, workload.revision, tuple(verdicts), surplus, awaited, back)
    decision = report.supervised(world, supervision)
    if turns.held_up:
        due = world.now if _news(world, decision.status) else turns.due
        decision = replace(decision, revisit=min(decision.revisit or math.inf, due or math.inf))
    gave_up = next((verdict.gave_up for verdict in verdicts if verdict.gave_up), "")
    target = last_good(world.status.history, workload.revision)
    if gave_up and target is not None:
        return report.taken_back(world, decision, target, gave_up)
    starts = any(isinstance(action, Start) for action in decision.actions)
    if starts and not world.identity.held:
        return replace(decision, actions=(Hold(), *decision.actions))
    return decision


def _news(world: World, status: PluginStatus) -> bool:
    """Whether replicas stand elsewhere than was said, so that the turn of others may have come."""
    before, after = (
        [(each.name, each.ready_since is None) for each in said.instances] for said in (world.status, status)
    )
    return before != after


def _policy(world: World, spec: PluginSpec, revision: str, back: RollbackReport | None) -> Policy:
    """Return what every replica's ladder goes by; one that was taken back is not taken back further."""
    history = world.status.history
    fallback = back is None and last_good(history, revision) is not None
    on_trial = fallback and spec.update.rollback_on_failure and not is_good(history, revision)
    return Policy(
        spec.recovery,
        spec.update,
        0,
        world.now,
        asking=Asking(spec.health, world.streaks, elsewhere=world.capabilities.asks),
        crowded=world.started_lately >= STARTS_A_SECOND,
        thawed=world.status.thawed_at or 0.0,
        fallback=fallback,
        trial=spec.update.trial if on_trial else None,
    )


def _of(instances: tuple[Instance, ...], ordinal: int) -> tuple[Instance, ...]:
    return tuple(instance for instance in instances if instance.slot.ordinal == ordinal)


def _grace(world: World) -> float:
    return world.spec.stop_grace if isinstance(world.spec, PluginSpec) else DEFAULT_GRACE
