"""Handing over: of the old and the new instance of a replica, one is given what comes anew at any time. Pure.

Until the new one is verified that is the old one; from then on it is the new one, and the old one finishes
what it has. Who that is follows from the status and from what runs, so that a controller that comes back in
the middle goes on from there. The broker is told by :func:`crucible.core.bus.member_of`, the runtime by an
action before anything is started or stopped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from crucible.core.bus import is_on_bus
from crucible.errors import Violation
from crucible.model.decision import Route, Start
from crucible.model.instance import State
from crucible.model.manifest import PluginSpec
from crucible.model.status import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.model.decision import Decision
    from crucible.model.instance import Instance
    from crucible.model.workload import Slot
    from crucible.model.world import World

DRAIN: Final = 10.0
"""Seconds in which one that handed over finishes what it has, where the manifest does not say."""


def violations(spec: PluginSpec) -> Iterator[Violation]:
    """Yield why nothing could be handed over without a loss."""
    if not spec.update.hands_over:
        return
    if not is_on_bus(spec) and not spec.capabilities.network.listen:
        yield Violation(
            "spec.update.strategy",
            "handover: nothing comes to a plugin that neither listens nor is on the bus: write rolling",
        )
    if spec.health.ready is None:
        yield Violation(
            "spec.health.ready",
            "a handover waits until the new instance can serve: write a probe, as {ping: {}} for a plugin "
            "on the bus, {tcp: {port: 8080}} for one that listens",
        )


def drain_of(spec: PluginSpec, instance: Instance, instances: tuple[Instance, ...]) -> float:
    """Return for how many seconds at most an instance that is to be stopped finishes what it has.

    Connections to ports are waited for only where another instance took over: else they would go on coming.
    """
    taken_over = spec.update.hands_over and any(
        other.state is State.RUNNING
        and other.slot.ordinal == instance.slot.ordinal
        and other.slot.attempt > instance.slot.attempt
        for other in instances
    )
    if not taken_over:
        return (spec.lifecycle.drain or 0.0) if is_on_bus(spec) else 0.0
    return DRAIN if spec.lifecycle.drain is None else spec.lifecycle.drain


def with_route(world: World, decision: Decision) -> Decision:
    """Have new connections go where they should before anything is started or stopped."""
    spec = world.spec
    if not isinstance(spec, PluginSpec) or decision.status.phase is Phase.FROZEN:
        return decision
    alive = [each for each in world.instances if each.alive]
    reached = {each.slot for each in alive if each.reached}
    if not (spec.update.hands_over and spec.capabilities.network.listen):
        astray = len(reached) < len(alive)
        return replace(decision, actions=(Route(()), *decision.actions)) if astray else decision
    wanted = _receivers(decision, alive)
    starts = any(isinstance(action, Start) for action in decision.actions)
    if not wanted or (reached == wanted and not starts):
        return decision
    order = sorted(wanted, key=lambda slot: (slot.ordinal, slot.attempt))
    return replace(decision, actions=(Route(tuple(order)), *decision.actions))


def _receivers(decision: Decision, alive: list[Instance]) -> set[Slot]:
    """Return who is given new connections: the incumbent of each replica, else the wanted one that runs."""
    names = {replica.incumbent or replica.name for replica in decision.status.instances}
    return {each.slot for each in alive if each.name in names and each.state is State.RUNNING}
