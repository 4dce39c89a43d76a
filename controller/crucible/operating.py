"""Puts together the operator of a cluster, as ``bootstrap`` does for the control plane of one machine."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crucible.clusterdoors import ClusterDoors
from crucible.collector import collect_rarely
from crucible.control.backlog import Backlog
from crucible.control.cluster import ClusterClient, find_endpoint
from crucible.control.lease import Lease
from crucible.control.operator import Loops, operate
from crucible.control.revisions import ApiRevisions
from crucible.control.secrets import MountedSecrets
from crucible.control.voice import ApiVoice
from crucible.core.alerts import Host, evaluate
from crucible.core.doors import BUS_PORT, PROXY_PORT
from crucible.doorkeeper import TellingVoice
from crucible.errors import CrucibleError, InvalidInput, NotFound, Unavailable
from crucible.figures import Heart, Standing, figures
from crucible.model import names
from crucible.packages.inline import InlineSources
from crucible.ports import NoDoors, Ports
from crucible.probes.endpoints import HttpEndpoints
from crucible.probes.prober import Prober
from crucible.runtimes.kubernetes import KubernetesRuntime, KubernetesSettings
from crucible.runtimes.kubernetes.nodes import give_user_namespaces
from crucible.runtimes.kubernetes.settings import DoorService
from crucible.sweep import orphans, running_sources, wanted_sources
from crucible.telemetry import logs
from crucible.telemetry.alerts import Courier
from crucible.telemetry.chronicle import Chronicle
from crucible.telemetry.http import Desk, answering
from crucible.terms import be_seen_turning, lead, timed_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path

    from crucible.control.kubeconfig import Endpoint
    from crucible.core.alerts import Alert
    from crucible.model.volume import ClaimVolume
    from crucible.ports import Voice
    from crucible.telemetry.alerts import Receiver
    from crucible.telemetry.logs import Format
    from crucible.terms import Term

log = logging.getLogger(__name__)

LEASE: Final = "crucible-operator"
SWEEP_INTERVAL: Final = 60.0
"""Seconds between two searches for what nobody wants any more."""
_BLOCKED: Final = 60.0
"""Seconds after which an operator ends whose event loop did not turn, if nobody asks whether it is well."""
_ENDING: Final = 20.0
"""Seconds in which the process has to be gone once its work is over."""
_RETRY: Final = 2.0
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Images:
    """Where nodes get the types' images from.

    Attributes:
        prefix: before ``/TYPE:TAG``.
        tag: of each.
        pull_policy: when nodes ask the registry.
        pull_secret: name of a Secret in each namespace of plugins; empty: none.
    """

    prefix: str
    tag: str
    pull_policy: str = "IfNotPresent"
    pull_secret: str = ""


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """How to run the operator of a cluster; the words are those of ``crucible operator --help``."""

    images: Images
    identity: str
    namespaces: tuple[str, ...] = ()
    lease_namespace: str = ""
    seccomp: str = ""
    user_namespaces: str = "auto"
    network_policies: bool = False
    vm_runtime_class: str = ""
    priority_class: str = ""
    volumes: tuple[ClaimVolume, ...] = ()
    egress: str = ""
    bus: str = ""
    stores: bool = False
    health_port: int = 8080
    metrics_port: int = 9090
    kubeconfig: Path | None = None
    alerts: Receiver | None = None
    log_format: Format = "text"
    verbose: bool = False


@dataclass(slots=True)
class Life:
    """What the operator's desk tells of.

    Attributes:
        lease: our part in the leadership.
        heart: shows whether the event loop turns.
        chronicle: how Plugins changed in all terms.
        loops: of the term in office; None while we stand by.
        runtime: of the term in office.
        turns: of terms that are over.
        term: the one in office.
    """

    lease: Lease
    heart: Heart = field(default_factory=Heart)
    chronicle: Chronicle = field(default_factory=Chronicle)
    loops: Loops | None = None
    runtime: KubernetesRuntime | None = None
    turns: int = 0
    term: Term | None = None

    def enter(self, term: Term, loops: Loops, runtime: KubernetesRuntime) -> None:
        """A term begins."""
        self.term, self.loops, self.runtime = term, loops, runtime

    def leave(self) -> None:
        """A term is over."""
        self.turns += self.loops.turns if self.loops is not None else 0
        self.loops = self.runtime = self.term = None

    def ill(self) -> str:
        """Return why this process should be restarted."""
        return self.heart.trouble or (self.runtime.broken if self.runtime is not None else "")

    def unready(self) -> str:
        """Return why it should not be counted on: a standby that sees the Lease is as ready as a leader."""
        if not self.lease.seen:
            return "the lease cannot be read or renewed"
        if self.term is not None and not self.term.begun.is_set():
            return "Plugins are not watched yet"
        return self.runtime.outage if self.runtime is not None else ""

    def standing(self) -> Standing:
        """Return what is told of this operator."""
        return Standing(
            plugins=self.loops.objects() if self.loops is not None else [],
            turns=self.turns + (self.loops.turns if self.loops is not None else 0),
            transitions=self.chronicle.counts,
            age=self.heart.age,
            outage=self.runtime is not None and bool(self.runtime.outage),
            leader=self.lease.held(),
        )


def run(options: OperatorOptions) -> None:
    """Run the operator until SIGINT or SIGTERM. Plugins go on running afterwards.

    Raises:
        NotFound: there is no cluster to talk to.
    """
    logs.configure(options.log_format, verbose=options.verbose)
    collect_rarely()
    with timed_end(_ENDING) as ending:
        asyncio.run(_run(options, ending))


async def _run(options: OperatorOptions, ending: Callable[[], None]) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    find = partial(find_endpoint, options.kubeconfig)
    try:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(ClusterClient(find))
            place = (options.lease_namespace or find().namespace, LEASE)
            life = Life(Lease(client, place, options.identity, time.monotonic))
            desk = Desk(life.ill, life.unready, lambda: figures(life.standing()))
            answers = answering(desk, options.health_port, options.metrics_port)
            log.info("%s answers on %s", options.identity, await stack.enter_async_context(answers))
            for work in (life.heart.go_on(), be_seen_turning(_BLOCKED)):
                stack.callback(asyncio.create_task(work).cancel)
            while not stop.is_set() and await life.lease.acquire(stop):
                await _lead(options, find, life, stop)
    finally:
        ending()


async def _lead(
    options: OperatorOptions, find: Callable[[], Endpoint], life: Life, stop: asyncio.Event
) -> None:
    """Serve one term; one that ended for what may pass is followed by another."""
    try:
        await lead(life.lease, lambda term: _serve(options, find, life, term, stop), stop)
    except* CrucibleError as group:
        log.warning("the term is over: %s", "; ".join(map(str, group.exceptions)))
        await _first(stop, _RETRY)
    finally:
        gc.collect()  # all loops of this term, before those of the next are there too


async def _serve(
    options: OperatorOptions,
    find: Callable[[], Endpoint],
    life: Life,
    term: Term,
    stop: asyncio.Event,
) -> None:
    """Supervise every Plugin until the term is over."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClusterClient(find, life.lease.held))
        settings = settings_of(
            options,
            await find_service(client, "--egress", options.egress, PROXY_PORT),
            await find_service(client, "--bus", options.bus, BUS_PORT),
            user_namespaces=await give_user_namespaces(client, options.user_namespaces),
        )
        endpoints = await stack.enter_async_context(HttpEndpoints())
        sources = InlineSources(options.images.pull_policy)
        runtime = KubernetesRuntime(client, settings, sources.files_of, time.time)
        doors = None if settings.bus is None else ClusterDoors(client, settings.bus, life.lease.held)
        prober = Prober(runtime, time.time, None if doors is None else doors.lines.call)
        stack.push_async_callback(prober.close)
        voice: Voice = ApiVoice(client, "crucible", time.time, await stack.enter_async_context(Backlog()))
        if doors is not None:
            stack.push_async_callback(doors.close)
            voice = TellingVoice(voice, doors, time.time)
        ports = Ports(
            runtime,
            sources,
            voice,
            endpoints,
            prober,
            ApiRevisions(client),
            time.time,
            MountedSecrets(),
            doors or NoDoors(),
            chronicle=life.chronicle,
        )
        loops = Loops(ports)
        life.enter(term, loops, runtime)
        stack.callback(life.leave)
        stack.push_async_callback(runtime.close)
        await runtime.open(loops.ring)
        async with asyncio.TaskGroup() as group:
            watching = operate(
                find(),
                loops,
                ready=asyncio.Event(),
                stop=term.over,
                namespaces=settings.namespaces,
                renew=find,
                page=_PAGE,
                watched=term.begun,
                begun=lambda: _stop_on_signals(stop),  # kopf put its own handlers in place
            )
            operator = group.create_task(watching)
            sweeper = group.create_task(_sweep_for_ever(client, ports, loops, settings.namespaces))
            alerting = group.create_task(_alert_for_ever(options.alerts, loops))
            speaking = [
                group.create_task(work) for work in (() if doors is None else doors.works(loops.ring))
            ]
            following = group.create_task(runtime.stand())
            await asyncio.wait({operator})
            for task in (sweeper, alerting, following, *speaking):
                task.cancel()


async def _alert_for_ever(receiver: Receiver | None, loops: Loops) -> None:
    """Tell a receiver what is wrong, if there is one, until cancelled: whoever leads does."""
    if receiver is None:
        return

    def look() -> tuple[Alert, ...]:
        return evaluate(loops.objects(), Host(), time.time())

    async with Courier(receiver, look, time.time) as courier:
        await courier.run()


async def find_service(client: ClusterClient, option: str, named: str, port: int) -> DoorService | None:
    """Return what is behind a door, by its ``NAMESPACE/SERVICE``; None where none is named.

    Args:
        client: of the cluster.
        option: that named it.
        named: its value.
        port: that plugins are told.

    Raises:
        InvalidInput: it is none that plugins can reach.
        Unavailable: it is not there: before it is known, nothing is started that needs it.
    """
    if not named:
        return None
    namespace, slash, name = named.partition("/")
    if not (namespace and slash and name):
        raise InvalidInput(f"{option} {named}: write NAMESPACE/SERVICE")
    try:
        spec = (await client.get(f"/api/v1/namespaces/{namespace}/services/{name}")).get("spec") or {}
    except NotFound:
        raise Unavailable(f"{option} {named}: there is no such Service yet") from None
    address, labels = str(spec.get("clusterIP") or "None"), spec.get("selector") or {}
    ports = {port.get("port") for port in spec.get("ports") or ()}
    if address == "None" or not labels or port not in ports:
        raise InvalidInput(
            f"{option} {named}: that Service has to have an address of the cluster, a selector and the port "
            f"{port}, as the chart's has"
        )
    return DoorService(namespace, name, address, tuple(sorted(labels.items())), port)


def settings_of(
    options: OperatorOptions,
    egress: DoorService | None,
    bus: DoorService | None,
    *,
    user_namespaces: bool,
) -> KubernetesSettings:
    """Return what is known of a cluster: from its administrator, its nodes, its doors."""
    return KubernetesSettings(
        images=options.images.prefix,
        tag=options.images.tag,
        pull_policy=options.images.pull_policy,
        pull_secret=options.images.pull_secret,
        seccomp=options.seccomp,
        user_namespaces=user_namespaces,
        network_policies=options.network_policies,
        vm_runtime_class=options.vm_runtime_class,
        priority_class=options.priority_class,
        volumes=options.volumes,
        namespaces=options.namespaces,
        egress=egress,
        bus=bus,
        stores=options.stores,
    )


async def _sweep_for_ever(
    client: ClusterClient, ports: Ports, loops: Loops, namespaces: Collection[str]
) -> None:
    """Clear away what no Plugin owns: at the start, and now and then."""
    while True:
        # Whoever came up while the list was on its way is not in it, and is no orphan for that.
        instances, known = ports.runtime.instances(), loops.uids()
        try:
            listed: set[str] = set()
            sources: set[str] = set()
            for namespace in namespaces or ("",):
                async for page in _pages(client, namespace):
                    listed |= {plugin["metadata"]["uid"] for plugin in page}
                    sources |= wanted_sources(page)
            loops.compare({*listed, *(set(loops.uids()) - set(known))})
            for instance in () if ports.runtime.outage else orphans(listed, instances):
                log.warning("%s belongs to no plugin any more: removed", instance.name)
                await ports.runtime.remove(instance.plugin_uid, instance.slot)
            ports.sources.sweep(sources | running_sources(ports.runtime.instances()))
        except CrucibleError as error:
            log.warning("no sweep this time: %s", error)
        await asyncio.sleep(SWEEP_INTERVAL)


async def _pages(client: ClusterClient, namespace: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield all Plugins, so many at a time that neither memory nor the loops notice."""
    where = f"namespaces/{namespace}/" if namespace else ""
    params = {"limit": str(_PAGE), "continue": ""}
    while True:
        page = await client.get(f"/apis/{names.API_VERSION}/{where}{names.PLURAL}", params)
        yield page["items"]
        params["continue"] = str(page["metadata"].get("continue") or "")
        if not params["continue"]:
            return


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _first(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, or for some seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
