"""Holding a Plugin still because a person asked for it, and letting it go on. Pure.

Nothing of a Plugin that is held still starts, stops, is updated or asked anything; what ended meanwhile is
looked at when it goes on. Deleting, suspending or refusing it comes first, and lets it go on for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.core.ending import wind_down
from crucible.core.statement import of_one_reason
from crucible.model.decision import Decision, Event, Freeze, Thaw
from crucible.model.instance import State
from crucible.model.status import Phase

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec
    from crucible.model.status import PluginStatus
    from crucible.model.world import World


def still_wanted(world: World, spec: PluginSpec) -> bool:
    """Whether every instance is to be held still."""
    asked = bool(world.identity.frozen) and not world.capabilities.no_freezer
    return asked and not world.identity.deleting and not spec.suspend and world.reach is None


def hold_still(world: World, spec: PluginSpec) -> Decision:
    """Freeze what runs, and touch nothing else but what was asked to end before."""
    down = wind_down(
        tuple(instance for instance in world.instances if instance.state is State.STOPPING),
        spec.stop_grace,
        world.now,
    )
    moving = [instance for instance in world.instances if instance.alive and not instance.frozen]
    still = [instance for instance in world.instances if instance.alive and instance.frozen]
    message = f"{len(still)} of {len(still) + len(moving)} instances frozen; run 'crucible thaw' to go on"
    said = [each.model_copy(update={"ready": False}) for each in world.status.instances]
    status = of_one_reason(world, Phase.FROZEN, ("Frozen", message), progressing=bool(moving)).model_copy(
        update={**_kept(world.status), "instances": tuple(said)}
    )
    entered = world.status.phase is not Phase.FROZEN
    events = (Event("Normal", "Frozen", "held still until 'crucible thaw'"),) if entered else ()
    freeze = tuple(Freeze(instance.slot) for instance in moving if instance.state is State.RUNNING)
    return Decision((*down.actions, *freeze), status, events, world.now if freeze else down.revisit)


def thaw(world: World) -> Decision:
    """Let everything that is held still go on, and note when; what follows from it comes next."""
    frozen = [instance for instance in world.instances if instance.alive and instance.frozen]
    message = f"{len(frozen)} frozen instances go on"
    status = of_one_reason(world, Phase.STARTING, ("Thawed", message), progressing=True).model_copy(
        update={**_kept(world.status), "instances": world.status.instances, "thawed_at": world.now}
    )
    event = Event("Normal", "Thawed", message)
    return Decision(tuple(Thaw(instance.slot) for instance in frozen), status, (event,), world.now)


def _kept(status: PluginStatus) -> dict[str, object]:
    """Return what goes on to be said of a Plugin that is held still."""
    names = ("revision", "restarts", "endpoints", "dependencies")
    return {name: getattr(status, name) for name in names}
