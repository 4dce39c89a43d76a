"""One replica's ladder: what ended, what runs, what has to start or stop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crucible.core import restart
from crucible.model.decision import Action, Event, Kill, Remove, Start, Stop
from crucible.model.instance import State
from crucible.model.status import LastExit, Replica
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.instance import Instance
    from crucible.model.manifest import Recovery
    from crucible.model.workload import Workload


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one replica needs now.

    Attributes:
        replica: what to say of it.
        actions: in order.
        events: what happened since it was last spoken of.
        revisit: unix seconds at which to look again; None: not needed.
        serving: the instance that runs the wanted revision, if one does.
    """

    replica: Replica
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    revisit: float | None = None
    serving: Instance | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a replica's ladder goes by besides what is.

    Attributes:
        recovery: of the manifest.
        attempt: the number of the instance to start, if one has to be.
        now: unix seconds.
    """

    recovery: Recovery
    attempt: int
    now: float


def wind_down(instances: tuple[Instance, ...], grace: float, now: float) -> Verdict:
    """Bring instances to an end and clear them away: ask, wait for the grace period, kill, remove.

    The replica of the verdict says nothing; the caller keeps or drops what it knew.
    """
    actions: list[Action] = []
    revisits: list[float] = []
    for instance in instances:
        match instance.state:
            case State.EXITED:
                actions.append(Remove(instance.slot))
                revisits.append(now)
            case State.STOPPING:
                deadline = (instance.stopping_at or now) + grace
                revisits.append(max(deadline, now))
                if now >= deadline:
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
    recovery, now, revision = policy.recovery, policy.now, workload.revision
    known = before if before.revision == revision else _fresh(before, revision)
    replica, events = _absorb(known, instances, recovery)
    serving = _serving(instances, revision)
    rest = wind_down(
        tuple(instance for instance in instances if instance.alive and instance is not serving),
        workload.grace,
        now,
    )
    cleared = _outdated(instances, before)
    unsaid = replica.last_exit != before.last_exit
    if serving is not None:
        replica = _describe(replica, serving)
        revisit = now if unsaid else rest.revisit
        return Verdict(replica, (*rest.actions, *cleared), events, revisit, serving)
    if any(instance.alive for instance in instances):
        stopping = replica.model_copy(update={"state": State.STOPPING.value})
        return Verdict(stopping, (*rest.actions, *cleared), events, rest.revisit)
    verdict = _start_again(replica, workload, policy)
    return replace(verdict, actions=(*verdict.actions, *cleared), events=(*events, *verdict.events))


def _fresh(before: Replica, revision: str) -> Replica:
    """Forget the crashes of another revision; go on counting attempts."""
    return Replica(
        ordinal=before.ordinal, attempt=before.attempt, revision=revision, last_exit=before.last_exit
    )


def _absorb(
    replica: Replica, instances: tuple[Instance, ...], recovery: Recovery
) -> tuple[Replica, tuple[Event, ...]]:
    """Write down every end that the replica does not know of yet."""
    events: list[Event] = []
    for instance in instances:
        known = replica.last_exit.attempt if replica.last_exit else 0
        if instance.exit is None or instance.slot.attempt <= known:
            continue
        ended = instance.exit
        by_itself = instance.stopping_at is None
        crashes = replica.crashes
        if by_itself and instance.revision == replica.revision:
            crashes = (*restart.recent(crashes, recovery, ended.at), ended.at)
        replica = replica.model_copy(
            update={
                "last_exit": LastExit(
                    attempt=instance.slot.attempt,
                    at=ended.at,
                    reason=ended.reason if by_itself else "Stopped",
                    message=str(ended),
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
    return replica, tuple(events)


def _serving(instances: tuple[Instance, ...], revision: str) -> Instance | None:
    """Return the newest instance that runs the wanted revision and was not asked to stop."""
    fitting = [
        instance
        for instance in instances
        if instance.revision == revision and instance.state in {State.STARTING, State.RUNNING}
    ]
    return max(fitting, key=lambda instance: instance.slot.attempt, default=None)


def _outdated(instances: tuple[Instance, ...], before: Replica) -> tuple[Action, ...]:
    """Clear away ended instances whose end is on record, but for the newest: its output explains it."""
    ended = [instance.slot for instance in instances if not instance.alive]
    newest = max((slot.attempt for slot in ended), default=0)
    said = before.last_exit.attempt if before.last_exit else 0
    return tuple(Remove(slot) for slot in ended if slot.attempt < newest and slot.attempt <= said)


def _describe(replica: Replica, instance: Instance) -> Replica:
    started_again = replica.crashes and instance.slot.attempt > replica.attempt > 0
    return replica.model_copy(
        update={
            "name": instance.name,
            "attempt": max(instance.slot.attempt, replica.attempt),
            "state": instance.state.value,
            "pid": instance.pid,
            "started_at": instance.created_at,
            "restarts": replica.restarts + (1 if started_again else 0),
            "next_start": None,
            "quarantined": False,
        }
    )


def _start_again(replica: Replica, workload: Workload, policy: Policy) -> Verdict:
    """Nothing runs: start now, later, or not at all."""
    idle = replica.model_copy(update={"state": State.EXITED.value if replica.last_exit else "", "pid": None})
    if replica.quarantined:
        return Verdict(idle)
    if replica.crashes:
        seed = f"{workload.plugin_uid}/{replica.ordinal}"
        match restart.after_crash(replica.crashes, policy.recovery, seed):
            case restart.Quarantine():
                held = idle.model_copy(update={"quarantined": True, "next_start": None})
                what = (
                    f"replica {replica.ordinal} ended {len(replica.crashes)} times: it is not started again"
                )
                return Verdict(held, events=(Event("Warning", "Quarantined", what),))
            case restart.RestartAt(at=at) if at > policy.now:
                waiting = idle.model_copy(update={"next_start": at})
                return Verdict(waiting, revisit=at)
            case restart.RestartAt():
                pass
    slot = Slot(replica.ordinal, policy.attempt)
    name = instance_name(workload, slot)
    started = replica.model_copy(
        update={
            "name": name,
            "attempt": slot.attempt,
            "state": State.STARTING.value,
            "pid": None,
            "started_at": policy.now,
            "restarts": replica.restarts + (1 if replica.crashes else 0),
            "next_start": None,
        }
    )
    return Verdict(started, (Start(workload, slot),), (Event("Normal", "Started", f"started {name}"),))


def instance_name(workload: Workload, slot: Slot) -> str:
    """Return ``plugin-ordinal-attempt``: what people and logs call an instance."""
    return f"{workload.plugin}-{slot}"
