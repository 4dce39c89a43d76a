"""One replica's ladder: what ended, what runs, what has to start or stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crucible.core import restart
from crucible.core.health import Asking, examine
from crucible.core.takeover import newest_of, overlap_of
from crucible.model.decision import Action, Event, Kill, Remove, Start, Stop
from crucible.model.instance import State
from crucible.model.status import LastExit, Replica
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.core.health import Wellbeing
    from crucible.model.health import Watch
    from crucible.model.instance import Instance
    from crucible.model.manifest import Recovery, Update
    from crucible.model.workload import Workload


CLOCKS_DIFFER = 60.0
"""Seconds by which the clock of whoever asked an instance to stop may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one replica needs now.

    Attributes:
        replica: what to say of it.
        actions: in order.
        events: what happened since it was last spoken of.
        revisit: unix seconds at which to look again; None: not needed.
        serving: the instance that serves, or is about to, if there is one.
        updating: instances of another revision are still alive.
        watches: the probes to go on asking its instance.
        gave_up: why the revision is to be taken back, where there is another to go back to; empty otherwise.
    """

    replica: Replica
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    revisit: float | None = None
    serving: Instance | None = None
    updating: bool = False
    watches: tuple[Watch, ...] = ()
    gave_up: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a replica's ladder goes by besides what is.

    Attributes:
        recovery: of the manifest.
        update: of the manifest.
        attempt: the number of the instance to start, if one has to be.
        now: unix seconds.
        turn: this replica is the one that may have two instances at once.
        asking: what its instance is asked, and what it answered.
        awaited: what it cannot do without is not there: nothing is started, and no end is held against it.
        crowded: so many were started lately that one that crashed waits for its turn.
        fallback: there is a good revision to go back to.
        trial: seconds in which the wanted revision has to become ready without a crash, or be taken back;
            None: it was good before, or is not on trial.
    """

    recovery: Recovery
    update: Update
    attempt: int
    now: float
    turn: bool = False
    asking: Asking = field(default_factory=Asking)
    awaited: bool = False
    crowded: bool = False
    fallback: bool = False
    trial: float | None = None


def wind_down(
    instances: tuple[Instance, ...], grace: float, now: float, counted: float = math.inf
) -> Verdict:
    """Bring instances to an end and clear them away: ask, wait for the grace period, kill, remove.

    The replica of the verdict says nothing; the caller keeps or drops what it knew.

    Args:
        instances: to bring to an end.
        grace: seconds between asking and killing.
        now: unix seconds.
        counted: attempts that are on record. What came after them is not cleared away yet: if the controller
            died before it said so, nothing would be left to tell that their names were used.
    """
    actions: list[Action] = []
    revisits: list[float] = []
    for instance in instances:
        match instance.state:
            case State.EXITED:
                if instance.slot.attempt <= counted:
                    actions.append(Remove(instance.slot))
                revisits.append(now)
            case State.STOPPING:
                asked = instance.stopping_at or now
                deadline = asked + grace
                # Asked in the future: the clock was set back since, and how long ago it was is not known.
                over = now >= deadline or asked > now + CLOCKS_DIFFER
                revisits.append(now if over else max(deadline, now))
                if over:
                    actions.append(Kill(instance.slot))
            case State.STARTING | State.RUNNING:
                actions.append(Stop(instance.slot))
                revisits.append(now + grace)
    return Verdict(Replica(ordinal=0), tuple(actions), revisit=min(revisits, default=None))


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
    replica, events = _absorb(known, instances, policy)
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
        verdict = Verdict(replica, revisit=overlap.due)
    elif overlap.may_start and not any(each.alive and each not in fit for each in instances):
        verdict = _start_again(replica, workload, policy)
    else:
        verdict = Verdict(_held_back(replica, incumbent, now))
    gave_up, due = _trial(verdict, newcomer, policy)
    serving = incumbent or newcomer
    unsaid = serving is not None and replica.last_exit != before.last_exit
    doomed = replica.condemned != before.condemned
    revisits = (verdict.revisit, rest.revisit, due, now if unsaid or doomed else None)
    return Verdict(
        verdict.replica,
        (*rest.actions, *verdict.actions, *_outdated(instances, before)),
        (*events, *verdict.events),
        min((at for at in revisits if at is not None), default=None),
        serving,
        updating=any(each.alive and each.revision != revision for each in instances),
        watches=watches,
        gave_up=gave_up,
    )


def _trial(verdict: Verdict, newcomer: Instance | None, policy: Policy) -> tuple[str, float | None]:
    """Return why the wanted revision fails its trial, and when to look at that again."""
    replica = verdict.replica
    if verdict.gave_up or policy.trial is None:
        return verdict.gave_up, None
    if newcomer is None or replica.ready_since is not None:
        return "", None
    due = newcomer.created_at + policy.trial
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


def _absorb(
    replica: Replica, instances: tuple[Instance, ...], policy: Policy
) -> tuple[Replica, tuple[Event, ...]]:
    """Write down every end that the replica does not know of yet, in the order in which they came."""
    events: list[Event] = []
    ends = [(instance, instance.exit) for instance in instances if instance.exit is not None]
    known = _on_record(replica)
    for instance, ended in sorted(ends, key=lambda end: (end[1].at, end[0].slot.attempt)):
        if instance.slot.attempt in known:
            continue
        by_itself = instance.stopping_at is None
        condemned = instance.slot.attempt == replica.condemned
        crashes = replica.crashes
        held = not (condemned or policy.awaited)
        if by_itself and held and instance.revision == replica.revision:
            crashes = (*restart.recent(crashes, policy.recovery, ended.at), ended.at)
        replica = replica.model_copy(
            update={
                "last_exit": LastExit(
                    attempt=instance.slot.attempt,
                    at=ended.at,
                    reason="Unhealthy" if condemned else ended.reason if by_itself else "Stopped",
                    message=replica.condemned_because if condemned else str(ended),
                    code=ended.code,
                    signal=ended.signal,
                ),
                "crashes": crashes,
            }
        )
        if by_itself:
            events.append(Event("Warning", ended.reason, f"{instance.name} {ended}"))
        else:
            events.append(Event("Normal", "Stopped", f"{instance.name} stopped"))
    kept = tuple(sorted(instance.slot.attempt for instance, _ in ends))
    return replica.model_copy(update={"ended": kept}), tuple(events)


def _on_record(replica: Replica) -> frozenset[int]:
    """Return the attempts whose end was said; the last one also where only that was written down."""
    return frozenset(replica.ended) | {replica.last_exit.attempt if replica.last_exit else 0}


def _outdated(instances: tuple[Instance, ...], before: Replica) -> tuple[Action, ...]:
    """Clear away ended instances whose end is on record, but for the newest: its output explains it."""
    ended = [(instance.exit.at, instance.slot) for instance in instances if instance.exit is not None]
    newest = max(ended, key=lambda end: (end[0], end[1].attempt), default=None)
    said = _on_record(before)
    return tuple(Remove(end[1]) for end in ended if end is not newest and end[1].attempt in said)


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


def _start_again(replica: Replica, workload: Workload, policy: Policy) -> Verdict:
    """Nothing wanted runs: start now, later, or not at all."""
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
    if replica.crashes and policy.trial is not None:
        last = replica.last_exit.message if replica.last_exit else "ended"
        return Verdict(idle, gave_up=f"replica {replica.ordinal} {last}")
    if replica.crashes:
        seed = f"{workload.plugin_uid}/{replica.ordinal}"
        match restart.after_crash(replica.crashes, policy.recovery, seed):
            case restart.Quarantine() | restart.RestartAt() if policy.fallback and restart.exhausted(
                replica.crashes, policy.recovery
            ):
                last = replica.last_exit.message if replica.last_exit else "ended"
                words = (
                    f"replica {replica.ordinal} ended {len(replica.crashes)} times, the last time it {last}"
                )
                return Verdict(idle, gave_up=words)
            case restart.Quarantine():
                held = idle.model_copy(update={"quarantined": True, "next_start": None})
                what = (
                    f"replica {replica.ordinal} ended {len(replica.crashes)} times: it is not started again"
                )
                if replica.incumbent:
                    what += f"; {replica.incumbent} of the revision before keeps serving"
                reason = "UpdateFailed" if replica.incumbent else "Quarantined"
                return Verdict(held, events=(Event("Warning", reason, what),))
            case restart.RestartAt(at=at) if at > policy.now:
                waiting = idle.model_copy(update={"next_start": at})
                return Verdict(waiting, revisit=at)
            case restart.RestartAt() if policy.crowded:
                turn = restart.turn(policy.now, seed)
                return Verdict(idle.model_copy(update={"next_start": turn}), revisit=turn)
            case restart.RestartAt():
                pass
    slot = Slot(replica.ordinal, policy.attempt)
    name = instance_name(workload, slot)
    started = idle.model_copy(
        update={
            "name": name,
            "attempt": slot.attempt,
            "state": State.STARTING.value,
            "started_at": policy.now,
            "restarts": replica.restarts + (1 if replica.crashes else 0),
            "next_start": None,
        }
    )
    return Verdict(started, (Start(workload, slot),), (Event("Normal", "Started", f"started {name}"),))


def instance_name(workload: Workload, slot: Slot) -> str:
    """Return ``plugin-ordinal-attempt``: what people and logs call an instance."""
    return f"{workload.plugin}-{slot}"
