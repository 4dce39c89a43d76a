"""What is said of a Plugin that is kept running: phase, conditions and events, each with one reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crucible.core.enforce import accepted_gaps, weaknesses
from crucible.core.statement import attempts_of, said, status_of
from crucible.model.decision import Decision, Event, Remove, Start
from crucible.model.health import Check
from crucible.model.instance import State
from crucible.model.status import (
    Phase,
    Replica,
    RollbackReport,
    format_time,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crucible.core.dependencies import Awaited
    from crucible.core.verdict import Verdict
    from crucible.model.decision import Action
    from crucible.model.manifest import PluginSpec
    from crucible.model.status import RevisionReport
    from crucible.model.world import World


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
        ("Degraded", *(degraded or (False, "AsExpected", _all_well(replicas)))),
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
    if phase is Phase.WAITING and not said(world, "Ready", reason):
        events = (*events, Event("Warning", reason, message))
    if degraded and degraded[1] == "FreezeUnavailable" and not said(world, "Degraded", degraded[1]):
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


def answered(world: World, decision: Decision, refused: str) -> Decision:
    """Note what a person asked to go back to, and say once if that is not done."""
    if world.identity.rollback == world.status.answered:
        return decision
    status = decision.status.model_copy(update={"answered": world.identity.rollback})
    said = (Event("Warning", "RollbackRefused", f"not rolled back: {refused}"),) if refused else ()
    return replace(decision, status=status, events=(*decision.events, *said))


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


def _all_well(replicas: Sequence[Replica]) -> str:
    """Say that nothing is wrong now, and what was lately."""
    crashed = next((replica for replica in replicas if replica.crashes), None)
    if crashed is None:
        return "every control holds and nothing crashed lately"
    times = len(crashed.crashes)
    count = f"ended {times} time{'' if times == 1 else 's'} within the recovery window"
    return f"every control holds; {_subject(crashed)} {count}"


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
    if world.lacks:
        return True, "CompanionFailed", "; ".join(world.lacks)
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
