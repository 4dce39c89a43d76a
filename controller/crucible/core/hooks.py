"""Letting an instance run its hook before it is stopped. Pure.

The hook runs beside the loop; its stopping is put off here until the hook is over, or its time is. By when it
has to be over is in the status, so a controller that comes back has it run again for what is left of that
time, and no longer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from crucible.core.report import hook_failed
from crucible.model.decision import RunHook, Stop
from crucible.model.instance import State
from crucible.model.manifest import PluginSpec
from crucible.model.status import HookReport

if TYPE_CHECKING:
    from crucible.model.decision import Action, Decision, Event
    from crucible.model.world import World


def with_hooks(world: World, decision: Decision) -> Decision:
    """Have what runs run its hook before it is stopped, where the runtime does not see to that itself."""
    spec = world.spec
    if not isinstance(spec, PluginSpec) or spec.lifecycle.pre_stop is None or world.capabilities.asks:
        return decision
    if world.outage:
        return decision  # nothing is known, nothing is done, and what was said stands
    hook = spec.lifecycle.pre_stop
    known = {each.attempt: each.due for each in world.status.hooks}
    running = {each.slot: each for each in world.instances if each.state is State.RUNNING}
    actions: list[Action] = []
    hooks: list[HookReport] = []
    events: list[Event] = []
    for action in decision.actions:
        found = running.get(action.slot) if isinstance(action, Stop) else None
        if found is None:
            actions.append(action)
            continue
        attempt = found.slot.attempt
        # No later than from now on: the clock may have been set back.
        due = min(known.get(attempt, math.inf), world.now + hook.timeout)
        ended = world.hooks.get(attempt)
        if due <= world.now or (ended is not None and ended.over):
            actions.append(action)
            late = f"did not end within {hook.timeout:g} s"
            problem = ended.problem if ended is not None and ended.over else late
            events += [hook_failed(found.name, problem)] if problem else []
            continue
        hooks.append(HookReport(ordinal=found.slot.ordinal, attempt=attempt, due=due))
        if ended is None:
            actions.append(RunHook(found.slot, hook.command, due - world.now))
    revisits = [each.due for each in hooks] + ([] if decision.revisit is None else [decision.revisit])
    return replace(
        decision,
        actions=tuple(actions),
        status=decision.status.model_copy(update={"hooks": tuple(hooks)}),
        events=(*decision.events, *events),
        revisit=min(revisits, default=None),
    )
