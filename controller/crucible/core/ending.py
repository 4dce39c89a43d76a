"""The end of instances: asked for, written down, cleared away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from crucible.core import restart
from crucible.core.verdict import Verdict
from crucible.model.decision import Action, Event, Kill, Remove, Stop
from crucible.model.instance import CRASHED, State
from crucible.model.status import LastExit, Replica

if TYPE_CHECKING:
    from crucible.core.verdict import Policy
    from crucible.model.instance import Exit, Instance

CLOCKS_DIFFER = 60.0
"""Seconds by which the clock of whoever asked an instance to stop may be ahead of ours."""


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


def absorb(
    replica: Replica, instances: tuple[Instance, ...], policy: Policy
) -> tuple[Replica, tuple[Event, ...]]:
    """Write down every end that the replica does not know of yet, in the order in which they came."""
    events: list[Event] = []
    ends = [(instance, instance.exit) for instance in instances if instance.exit is not None]
    known = _on_record(replica)
    for instance, ended in sorted(ends, key=lambda end: (end[1].at, end[0].slot.attempt)):
        if instance.slot.attempt in known:
            replica, learnt = _corrected(replica, instance, ended)
            events.extend(learnt)
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


def _corrected(replica: Replica, instance: Instance, ended: Exit) -> tuple[Replica, tuple[Event, ...]]:
    """Say of a crash on record that it was for memory: that word can come after the one of the end."""
    last = replica.last_exit
    late = last is not None and last.attempt == instance.slot.attempt and last.reason == CRASHED
    if last is None or not (late and ended.oom):
        return replica, ()
    told = last.model_copy(update={"reason": ended.reason, "message": str(ended)})
    event = Event("Warning", ended.reason, f"{instance.name} {ended}")
    return replica.model_copy(update={"last_exit": told}), (event,)


def _on_record(replica: Replica) -> frozenset[int]:
    """Return the attempts whose end was said; the last one also where only that was written down."""
    return frozenset(replica.ended) | {replica.last_exit.attempt if replica.last_exit else 0}


def outdated(
    instances: tuple[Instance, ...], before: Replica, *, newest_too: bool = False
) -> tuple[Action, ...]:
    """Clear away ended instances whose end is on record, but for the newest: its output explains it."""
    ended = [(instance.exit.at, instance.slot) for instance in instances if instance.exit is not None]
    newest = max(ended, key=lambda end: (end[0], end[1].attempt), default=None)
    said = _on_record(before)
    return tuple(
        Remove(end[1]) for end in ended if (newest_too or end is not newest) and end[1].attempt in said
    )
