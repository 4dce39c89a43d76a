"""One coroutine per Plugin: gather what is, decide, perform, report; then wait until something changes."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from pydantic import ValidationError

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.core.report import hook_failed, without_runtime
from crucible.errors import (
    Conflict,
    CrucibleError,
    InvalidManifest,
    InvalidSource,
    Unavailable,
    Underway,
    Violation,
)
from crucible.model.decision import Deliver, Forget, Hold, Kill, Remember, Remove, Start, Stop
from crucible.model.manifest import PluginSpec
from crucible.model.neighbour import Around
from crucible.model.plugin import read_identity
from crucible.model.revision import revision_name
from crucible.model.status import PluginStatus
from crucible.model.world import Reach, Waiting, World

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from crucible.model.decision import Action, Decision, Event
    from crucible.model.health import Check, Streak, Watch
    from crucible.model.manifest import PreStop
    from crucible.model.plugin import Identity
    from crucible.model.revision import Revision
    from crucible.model.secret import SecretSeen
    from crucible.model.status import SourceReport
    from crucible.model.workload import Slot
    from crucible.runtimes.base import Runtime

_RETRY_FIRST = 0.5
_RETRY_LONGEST = 30.0
_KEEP_RETRY = 30.0

log = logging.getLogger(__name__)


class Sources(Protocol):
    """Turns ``spec.source`` into files that do not change any more."""

    async def resolve(self, identity: Identity, spec: PluginSpec, known: SourceReport | None) -> SourceReport:
        """Return the digest of the source, taking a snapshot where there is none yet.

        Args:
            identity: of the Plugin.
            spec: what it asks for.
            known: what the source was resolved to before.

        Raises:
            InvalidSource: it does not exist, leaves its folder or is too large.
            Underway: it is being fetched; the loop is rung when there is more to say.
            Unavailable: whoever has it does not answer.
        """
        ...

    def sweep(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Delete what was resolved a while ago and is not wanted; return the digests."""
        ...


class Voice(Protocol):
    """What the loop says to the control plane."""

    async def report(self, identity: Identity, status: PluginStatus) -> None:
        """Replace the Plugin's status.

        Raises:
            NotFound: the Plugin is gone.
            Unavailable: the control plane does not answer.
        """
        ...

    async def tell(self, identity: Identity, event: Event) -> None:
        """Record an event; one that cannot be recorded is logged and lost."""
        ...

    async def hold(self, identity: Identity) -> None:
        """Keep the Plugin from disappearing: add the finalizer.

        Raises:
            Conflict: the Plugin changed since ``identity`` was read.
            NotFound: the Plugin is gone.
        """
        ...

    async def release(self, identity: Identity) -> None:
        """Let the Plugin disappear: remove the finalizer."""
        ...


class Endpoints(Protocol):
    """Looks at endpoints that someone else runs."""

    async def reach(self, url: str) -> Reach:
        """Return whether it answers; takes seconds at most, and never raises."""
        ...


class Revisions(Protocol):
    """Keeps what Plugins ran as."""

    async def remember(self, identity: Identity, revision: Revision) -> None:
        """Keep a revision; one that is kept already is a success."""
        ...

    async def recall(self, identity: Identity, name: str) -> Revision | None:
        """Return a revision; None where it is not there or of no use."""
        ...

    async def forget(self, identity: Identity, name: str) -> None:
        """Keep a revision no longer; one that is gone is a success."""
        ...


class Prober(Protocol):
    """Goes on asking instances what their probes say."""

    def streaks(self, plugin_uid: str) -> Mapping[tuple[int, Check], Streak]:
        """Return the newest answers of a plugin's instances, by attempt and check."""
        ...

    def attend(self, plugin_uid: str, watches: Sequence[Watch], news: Callable[[], None]) -> None:
        """Watch these probes of a plugin, and no others; call ``news`` when their answers change."""
        ...


class Secrets(Protocol):
    """Knows which Secrets there are."""

    def look(self, namespace: str, names: Sequence[str]) -> tuple[SecretSeen, ...]:
        """Return what is known of Secrets, without what is in them."""
        ...


class Doorkeeper(Protocol):
    """Says to whoever is behind the doors who comes through them, and what that one may do there."""

    def attend(self, identity: Identity, spec: PluginSpec | None, status: PluginStatus) -> None:
        """Say what a Plugin may do now, and how it is; None: it is refused or going, and may do nothing."""
        ...

    def forget(self, plugin_uid: str) -> None:
        """Say that a Plugin is gone."""
        ...

    def notices(self, plugin_uid: str) -> tuple[str, ...]:
        """Return what there is to say of a Plugin, for people."""
        ...


class NoDoors:
    """Where there is nothing behind any door."""

    def attend(self, identity: Identity, spec: PluginSpec | None, status: PluginStatus) -> None:
        """Nobody hears."""

    def forget(self, plugin_uid: str) -> None:
        """Nobody knew."""

    def notices(self, plugin_uid: str) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Nobody says anything."""
        return ()


@dataclass(frozen=True, slots=True)
class Ports:
    """All that a supervised Plugin touches of the outside."""

    runtime: Runtime
    sources: Sources
    voice: Voice
    endpoints: Endpoints
    prober: Prober
    revisions: Revisions
    now: Callable[[], float]
    secrets: Secrets
    doors: Doorkeeper = field(default_factory=NoDoors)


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
    try:
        await _supervise(observe, ports, wake, stopped, around)
    finally:
        ports.prober.attend(observe()["metadata"]["uid"], (), wake.set)


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
            pause = None if decision.revisit is None else decision.revisit - ports.now()
        except Exception as error:  # noqa: BLE001 - the one boundary: a Plugin's loop outlives any fault
            retry = retry.after_failure(ports.now())
            pause = retry.pause(ports.now())
            _log_failure(observe(), error, pause)
        await _wait(wake, pause)


@dataclass(frozen=True, slots=True)
class Retry:
    """When to try again what failed.

    The pause doubles each time it has been waited out. Whoever wakes the loop before is answered by one more
    try, which does not move the next: ten changes in a second do not put a plugin off for minutes.

    Attributes:
        failures: how many pauses there were, this one included.
        due: unix seconds of the next try.
    """

    failures: int = 0
    due: float = 0.0

    def after_failure(self, now: float) -> Retry:
        """Return what follows a try that failed at ``now``."""
        if now < self.due:
            return self
        return Retry(self.failures + 1, now + self._delay(self.failures + 1))

    def pause(self, now: float) -> float:
        """Return seconds until the next try, also where the clock was put back since."""
        return min(self.due - now, self._delay(self.failures))

    @staticmethod
    def _delay(failures: int) -> float:
        return min(_RETRY_FIRST * 2.0 ** (failures - 1), _RETRY_LONGEST)


@dataclass(frozen=True, slots=True)
class Read:
    """A Plugin object and what was read of it; read again only when another object comes in.

    Attributes:
        plugin: the object as the control plane holds it.
        identity: who it is.
        spec: what it asks for, or why that cannot be.
    """

    plugin: Mapping[str, Any]
    identity: Identity
    spec: PluginSpec | tuple[Violation, ...]


def read_plugin(plugin: Mapping[str, Any], before: Read | None = None) -> Read:
    """Read and check a Plugin object; what it says of itself is not checked again where it says the same.

    Every status that is written brings the object back, so that half of all objects say nothing new.
    """
    if before is not None and _says_the_same(plugin, before.plugin):
        return Read(plugin, read_identity(plugin), before.spec)
    try:
        return Read(plugin, read_identity(plugin), admit(plugin))
    except InvalidManifest as error:
        return Read(plugin, read_identity(plugin), error.violations)


def _says_the_same(plugin: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    meta, others = plugin["metadata"], other["metadata"]
    return plugin.get("spec") == other.get("spec") and all(
        meta.get(key) == others.get(key) for key in ("name", "labels", "annotations")
    )


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn of the loop came to.

    Attributes:
        decision: what was decided; why nothing could be done, where the runtime did not answer.
        fault: that error, to be tried again with backoff.
    """

    decision: Decision
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
    await run_hooks(decision, world, ports)
    try:
        for action in decision.actions:
            if not isinstance(action, Hold):
                await perform(action, world.identity, ports)
    except (Conflict, Unavailable, Underway) as error:
        decision = without_runtime(replace(world, outage=str(error)))
        fault = error
    if decision.released:
        ports.doors.forget(world.identity.uid)
        await ports.voice.release(world.identity)
        return Step(decision)
    decision = await _keep_revisions(world, decision, ports)
    if decision.status != world.status:
        await ports.voice.report(world.identity, decision.status)
    for event in decision.events:
        await ports.voice.tell(world.identity, event)
    return Step(decision, fault)


async def run_hooks(decision: Decision, world: World, ports: Ports) -> None:
    """Run what instances are to do before they are asked to end, all at once, each for its time at most."""
    names = {instance.slot: instance.name for instance in world.instances}
    hooks = [(each.slot, each.hook) for each in decision.actions if isinstance(each, Stop) and each.hook]
    for slot, problem in zip(
        (slot for slot, _ in hooks),
        await asyncio.gather(*(_run_hook(world, slot, hook, ports) for slot, hook in hooks)),
        strict=True,
    ):
        if problem:
            await ports.voice.tell(world.identity, hook_failed(names.get(slot, str(slot)), problem))


async def _run_hook(world: World, slot: Slot, hook: PreStop, ports: Ports) -> str:
    """Run one hook; return why it did not do its part, empty when it did."""
    try:
        async with asyncio.timeout(hook.timeout):
            session = await ports.runtime.exec(world.identity.uid, slot, hook.command, stdin=False, tty=False)
            try:
                async for _ in session.output():
                    continue  # it goes nowhere, and would hold up the command if nobody took it
                code = await session.wait()
            finally:
                await session.close()
    except TimeoutError:
        return f"did not end within {hook.timeout:g} s"
    except CrucibleError as error:
        return f"cannot be run: {error}"
    return f"ended with status {code}" if code else ""


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


async def _recall(read: Read, status: PluginStatus, ports: Ports) -> dict[str, Revision]:
    """Read the revisions that are, or may be, to run in the place of the wanted one."""
    _, _, asked = read.identity.rollback.partition(" ")
    decided = status.rollback.revision if status.rollback is not None else ""
    known = {each.revision for each in status.history}
    found: dict[str, Revision] = {}
    for wanted in sorted({asked, decided} & known):
        name = revision_name(read.identity.name, wanted)
        revision = await ports.revisions.recall(read.identity, name)
        if revision is not None:
            found[wanted] = await _with_source(read, revision, ports)
    return found


async def _with_source(read: Read, revision: Revision, ports: Ports) -> Revision:
    """Make sure of the files that stand in the manifest itself; a folder's are kept with the revision."""
    if revision.spec.source.inline is None:
        return revision
    return replace(
        revision, source=await ports.sources.resolve(read.identity, revision.spec, revision.source)
    )


async def gather(read: Read, said: PluginStatus | None, ports: Ports, around: Around) -> World:
    """Read everything a decision looks at.

    Args:
        read: the Plugin as last seen.
        said: the status this controller reported last; it may be newer than the object's.
        ports: the outside.
        around: the Plugins that it needs and that need it.
    """
    status = said or read_status(read.plugin.get("status"))
    source = await _resolve(read, status, ports.sources)
    return World(
        now=ports.now(),
        identity=read.identity,
        spec=read.spec,
        source=source,
        capabilities=ports.runtime.capabilities,
        instances=ports.runtime.instances(read.identity.uid),
        status=status,
        reach=await _look(read, ports.endpoints),
        outage=ports.runtime.outage,
        streaks=dict(ports.prober.streaks(read.identity.uid)),
        secrets=_look_at_secrets(read, ports.secrets),
        around=around,
        recalled=await _recall(read, status, ports),
        started_lately=_started_lately(read, ports),
        notices=ports.doors.notices(read.identity.uid),
    )


def _started_lately(read: Read, ports: Ports) -> int:
    """Count the starts of the last second, of whatever plugin, for one that may be started after an end."""
    if all(instance.alive for instance in ports.runtime.instances(read.identity.uid)):
        return 0
    since = ports.now() - 1
    return sum(instance.created_at > since for instance in ports.runtime.instances())


async def _resolve(read: Read, status: PluginStatus, sources: Sources) -> SourceReport | Violation | Waiting:
    if not isinstance(read.spec, PluginSpec) or read.identity.deleting:
        return Violation("spec.source", "is not looked at: the plugin is refused or being deleted")
    try:
        return await sources.resolve(read.identity, read.spec, status.source)
    except Underway as error:
        return Waiting(str(error))
    except (InvalidSource, Unavailable) as error:
        return Violation("spec.source", str(error))


async def _look(read: Read, endpoints: Endpoints) -> Reach | None:
    if not isinstance(read.spec, PluginSpec) or read.identity.deleting or read.spec.source.url is None:
        return None
    return Reach(ok=False, message="") if read.spec.suspend else await endpoints.reach(read.spec.source.url)


def _look_at_secrets(read: Read, secrets: Secrets) -> tuple[SecretSeen, ...]:
    if not isinstance(read.spec, PluginSpec) or not read.spec.capabilities.secrets:
        return ()
    return secrets.look(read.identity.namespace, read.spec.capabilities.secrets)


def read_status(status: object) -> PluginStatus:
    """Read what was said before; a status that cannot be read counts as nothing said."""
    try:
        return PluginStatus.model_validate(status or {})
    except ValidationError as error:
        log.warning("the stored status cannot be read and is written anew: %s", error)
        return PluginStatus()


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
        case Deliver(slot=slot, config=config, signal=signal):
            await runtime.deliver(plugin_uid, slot, config, signal=signal)
        case _:
            assert_never(action)


def _log_failure(plugin: Mapping[str, Any], error: Exception, pause: float) -> None:
    """Say once what went wrong; a fault nobody foresaw comes with its traceback."""
    name = f"{plugin['metadata'].get('namespace')}/{plugin['metadata'].get('name')}"
    foreseen = isinstance(error, CrucibleError)
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
