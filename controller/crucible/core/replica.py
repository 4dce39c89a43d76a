"""One replica's ladder: what ended, what runs, what has to start or stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crucible.core import restart
from crucible.core.ending import absorb, outdated, wind_down
from crucible.core.health import examine
from crucible.core.takeover import newest_of, overlap_of
from crucible.core.verdict import Verdict
from crucible.model.decision import Deliver, Event, Start
from crucible.model.instance import State
from crucible.model.status import Replica
from crucible.model.workload import Slot, config_digest

if TYPE_CHECKING:
    from crucible.core.health import Asking, Wellbeing
    from crucible.core.verdict import Policy
    from crucible.model.health import Watch
    from crucible.model.instance import Instance
    from crucible.model.workload import Workload

_ASK_AGAIN: Final = 1.0
"""Seconds until one that could not be called to hand it its configuration is called again."""


def supervise_replica(
    before: Replica,
    instances: tuple[Instance, ...],
    workload: Workload,
    policy: Policy,
) -> Verdict:
    """Keep one instance of the workload running for one replica.

    Args:
        before: what was last said of it.
        instances: all of this replica, oldest first.
        workload: what should run.
        policy: what to do when it ends by itself.
    """
    revision, now = workload.revision, policy.now
    known = before if before.revision == revision else _fresh(before, revision)
    replica, events = absorb(known, instances, policy)
    replica = restart.not_ahead(replica, now)
    fit = tuple(each for each in instances if each.slot.attempt != before.condemned)
    newcomer = newest_of(fit, revision)
    if newcomer is not None:
        replica, said, watches = _look_after(replica, newcomer, policy)
        events = (*events, *said)
    else:
        watches = ()
    since = replica.ready_since if newcomer is not None else None
    overlap = overlap_of(fit, newcomer, since, policy)
    incumbent = overlap.incumbent
    replica = _serving(replica, before, incumbent, policy.asking)
    rest = wind_down(
        tuple(each for each in instances if each.alive and each not in {newcomer, incumbent}),
        workload.grace,
        now,
    )
    if newcomer is not None:
        verdict = _deliver(replica, newcomer, workload, now)
    elif overlap.may_start and not any(each.alive and each not in fit for each in instances):
        verdict = _start_again(replica, workload, policy, any(not each.alive for each in instances))
    else:
        verdict = Verdict(_held_back(replica, incumbent, now))
    gave_up, due = _trial(verdict, newcomer, policy)
    serving = incumbent or newcomer
    unsaid = serving is not None and replica.last_exit != before.last_exit
    doomed = replica.condemned != before.condemned
    lapse = restart.lapse(replica.crashes, policy.recovery) if replica.running_since is not None else None
    revisits = (verdict.revisit, overlap.due, rest.revisit, due, lapse, now if unsaid or doomed else None)
    return Verdict(
        verdict.replica,
        (*rest.actions, *verdict.actions, *outdated(instances, before, newest_too=verdict.clearing)),
        (*events, *verdict.events),
        min((at for at in revisits if at is not None), default=None),
        serving,
        updating=any(each.alive and each.revision != revision for each in instances),
        watches=watches,
        gave_up=gave_up,
    )


def _deliver(replica: Replica, newcomer: Instance, workload: Workload, now: float) -> Verdict:
    """Hand the wanted instance the configuration of the manifest, where it takes that while it runs."""
    given = newcomer.config == config_digest(workload.config)
    if not workload.live_config or given or newcomer.state is not State.RUNNING:
        return Verdict(replica)
    action = Deliver(newcomer.slot, workload.config, workload.delivery)
    if action.how == "bus":  # whether it takes it is told when it has said so
        return Verdict(replica, (action,), revisit=now + _ASK_AGAIN)
    words = (
        f"{newcomer.name} was given its new configuration{', and SIGHUP' if action.how == 'signal' else ''}"
    )
    return Verdict(replica, (action,), (Event("Normal", "Configured", words),))


def _trial(verdict: Verdict, newcomer: Instance | None, policy: Policy) -> tuple[str, float | None]:
    """Return why the wanted revision fails its trial, and when to look at that again."""
    replica = verdict.replica
    if verdict.gave_up or policy.trial is None:
        return verdict.gave_up, None
    if newcomer is None or replica.ready_since is not None:
        return "", None
    due = max(newcomer.created_at, policy.thawed) + policy.trial
    if policy.now < due:
        return "", due
    return f"{newcomer.name} was not ready within {policy.trial:g} s", None


def _look_after(
    replica: Replica, newcomer: Instance, policy: Policy
) -> tuple[Replica, tuple[Event, ...], tuple[Watch, ...]]:
    """Describe the wanted instance, and condemn it where its probes say so.

    A condemned instance is stopped at the next turn, when that is on record: a controller that dies in
    between counts its end as the failure that it was.
    """
    known = replica
    replica = _describe(replica, newcomer, policy.now)
    if newcomer.state is State.RUNNING:
        counted = restart.recent(replica.crashes, policy.recovery, policy.now)
        replica = replica.model_copy(update={"crashes": counted})
    well = examine(newcomer, known, replica.running_since or policy.now, policy.asking)
    since = (replica.ready_since or policy.now) if well.ready else None
    replica = replica.model_copy(update={"ready": well.ready, "ready_since": since, "probes": well.probes})
    if not well.failed or policy.awaited:
        return replica, _turned(known, newcomer, well, policy.asking), well.watches
    condemned = {
        "condemned": newcomer.slot.attempt,
        "condemned_because": well.failed,
        "crashes": (*restart.recent(replica.crashes, policy.recovery, policy.now), policy.now),
        "ready": False,
        "ready_since": None,
    }
    event = Event("Warning", "Unhealthy", f"{newcomer.name} {well.failed}")
    return replica.model_copy(update=condemned), (event,), ()


def _turned(known: Replica, newcomer: Instance, well: Wellbeing, asking: Asking) -> tuple[Event, ...]:
    """Say that an instance became ready, or no longer is."""
    was = known.name == newcomer.name and known.ready_since is not None
    if not asking.gates or was == well.ready:
        return ()
    if well.ready:
        return (Event("Normal", "Ready", f"{newcomer.name} is ready"),)
    return (Event("Warning", "NotReady", f"{newcomer.name} is not ready: {well.doubt}"),)


def _serving(replica: Replica, before: Replica, incumbent: Instance | None, asking: Asking) -> Replica:
    """Name the incumbent; what it was goes on to count, for its probes may not be those of the manifest."""
    if incumbent is None:
        return replica.model_copy(update={"incumbent": ""})
    told = incumbent.name in {before.name, before.incumbent}
    ready = before.ready if asking.gates and told else True
    return replica.model_copy(update={"incumbent": incumbent.name, "ready": ready})


def _fresh(before: Replica, revision: str) -> Replica:
    """Forget the crashes of another revision; go on counting attempts."""
    return Replica(
        ordinal=before.ordinal,
        attempt=before.attempt,
        revision=revision,
        last_exit=before.last_exit,
        ended=before.ended,
        condemned=before.condemned,
        condemned_because=before.condemned_because,
    )


def _describe(replica: Replica, instance: Instance, now: float) -> Replica:
    known = replica.running_since if replica.name == instance.name else None
    since = (known or now) if instance.state is State.RUNNING else None
    started_again = replica.crashes and instance.slot.attempt > replica.attempt > 0
    return replica.model_copy(
        update={
            "name": instance.name,
            "attempt": max(instance.slot.attempt, replica.attempt),
            "state": instance.state.value,
            "pid": instance.pid,
            "started_at": instance.created_at,
            "running_since": since,
            "ready_since": replica.ready_since if known is not None else None,
            "restarts": replica.restarts + (1 if started_again else 0),
            "next_start": None,
            "quarantined": False,
        }
    )


def _held_back(replica: Replica, incumbent: Instance | None, now: float) -> Replica:
    """Say what there is meanwhile: one that serves until it is this replica's turn, or one that has to go."""
    if incumbent is None:
        gone = {"running_since": None, "ready": False, "ready_since": None, "probes": ()}
        return replica.model_copy(update={"state": State.STOPPING.value, **gone})
    return replica if replica.crashes else _describe(replica, incumbent, now)


def _start_again(replica: Replica, workload: Workload, policy: Policy, remains: bool) -> Verdict:
    """Nothing wanted runs: start now, later, or not at all.

    Args:
        replica: what is known of it.
        workload: what should run.
        policy: what to do when it ended by itself.
        remains: something that was made for it before is still there.
    """
    idle = replica.model_copy(
        update={
            "state": State.EXITED.value if replica.last_exit else "",
            "pid": None,
            "running_since": None,
            "ready": replica.ready and bool(replica.incumbent),
            "ready_since": None,
            "probes": (),
        }
    )
    if replica.quarantined or policy.awaited:
        return Verdict(idle.model_copy(update={"next_start": None}))
    if not replica.crashes:
        return _start(idle, workload, policy)
    if policy.trial is not None:
        return Verdict(idle, gave_up=f"replica {replica.ordinal} {_last_words(replica)}")
    seed = f"{workload.plugin_uid}/{replica.ordinal}"
    match restart.after_crash(replica.crashes, policy.recovery, seed, fallback=policy.fallback):
        case restart.TakeBack():
            return Verdict(idle, gave_up=f"{_count(replica)}, the last time it {_last_words(replica)}")
        case restart.Quarantine():
            return _quarantine(idle)
        case restart.RestartAt(at=at) if at > policy.now:
            return Verdict(idle.model_copy(update={"next_start": at}), revisit=at)
        case restart.RestartAt() if policy.crowded:
            turn = restart.turn(policy.now, seed)
            return Verdict(idle.model_copy(update={"next_start": turn}), revisit=turn)
        case restart.RestartAt(afresh=True) if remains:
            return Verdict(idle.model_copy(update={"next_start": None}), revisit=policy.now, clearing=True)
        case restart.RestartAt(afresh=afresh):
            return _start(idle, workload, policy, afresh=afresh)


def _quarantine(idle: Replica) -> Verdict:
    held = idle.model_copy(update={"quarantined": True, "next_start": None})
    what = f"{_count(idle)}: it is not started again"
    if idle.incumbent:
        what += f"; {idle.incumbent} of the revision before keeps serving"
    reason = "UpdateFailed" if idle.incumbent else "Quarantined"
    return Verdict(held, events=(Event("Warning", reason, what),))


def _start(idle: Replica, workload: Workload, policy: Policy, *, afresh: bool = False) -> Verdict:
    slot = Slot(idle.ordinal, policy.attempt)
    name = instance_name(workload, slot)
    started = idle.model_copy(
        update={
            "name": name,
            "attempt": slot.attempt,
            "state": State.STARTING.value,
            "started_at": policy.now,
            "restarts": idle.restarts + (1 if idle.crashes else 0),
            "next_start": None,
        }
    )
    event = Event("Normal", "Started", f"started {name}")
    if afresh:
        words = f"{_count(idle)}: all that was made for it was deleted, and {name} started in its place"
        event = Event("Warning", "Recreated", words)
    return Verdict(started, (Start(workload, slot),), (event,))


def _count(replica: Replica) -> str:
    times = len(replica.crashes)
    return f"replica {replica.ordinal} ended {times} time{'' if times == 1 else 's'}"


def _last_words(replica: Replica) -> str:
    return replica.last_exit.message if replica.last_exit else "ended"


def instance_name(workload: Workload, slot: Slot) -> str:
    """Return ``plugin-ordinal-attempt``: what people and logs call an instance."""
    return f"{workload.plugin}-{slot}"
