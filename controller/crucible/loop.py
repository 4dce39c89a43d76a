"""One coroutine per Plugin: gather what is, decide, perform, report; then wait until something changes."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

from crucible.aside import run_hook
from crucible.core.decide import decide
from crucible.core.pauses import Retry, span
from crucible.core.report import config_not_taken, config_taken
from crucible.core.standstill import without_runtime
from crucible.core.transitions import announcements, transitions
from crucible.errors import Conflict, CrucibleError, Unavailable, Underway
from crucible.gathering import gather, read_plugin
from crucible.model.decision import (
    Deliver,
    Forget,
    Freeze,
    Hold,
    Kill,
    Remember,
    Remove,
    Route,
    RunHook,
    Start,
    Stop,
    Thaw,
)
from crucible.model.manifest import PluginSpec
from crucible.model.neighbour import Around

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crucible.gathering import Read
    from crucible.model.decision import Action, Decision
    from crucible.model.plugin import Identity
    from crucible.model.status import PluginStatus
    from crucible.model.world import World
    from crucible.ports import Ports

_KEEP_RETRY = 30.0
_NO_THREAD = "can't start new thread"

log = logging.getLogger(__name__)


def _alone() -> Around:
    return Around()


async def supervise(
    observe: Callable[[], Mapping[str, Any]],
    ports: Ports,
    wake: asyncio.Event,
    stopped: Callable[[], bool],
    around: Callable[[], Around] = _alone,
) -> None:
    """Keep one Plugin as it should be until it is gone or the controller stops.

    Args:
        observe: returns the Plugin object as last seen.
        ports: the outside.
        wake: set by anyone who saw something change.
        stopped: the controller is stopping; instances go on.
        around: returns the Plugins that it needs and that need it.
    """
    uid = observe()["metadata"]["uid"]
    ports.aside.attend(uid, wake.set)
    try:
        await _supervise(observe, ports, wake, stopped, around)
    finally:
        ports.prober.attend(uid, (), wake.set)
        await ports.aside.forget(uid)


async def _supervise(
    observe: Callable[[], Mapping[str, Any]],
    ports: Ports,
    wake: asyncio.Event,
    stopped: Callable[[], bool],
    around: Callable[[], Around],
) -> None:
    said: PluginStatus | None = None
    read: Read | None = None
    retry = Retry()
    while not stopped():
        wake.clear()
        try:
            seen = observe()
            read = read if read is not None and read.plugin is seen else read_plugin(seen, read)
            turn = await step(read, said, ports, around())
            decision, said = turn.decision, turn.decision.status
            ports.prober.attend(read.identity.uid, decision.watches, wake.set)
            if decision.released:
                return
            if turn.fault is not None:
                raise turn.fault  # noqa: TRY301 - it joins the faults that nobody foresaw
            retry = Retry()
            pause = None if decision.revisit is None else span(decision.revisit, turn.at, ports.now())
        except Exception as error:  # noqa: BLE001 - the one boundary: a Plugin's loop outlives any fault
            retry = retry.after_failure(ports.now())
            pause = retry.pause(ports.now())
            _log_failure(observe(), error, pause)
        await _wait(wake, pause)


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn of the loop came to.

    Attributes:
        decision: what was decided; why nothing could be done, where the runtime did not answer.
        at: what the clock said then, unix seconds.
        fault: that error, to be tried again with backoff.
    """

    decision: Decision
    at: float
    fault: CrucibleError | None = None


async def step(read: Read, said: PluginStatus | None, ports: Ports, around: Around) -> Step:
    """Gather, decide, perform and report once.

    Acting comes before reporting: what was done can be read back from the runtime, so a controller that
    dies in between forgets nothing, and a restart does not wait for the control plane.
    """
    fault: CrucibleError | None = None
    world = await gather(read, said, ports, around)
    decision = decide(world)
    allowed = world.spec if isinstance(world.spec, PluginSpec) and not world.identity.deleting else None
    ports.doors.attend(world.identity, allowed, decision.status)
    if Hold() in decision.actions:  # first, and its conflict is with a newer Plugin: nothing to report
        await perform(Hold(), world.identity, ports)
    try:
        for action in decision.actions:
            if not isinstance(action, Hold):
                await perform(action, world.identity, ports)
        ports.aside.keep(world.identity.uid, {each.attempt for each in decision.status.hooks})
    except (Conflict, Unavailable, Underway) as error:
        decision = without_runtime(replace(world, outage=str(error)))
        fault = error
    if decision.released:
        ports.doors.forget(world.identity.uid)
        await ports.voice.release(world.identity)
        return Step(decision, world.now)
    decision = await _keep_revisions(world, decision, ports)
    if decision.status != world.status:
        await ports.voice.report(world.identity, decision.status)
    changes = transitions(world.status, decision.status)
    if changes:
        ports.chronicle.note(world.identity, changes)
    for event in (*decision.events, *announcements(changes, decision.events)):
        await ports.voice.tell(world.identity, event)
    return Step(decision, world.now, fault)


async def _keep_revisions(world: World, decision: Decision, ports: Ports) -> Decision:
    """Remember and forget revisions; where that cannot be, say nothing of it and try again later."""
    try:
        for each in decision.keeping:
            match each:
                case Remember(revision=revision):
                    await ports.revisions.remember(world.identity, revision)
                case Forget(name=name):
                    await ports.revisions.forget(world.identity, name)
                case _:
                    assert_never(each)
    except CrucibleError as error:
        log.warning(
            "%s/%s: its revisions cannot be kept now: %s",
            world.identity.namespace,
            world.identity.name,
            error,
        )
        status = decision.status.model_copy(update={"history": world.status.history})
        again = min(decision.revisit or math.inf, world.now + _KEEP_RETRY)
        return replace(decision, status=status, revisit=again)
    return decision


async def perform(action: Action, identity: Identity, ports: Ports) -> None:
    """Carry out one action."""
    runtime, plugin_uid = ports.runtime, identity.uid
    match action:
        case Hold():
            await ports.voice.hold(identity)
        case Start(workload=workload, slot=slot):
            await runtime.start(workload, slot)
        case Stop(slot=slot):
            await runtime.stop(plugin_uid, slot)
        case Kill(slot=slot):
            await runtime.kill(plugin_uid, slot)
        case Remove(slot=slot):
            await runtime.remove(plugin_uid, slot)
        case RunHook() | Deliver():
            await _tell_inside(action, identity, ports)
        case Route(slots=slots):
            await runtime.route(plugin_uid, slots)
        case Freeze(slot=slot):
            await runtime.freeze(plugin_uid, slot)
        case Thaw(slot=slot):
            await runtime.thaw(plugin_uid, slot)
        case _:
            assert_never(action)


async def _tell_inside(action: RunHook | Deliver, identity: Identity, ports: Ports) -> None:
    """Have an instance do something itself; what takes a while goes on beside this loop."""
    runtime, plugin_uid = ports.runtime, identity.uid
    match action:
        case RunHook(slot=slot, command=command, seconds=seconds):
            work = partial(run_hook, runtime, plugin_uid, slot, command, seconds)
            ports.aside.begin(plugin_uid, "hook", slot, work)
        case Deliver(slot=slot, how="bus"):
            ports.aside.begin(plugin_uid, "config", slot, partial(_ask_to_take, action, identity, ports))
        case Deliver(slot=slot, config=config, how=how):
            await runtime.deliver(plugin_uid, slot, config, signal=how == "signal")


async def _ask_to_take(action: Deliver, identity: Identity, ports: Ports) -> str:
    """Call an instance with its new configuration; one that does not take it has to go.

    Returns what it said; nothing where it cannot be asked now, for it is asked again soon.
    """
    slot, name = action.slot, f"{identity.name}-{action.slot}"
    try:
        refused = await ports.doors.configure(identity.uid, slot, action.config)
        if refused:
            await ports.voice.tell(identity, config_not_taken(name, refused))
            await ports.runtime.stop(identity.uid, slot)
            return refused
        await ports.runtime.deliver(identity.uid, slot, action.config, signal=False)
    except CrucibleError:
        return ""  # it is not on the bus yet, or not any more, or the runtime does not answer
    await ports.voice.tell(identity, config_taken(name))
    return "taken"


def _log_failure(plugin: Mapping[str, Any], error: Exception, pause: float) -> None:
    """Say once what went wrong; a fault nobody foresaw comes with its traceback."""
    name = f"{plugin['metadata'].get('namespace')}/{plugin['metadata'].get('name')}"
    # A host on which no more threads may be begun: Python has no type of error for that.
    foreseen = isinstance(error, CrucibleError) or str(error) == _NO_THREAD
    log.warning(
        "%s: %s; next try in %.1f s",
        name,
        error or type(error).__name__,
        pause,
        exc_info=None if foreseen else error,
    )


async def _wait(wake: asyncio.Event, pause: float | None) -> None:
    """Sleep until woken, or until the pause (seconds; None: for ever) is over."""
    if pause is not None and pause <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(pause):
            await wake.wait()
    except TimeoutError:
        return
