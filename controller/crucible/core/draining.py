"""Letting an instance finish what it has before it is stopped. Pure.

Whatever the reason for which one is to be stopped, its stopping is put off here, in one place: until it has
no call open on the bus, or its time is over. One that listens and handed over has its whole time, for nobody
counts the connections that it still has. Which instances are given nothing new is in the status, so a
controller that comes back goes on from there, and what the broker is told follows from what is said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from crucible.core.handover import drain_of
from crucible.model.decision import Event, Stop
from crucible.model.instance import State
from crucible.model.manifest import PluginSpec
from crucible.model.status import DrainReport

if TYPE_CHECKING:
    from crucible.model.decision import Action, Decision
    from crucible.model.instance import Instance
    from crucible.model.world import World

_POLL: Final = 0.2
"""Seconds between two looks whether an instance has calls open."""


def with_drain(world: World, decision: Decision) -> Decision:
    """Put off what stops an instance that may finish what it has.

    One that failed its probes is stopped at once: it is not trusted with anything.
    """
    spec = world.spec
    if not isinstance(spec, PluginSpec) or not (spec.lifecycle.drain or spec.update.hands_over):
        return decision
    if world.outage:
        return decision  # nothing is known, nothing is done, and what was said stands
    uncounted = spec.update.hands_over and bool(spec.capabilities.network.listen)
    hooking = {each.attempt for each in world.status.hooks}
    known = {each.attempt: each.since for each in world.status.draining}
    running = {each.slot: each for each in world.instances if each.state is State.RUNNING}
    condemned = {replica.condemned for replica in world.status.instances}
    actions: list[Action] = []
    draining: list[DrainReport] = []
    events: list[Event] = []
    revisits = [] if decision.revisit is None else [decision.revisit]
    for action in decision.actions:
        found = running.get(action.slot) if isinstance(action, Stop) else None
        time = 0.0 if found is None else drain_of(spec, found, world.instances)
        if found is None or not time or found.slot.attempt in condemned:
            actions.append(action)
            continue
        attempt = found.slot.attempt
        since = min(known.get(attempt, world.now), world.now)  # the clock may have been set back
        draining.append(_report(found, since))
        done = attempt in hooking or (world.open_calls.get(attempt) == 0 and not uncounted)
        if done or world.now >= since + time:
            actions.append(action)
            continue
        revisits.append(since + time if uncounted else min(world.now + _POLL, since + time))
        if attempt not in known:
            words = f"{found.name} finishes what it has, and is given nothing new"
            events.append(Event("Normal", "Draining", words))
    draining += [
        _report(each, known[each.slot.attempt])
        for each in world.instances
        if each.state is State.STOPPING and each.slot.attempt in known
    ]
    return replace(
        decision,
        actions=tuple(actions),
        status=decision.status.model_copy(update={"draining": tuple(draining)}),
        events=(*decision.events, *events),
        revisit=min(revisits, default=None),
    )


def _report(instance: Instance, since: float) -> DrainReport:
    return DrainReport(ordinal=instance.slot.ordinal, attempt=instance.slot.attempt, since=since)
