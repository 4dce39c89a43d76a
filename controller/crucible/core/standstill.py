"""What is said of a Plugin that is not kept running: refused, suspended, held up, or on its way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.core.statement import of_one_reason
from crucible.model.decision import Decision, Event
from crucible.model.instance import State
from crucible.model.status import Phase, Replica

if TYPE_CHECKING:
    from crucible.core.verdict import Verdict
    from crucible.errors import Violation
    from crucible.model.status import PluginStatus
    from crucible.model.world import Reach, World


def refused(world: World, reason: str, message: str, down: Verdict) -> Decision:
    """Report on a Plugin that may not run here as it is."""
    status = of_one_reason(
        world,
        Phase.REFUSED,
        (reason, message),
        progressing=any(instance.alive for instance in world.instances),
        degraded=True,
        stalled=True,
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
    status = of_one_reason(world, phase, ("Suspended", message), progressing=not resting).model_copy(
        update={"instances": _at_rest(world)}
    )
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
    status = of_one_reason(world, Phase.PENDING, ("Pulling", message), progressing=True).model_copy(
        update={"instances": world.status.instances}
    )
    begun = any(condition.reason == "Pulling" for condition in world.status.conditions)
    return Decision((), status, () if begun else (Event("Normal", "Pulling", message),))


def attended(world: World, reach: Reach, down: Verdict) -> Decision:
    """Report on an endpoint that someone else runs."""
    reason = "Reachable" if reach.ok else "Unreachable"
    status = of_one_reason(
        world,
        Phase.RUNNING if reach.ok else Phase.PENDING,
        (reason, reach.message),
        ready=reach.ok,
        progressing=any(instance.alive for instance in world.instances),
        degraded=not reach.ok,
    ).model_copy(update={"ready_replicas": int(reach.ok)})
    said = any(condition.reason == reason for condition in world.status.conditions)
    events = () if said else (Event("Normal" if reach.ok else "Warning", reason, reach.message),)
    return Decision(down.actions, status, events)


def without_runtime(world: World) -> Decision:
    """Report on a Plugin whose runtime does not answer. What runs, if it does, goes on running."""
    return _held_up(world, "RuntimeUnavailable", world.outage)


def _held_up(world: World, reason: str, message: str) -> Decision:
    status = of_one_reason(world, Phase.PENDING, (reason, message), degraded=True, stalled=True).model_copy(
        update={name: getattr(world.status, name) for name in ("instances", "draining", "hooks")}
    )
    said = any(
        condition.type == "Stalled" and condition.message == status.conditions[-1].message
        for condition in world.status.conditions
    )
    return Decision((), status, () if said else (Event("Warning", reason, message),))


def terminating(world: World) -> PluginStatus:
    """Report on a Plugin that is being deleted."""
    count = len(world.instances)
    message = f"{count} instance{'' if count == 1 else 's'} left to clear away"
    return of_one_reason(world, Phase.TERMINATING, ("Deleting", message), progressing=True)


def outliving(world: World, first: tuple[str, ...]) -> Decision:
    """Report on a Plugin that is being deleted, and goes on until those that need it are gone."""
    message = f"goes after {', '.join(first)}, which need it and are being deleted too"
    status = of_one_reason(world, Phase.TERMINATING, ("Deleting", message), progressing=True).model_copy(
        update={"instances": world.status.instances}
    )
    return Decision((), status)


def bereaved(world: World, left: tuple[str, ...]) -> tuple[Event, ...]:
    """Say once who needs a Plugin that is being deleted all the same."""
    if not left or world.status.phase is Phase.TERMINATING:
        return ()
    return (Event("Warning", "StillNeeded", f"{', '.join(left)} need it and stay: they will wait for it"),)


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
