"""What is said of a Plugin: phase, conditions and events, each with one reason made where it was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crucible.core.enforce import accepted_gaps, enforcement_of, weaknesses
from crucible.model.decision import Decision, Event, Remove, Start
from crucible.model.health import Check
from crucible.model.instance import State
from crucible.model.manifest import PluginSpec
from crucible.model.status import (
    Condition,
    ControlReport,
    Phase,
    PluginStatus,
    Replica,
    RollbackReport,
    SourceReport,
    format_time,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crucible.core.dependencies import Awaited
    from crucible.core.verdict import Verdict
    from crucible.errors import Violation
    from crucible.model.decision import Action
    from crucible.model.status import RevisionReport
    from crucible.model.world import Reach, World

Truth = Literal["True", "False", "Unknown"]
Claim = tuple[str, bool, str, str]
"""Condition type, whether it holds, reason, message."""


@dataclass(frozen=True, slots=True)
class Supervision:
    """What was found of a Plugin whose replicas are kept running.

    Attributes:
        spec: what it asks for.
        revision: of the workload that should run.
        verdicts: one for each replica.
        surplus: instances of replicas that are wanted no more, on their way out.
        awaited: what it needs and has not.
        back: the rollback by which this is not what the manifest asks for; None: it is.
    """

    spec: PluginSpec
    revision: str
    verdicts: tuple[Verdict, ...]
    surplus: Verdict
    awaited: Awaited
    back: RollbackReport | None = None


def supervised(world: World, found: Supervision) -> Decision:
    """Report on a Plugin whose replicas are kept running."""
    spec, verdicts, surplus = found.spec, found.verdicts, found.surplus
    replicas = tuple(verdict.replica for verdict in verdicts)
    ready = sum(
        verdict.replica.ready and verdict.serving is not None and verdict.serving.state is State.RUNNING
        for verdict in verdicts
    )
    phase, reason, message = _waiting(found) or _summary(spec, verdicts, ready, surplus)
    settled = phase in {Phase.RUNNING, Phase.BACK_OFF, Phase.QUARANTINED}
    degraded = _degradation(world, found)
    failed = found.back is not None and not found.back.asked
    stalled = phase is Phase.QUARANTINED or reason == "DependencyCycle" or failed
    why = (reason, message) if found.back is None else ("RolledBack", _rollback_message(found.back))
    status = status_of(
        world,
        phase,
        ("Ready", ready == spec.replicas and phase is not Phase.STOPPING, reason, message),
        ("Progressing", not settled, reason, message),
        ("Degraded", *(degraded or (False, "AsExpected", "every control holds and nothing crashed lately"))),
        ("Stalled", stalled, *(why if failed else (reason, message))),
        # Ready alone would tell kstatus that the update is over.
        *([("Reconciling", True, reason, message)] if phase is Phase.UPDATING else []),
    ).model_copy(
        update={
            "revision": found.revision,
            "dependencies": found.awaited.reports,
            "rollback": found.back,
            "ready_replicas": ready,
            "instances": replicas,
            "attempts": max([attempts_of(world), *(replica.attempt for replica in replicas)]),
            "restarts": sum(replica.restarts for replica in replicas),
            "endpoints": tuple(
                sorted({place for one in world.instances if one.alive for place in one.endpoints})
            ),
        }
    )
    events = tuple(event for verdict in verdicts for event in verdict.events)
    if phase is Phase.WAITING and not _said(world, "Ready", reason):
        events = (*events, Event("Warning", reason, message))
    if degraded and degraded[1] == "FreezeUnavailable" and not _said(world, "Degraded", degraded[1]):
        events = (*events, Event("Warning", *degraded[1:]))
    revisits = [verdict.revisit for verdict in (*verdicts, surplus) if verdict.revisit is not None]
    actions = [*surplus.actions, *(action for verdict in verdicts for action in verdict.actions)]
    watches = tuple(watch for verdict in verdicts for watch in verdict.watches)
    return Decision(
        tuple(sorted(actions, key=_urgency)), status, events, min(revisits, default=None), watches=watches
    )


def _urgency(action: Action) -> int:
    """Make room before anything starts, for there is no more than that; clear away last."""
    match action:
        case Start():
            return 1
        case Remove():
            return 2
        case _:
            return 0


def refused(world: World, reason: str, message: str, down: Verdict) -> Decision:
    """Report on a Plugin that may not run here as it is."""
    status = status_of(
        world,
        Phase.REFUSED,
        ("Ready", False, reason, message),
        ("Progressing", any(instance.alive for instance in world.instances), reason, message),
        ("Degraded", True, reason, message),
        ("Stalled", True, reason, message),
    ).model_copy(update={"instances": _at_rest(world)})
    said = any(
        condition.type == "Stalled" and condition.reason == reason and condition.message == message[:2048]
        for condition in world.status.conditions
    )
    events = () if said else (Event("Warning", reason, message),)
    return Decision(down.actions, status, events, down.revisit)


def suspended(world: World, down: Verdict) -> Decision:
    """Report on a Plugin that a person put to rest."""
    resting = not any(instance.alive for instance in world.instances)
    message = "every instance is stopped; set spec.suspend to false to resume" if resting else "stopping"
    phase = Phase.SUSPENDED if resting else Phase.STOPPING
    status = status_of(
        world,
        phase,
        ("Ready", False, "Suspended", message),
        ("Progressing", not resting, "Suspended", message),
        ("Degraded", False, "Suspended", message),
        ("Stalled", False, "Suspended", message),
    ).model_copy(update={"instances": _at_rest(world)})
    entered = world.status.phase not in {Phase.SUSPENDED, Phase.STOPPING}
    events = (Event("Normal", "Suspended", "suspended by spec.suspend"),) if entered else ()
    return Decision(down.actions, status, events, down.revisit)


def without_source(world: World, violation: Violation) -> Decision:
    """Report on a Plugin whose files cannot be had now. What runs goes on running."""
    return _held_up(world, "SourceUnavailable", str(violation))


def without_secret(world: World, message: str) -> Decision:
    """Report on a Plugin one of whose Secrets is not there yet. What runs goes on running."""
    return _held_up(world, "SecretMissing", message)


def fetching(world: World, message: str) -> Decision:
    """Report on a Plugin whose source is on its way. What runs goes on running."""
    status = status_of(
        world,
        Phase.PENDING,
        ("Ready", False, "Pulling", message),
        ("Progressing", True, "Pulling", message),
        ("Degraded", False, "Pulling", message),
        ("Stalled", False, "Pulling", message),
    ).model_copy(update={"instances": world.status.instances})
    begun = any(condition.reason == "Pulling" for condition in world.status.conditions)
    return Decision((), status, () if begun else (Event("Normal", "Pulling", message),))


def attended(world: World, reach: Reach, down: Verdict) -> Decision:
    """Report on an endpoint that someone else runs."""
    reason = "Reachable" if reach.ok else "Unreachable"
    status = status_of(
        world,
        Phase.RUNNING if reach.ok else Phase.PENDING,
        ("Ready", reach.ok, reason, reach.message),
        ("Progressing", any(instance.alive for instance in world.instances), reason, reach.message),
        ("Degraded", not reach.ok, reason, reach.message),
        ("Stalled", False, reason, reach.message),
    ).model_copy(update={"ready_replicas": int(reach.ok)})
    said = any(condition.reason == reason for condition in world.status.conditions)
    events = () if said else (Event("Normal" if reach.ok else "Warning", reason, reach.message),)
    return Decision(down.actions, status, events)


def without_runtime(world: World) -> Decision:
    """Report on a Plugin whose runtime does not answer. What runs, if it does, goes on running."""
    return _held_up(world, "RuntimeUnavailable", world.outage)


def _held_up(world: World, reason: str, message: str) -> Decision:
    status = status_of(
        world,
        Phase.PENDING,
        ("Ready", False, reason, message),
        ("Progressing", False, reason, message),
        ("Degraded", True, reason, message),
        ("Stalled", True, reason, message),
    ).model_copy(update={"instances": world.status.instances})
    said = any(
        condition.type == "Stalled" and condition.message == status.conditions[-1].message
        for condition in world.status.conditions
    )
    return Decision((), status, () if said else (Event("Warning", reason, message),))


def terminating(world: World) -> PluginStatus:
    """Report on a Plugin that is being deleted."""
    count = len(world.instances)
    message = f"{count} instance{'' if count == 1 else 's'} left to clear away"
    return status_of(
        world,
        Phase.TERMINATING,
        ("Ready", False, "Deleting", message),
        ("Progressing", True, "Deleting", message),
        ("Degraded", False, "Deleting", message),
        ("Stalled", False, "Deleting", message),
    )


def _summary(
    spec: PluginSpec, verdicts: Sequence[Verdict], ready: int, surplus: Verdict
) -> tuple[Phase, str, str]:
    """Return phase, reason and message of the replica that most needs attention."""
    replicas = [verdict.replica for verdict in verdicts]
    for replica in sorted(replicas, key=lambda each: bool(each.incumbent)):
        if replica.quarantined:
            return Phase.QUARANTINED, _given_up(replica), _quarantine_message(replica)
    for replica in replicas:
        if replica.next_start is not None and not replica.incumbent:
            return Phase.BACK_OFF, "BackOff", _back_off_message(replica)
    state = "ready" if spec.health.ready or spec.health.startup else "running"
    count = f"{ready} of {spec.replicas} replica{'' if spec.replicas == 1 else 's'} {state}"
    if (
        any(replica.state == State.STOPPING.value for replica in replicas)
        or surplus.revisit
        or surplus.actions
    ):
        return Phase.STOPPING, "Replacing", f"{count}; instances of another revision or replica are stopping"
    if ready < spec.replicas:
        return _unready(verdicts, count)
    updating = sum(verdict.updating for verdict in verdicts)
    if updating:
        return Phase.UPDATING, "Updating", f"{count}; {updating} to be replaced by the new revision"
    return Phase.RUNNING, "Running", count


def _unready(verdicts: Sequence[Verdict], count: str) -> tuple[Phase, str, str]:
    """Tell those that lost their readiness from those that have not come to it yet."""
    lost = _lost_readiness(verdicts)
    if lost:
        return Phase.RUNNING, "NotReady", f"{count}; {lost}"
    for verdict in verdicts:
        for probe in verdict.replica.probes:
            if not probe.passing and probe.message:
                what = f"{verdict.replica.name} waits for its {probe.check.value} probe: {probe.message}"
                return Phase.STARTING, "Starting", f"{count}; {what}"
    return Phase.STARTING, "Starting", count


def _lost_readiness(verdicts: Sequence[Verdict]) -> str:
    """Say which replica fails its ready probe, and what that says; empty where none does."""
    for verdict in verdicts:
        for probe in verdict.replica.probes:
            if probe.check is Check.READY and probe.passing is False and not verdict.replica.incumbent:
                return f"{verdict.replica.name} is not ready: {probe.message}"
    return ""


def _given_up(replica: Replica) -> str:
    return "UpdateFailed" if replica.incumbent else "CrashLoop"


def _subject(replica: Replica) -> str:
    return f"{'the new revision of ' if replica.incumbent else ''}replica {replica.ordinal}"


def _comfort(replica: Replica) -> str:
    return f"; {replica.incumbent} of the revision before keeps serving" if replica.incumbent else ""


def _quarantine_message(replica: Replica) -> str:
    last = replica.last_exit.message if replica.last_exit else "ended"
    return (
        f"{_subject(replica)} ended {len(replica.crashes)} times within the recovery window, "
        f"the last time it {last}{_comfort(replica)}; "
        "mend the plugin and apply it again, or run 'crucible restart'"
    )


def _back_off_message(replica: Replica) -> str:
    last = replica.last_exit.message if replica.last_exit else "ended"
    again = f" at {format_time(replica.next_start)}" if replica.next_start is not None else ""
    return (
        f"{_subject(replica)} {last}; crash {len(replica.crashes)}, started again{again}{_comfort(replica)}"
    )


def taken_back(world: World, decision: Decision, target: RevisionReport, why: str) -> Decision:
    """Report that a revision failed, and that another is to run in its place from the next turn on.

    Nothing is started or stopped before that is on record.
    """
    failed = world.status.history[-1].revision
    back = RollbackReport(failed=failed, revision=target.revision, message=why[:1024])
    event = Event("Warning", "RolledBack", _rollback_message(back))
    status = decision.status.model_copy(update={"rollback": back})
    return Decision((), status, (*decision.events, event), world.now, watches=decision.watches)


def _rollback_message(back: RollbackReport) -> str:
    return (
        f"revision {back.failed} was taken back: {back.message}; {back.revision} runs in its place; "
        "mend the plugin and apply it again, or run 'crucible restart' to try it once more"
    )


def hook_failed(name: str, why: str) -> Event:
    """Say that an instance was asked to end although its hook did not do its part."""
    return Event("Warning", "PreStopFailed", f"the preStop hook of {name} {why}")


def config_taken(name: str) -> Event:
    """Say that an instance on the bus took a new configuration."""
    return Event("Normal", "Configured", f"{name} took its new configuration")


def config_not_taken(name: str, why: str) -> Event:
    """Say that an instance on the bus is replaced because it did not take a new configuration."""
    words = f"{name} did not take its new configuration, and is replaced: {why}"
    return Event("Warning", "ConfigNotTaken", words)


def _waiting(found: Supervision) -> tuple[Phase, str, str] | None:
    """Say whom it waits for, where one of its replicas does not run for that."""
    if found.awaited.reason and any(
        verdict.serving is None and not verdict.replica.quarantined for verdict in found.verdicts
    ):
        return Phase.WAITING, found.awaited.reason, found.awaited.words[:2048]
    return None


def _said(world: World, kind: str, reason: str) -> bool:
    return any(each.type == kind and each.reason == reason for each in world.status.conditions)


def outliving(world: World, first: tuple[str, ...]) -> Decision:
    """Report on a Plugin that is being deleted, and goes on until those that need it are gone."""
    message = f"goes after {', '.join(first)}, which need it and are being deleted too"
    status = status_of(
        world,
        Phase.TERMINATING,
        ("Ready", False, "Deleting", message),
        ("Progressing", True, "Deleting", message),
        ("Degraded", False, "Deleting", message),
        ("Stalled", False, "Deleting", message),
    ).model_copy(update={"instances": world.status.instances})
    return Decision((), status)


def bereaved(world: World, left: tuple[str, ...]) -> tuple[Event, ...]:
    """Say once who needs a Plugin that is being deleted all the same."""
    if not left or world.status.phase is Phase.TERMINATING:
        return ()
    return (Event("Warning", "StillNeeded", f"{', '.join(left)} need it and stay: they will wait for it"),)


def _degradation(world: World, found: Supervision) -> tuple[bool, str, str] | None:
    """Return the most pressing thing that is not as it should be although the plugin may run."""
    ending = _ending(found.verdicts)
    if ending is not None:
        return True, *ending
    lost = _lost_readiness(found.verdicts)
    if lost:
        return True, "NotReady", lost
    if found.back is not None and not found.back.asked:
        return True, "RolledBack", _rollback_message(found.back)
    if found.awaited.reason:
        return True, found.awaited.reason, found.awaited.words[:2048]
    for verdict in found.verdicts:
        if verdict.serving is not None and verdict.serving.notices:
            return True, "Limited", f"{verdict.serving.name}: {'; '.join(verdict.serving.notices)}"
    if world.identity.frozen and world.capabilities.no_freezer:
        return True, "FreezeUnavailable", world.capabilities.no_freezer
    if world.notices:
        return True, "Limited", "; ".join(world.notices)
    weak = accepted_gaps(found.spec, world.capabilities)
    return (True, "WeakerThanPromised", weaknesses(weak)) if weak else None


def _ending(verdicts: Sequence[Verdict]) -> tuple[str, str] | None:
    """Return reason and message of the first replica that ends by itself again and again."""
    for verdict in verdicts:
        replica = verdict.replica
        if replica.quarantined:
            return _given_up(replica), _quarantine_message(replica)
        if replica.incumbent and replica.crashes:
            return "UpdateFailing", _back_off_message(replica)
        if replica.next_start is not None:
            return "BackOff", _back_off_message(replica)
    return None


def attempts_of(world: World) -> int:
    """Return how many instances were started so far: as was said, or more if a report went missing."""
    return max([world.status.attempts, *(instance.slot.attempt for instance in world.instances)])


def _at_rest(world: World) -> tuple[Replica, ...]:
    """Say of every replica that has something left that it comes to rest."""
    return tuple(
        Replica(
            ordinal=ordinal,
            attempt=max(item.slot.attempt for item in world.instances if item.slot.ordinal == ordinal),
            state=State.STOPPING.value,
        )
        for ordinal in sorted({item.slot.ordinal for item in world.instances})
    )


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
        rollback=world.status.rollback,
        thawed_at=world.status.thawed_at,
        enforcement=tuple(
            ControlReport(control=entry.control.value, level=entry.level.value, by=entry.by)
            for entry in enforcement_of(_spec_of(world), world.capabilities)
        ),
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
