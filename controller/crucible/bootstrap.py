"""Puts the adapters together: the only place that knows which ones there are."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import threading
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from crucible.backbone.keeper import Keeper
from crucible.backbone.local import Seal
from crucible.backbone.server import ServerPlace
from crucible.collector import collect_rarely
from crucible.control.apiserver import ApiServer, ServerSettings
from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint
from crucible.control.operator import Loops, operate
from crucible.control.pods import RuntimePods
from crucible.control.revisions import ApiRevisions
from crucible.control.secrets import COLLECTION, LocalSecrets, remembered_key, wanted_by
from crucible.control.voice import ApiVoice
from crucible.core.admission import violations_of
from crucible.core.alerts import Host, evaluate
from crucible.doorkeeper import Doorkeeper, TellingVoice
from crucible.errors import Conflict, CrucibleError, Unsupported
from crucible.figures import Heart, Standing, figures
from crucible.manifests.upkeep import keep_applied
from crucible.model import names
from crucible.model.crd import plugin_crd
from crucible.model.plugin import read_identity
from crucible.model.revision import revision_crd
from crucible.packages.snapshot import SnapshotStore
from crucible.packages.sources import Resolver
from crucible.ports import Ports
from crucible.probes.endpoints import HttpEndpoints
from crucible.probes.prober import Prober
from crucible.runtimes.process import ProcessRuntime, ProcessSettings
from crucible.settings import default_cache
from crucible.sweep import sweep
from crucible.telemetry import logs
from crucible.telemetry.alerts import Courier
from crucible.telemetry.chronicle import Chronicle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from crucible.control.apiserver.keys import Key
    from crucible.core.alerts import Alert
    from crucible.model.decision import Event
    from crucible.model.volume import HostVolume
    from crucible.packages.sources import Images
    from crucible.ports import Voice
    from crucible.runtimes.base import Runtime
    from crucible.runtimes.secrets import SecretsOf
    from crucible.settings import Places
    from crucible.telemetry.alerts import Receiver
    from crucible.telemetry.logs import Format

SWEEP_INTERVAL = 60.0
"""Seconds between two searches for what nobody wants any more."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UpOptions:
    """How to run a local control plane.

    Attributes:
        places: its state folder.
        runtime: what makes instances.
        port: of the API server; 0 takes the one used last, or any that is free.
        log_format: of the controller's own log.
        verbose: log more.
        on_ready: called with the kubeconfig's path once Plugins are supervised.
        cgroup_parent: path below the cgroup mount that was delegated to this user; None: the host decides.
        manifests: folder of manifests to keep applied; absolute, because its path names the set.
        host_always: serve the host application on the bus even when no plugin uses it.
        volumes: folders that plugins may be granted.
        backbone: file that says how this machine is joined to others; absolute; None: it is not.
        secrets_key: file with the key that encrypts Secrets at rest, made if absent; None: they are not.
        alerts: who is told of what is wrong; None: nobody.
    """

    places: Places
    runtime: str = "process"
    port: int = 0
    log_format: Format = "text"
    verbose: bool = False
    on_ready: Callable[[Path], None] = lambda _: None
    cgroup_parent: str | None = None
    manifests: Path | None = None
    secrets_key: Path | None = None
    host_always: bool = False
    alerts: Receiver | None = None
    volumes: tuple[HostVolume, ...] = ()
    backbone: Path | None = None


def run(options: UpOptions) -> None:
    """Run a local control plane until SIGINT or SIGTERM. Instances go on running afterwards.

    Raises:
        Unsupported: this host cannot run the runtime asked for.
        Conflict: another control plane uses the state folder.
    """
    os.umask(0o077)
    logs.configure(options.log_format, verbose=options.verbose)
    collect_rarely()
    asyncio.run(serve(options, asyncio.Event()))


async def serve(options: UpOptions, stop: asyncio.Event) -> None:
    """Run a local control plane until told to stop; in the main thread SIGINT and SIGTERM tell it too.

    Its event loop is its own: on its way out kopf ends every task there.

    Raises:
        Unsupported: this host cannot run the runtime asked for.
        Conflict: another control plane uses the state folder.
    """
    _stop_on_signals(stop)
    places = options.places
    places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = SnapshotStore(places.sources)
    known = LocalSecrets(
        lambda namespace, name: server.peek(COLLECTION, namespace, name),
        remembered_key(places.root / "secrets.key"),
    )
    adapters = make_adapters(options, store, known.read)
    runtime = adapters.runtime
    pods = RuntimePods(runtime)

    async with AsyncExitStack() as stack:
        server = ApiServer(
            ServerSettings(places.control, port=options.port, secrets_key=options.secrets_key),
            crds=[plugin_crd(), revision_crd()],
            admit=violations_of,
            pods=pods,
        )
        await stack.enter_async_context(server)  # first: it holds the lock on the state folder
        client = await stack.enter_async_context(Client(load_endpoint(places.kubeconfig)))
        endpoints = await stack.enter_async_context(HttpEndpoints())
        voice = ApiVoice(client, "crucible", time.time)
        always = options.host_always or options.backbone is not None
        identity, seal = control_plane_id(places.root / "id"), Seal(places.bus_authority)
        doors = Doorkeeper(runtime, places, identity, host_always=always, seal=seal.serving)
        pods.rates.traffic = doors.traffic
        prober = Prober(runtime, time.time, doors.liaison.call)
        stack.push_async_callback(prober.close)
        sources, told = Resolver(store, adapters.images), TellingVoice(voice, doors, time.time)
        revisions = ApiRevisions(client)
        chronicle, heart = Chronicle(), Heart()
        ports = Ports(
            runtime, sources, told, endpoints, prober, revisions, time.time, known, doors, chronicle
        )
        loops = Loops(ports)
        beating = asyncio.create_task(heart.go_on())
        stack.callback(beating.cancel)
        server.tell_figures(lambda: figures(_standing(loops, chronicle, heart, runtime, doors)))
        server.listen(lambda key: _ring_for_secret(loops, key))

        def changed(plugin_uid: str) -> None:
            loops.ring(plugin_uid)
            doors.refresh(plugin_uid)
            pods.tell()

        await runtime.open(changed)
        stack.push_async_callback(runtime.close)
        doors.open(loops.ring, _recorder(loops, told))
        stack.push_async_callback(doors.close)
        keeper = asyncio.create_task(_keep_backbone(options, doors))
        stack.callback(keeper.cancel)
        pods.tell()
        sweeping = partial(_sweep_for_ever, client, ports, loops, doors)
        await _operate(options, client, loops, sweeping, stop)


def _standing(
    loops: Loops, chronicle: Chronicle, heart: Heart, runtime: Runtime, doors: Doorkeeper
) -> Standing:
    return Standing(
        loops.objects(),
        loops.turns,
        chronicle.counts,
        heart.age,
        bool(runtime.outage),
        shut=bool(doors.shut),
    )


def _recorder(loops: Loops, voice: Voice) -> Callable[[str, Event], None]:
    """Return what records an event of a Plugin, by uid, and waits for nobody."""
    telling: set[asyncio.Task[None]] = set()

    def record(plugin_uid: str, event: Event) -> None:
        plugin = loops.find(plugin_uid)
        if plugin is not None:
            telling.add(task := asyncio.create_task(voice.tell(read_identity(plugin), event)))
            task.add_done_callback(telling.discard)

    return record


async def _keep_backbone(options: UpOptions, doors: Doorkeeper) -> None:
    """Keep this machine joined to others, as a file says."""
    places = options.places
    place = ServerPlace(places.backbone, control_plane_id(places.root / "id"))
    await Keeper(options.backbone, place, doors.join).keep()


def _ring_for_secret(loops: Loops, key: Key) -> None:
    """Wake the Plugins that name a Secret which changed."""
    if key.collection == COLLECTION:
        loops.ring_those(
            lambda plugin: plugin["metadata"]["namespace"] == key.namespace and key.name in wanted_by(plugin)
        )


async def _operate(
    options: UpOptions,
    client: Client,
    loops: Loops,
    sweeping: Callable[[], Coroutine[Any, Any, None]],
    stop: asyncio.Event,
) -> None:
    """Supervise, sweep and keep a folder applied until told to stop; a fault of one ends all."""
    ready = asyncio.Event()
    endpoint = load_endpoint(options.places.kubeconfig)
    async with asyncio.TaskGroup() as group:
        operator = group.create_task(operate(endpoint, loops, ready=ready, stop=stop))
        await _first(ready, operator)
        _stop_on_signals(stop)  # kopf put its own handlers in place
        options.on_ready(options.places.kubeconfig)
        helpers = [group.create_task(sweeping())]
        if options.manifests is not None:
            helpers.append(group.create_task(keep_applied(options.manifests, client)))
        if options.alerts is not None:
            helpers.append(group.create_task(_alert_for_ever(options.alerts, loops, options.places.root)))
        await _first(stop, operator)
        stop.set()
        for helper in helpers:
            helper.cancel()


async def _alert_for_ever(receiver: Receiver, loops: Loops, root: Path) -> None:
    """Tell a receiver what is wrong, until cancelled."""

    def look() -> tuple[Alert, ...]:
        return evaluate(loops.objects(), host_of(root), time.time())

    async with Courier(receiver, look, time.time) as courier:
        await courier.run()


def host_of(root: Path) -> Host:
    """Return how much room is left where the state is; nothing where that cannot be seen."""
    try:
        found = os.statvfs(root)
    except OSError:
        return Host()
    return Host(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _stop_on_signals(stop: asyncio.Event) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # signals are the host application's
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _first(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Wait until an event is set or a task has ended."""
    waiter = asyncio.create_task(event.wait())
    await asyncio.wait({waiter, task}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()


async def _sweep_for_ever(client: Client, ports: Ports, loops: Loops, doors: Doorkeeper) -> None:
    """Clear away what no Plugin owns: at the start, whenever one is gone, and now and then."""
    path = f"/apis/{names.API_VERSION}/{names.PLURAL}"
    while True:
        loops.gone.clear()
        try:
            plugins = (await client.get(path))["items"]
            uids = [plugin["metadata"]["uid"] for plugin in plugins]
            loops.compare(uids)
            await doors.compare(uids)
            await sweep(plugins, ports)
        except (CrucibleError, OSError) as error:
            log.warning("no sweep this time: %s", error)
        try:
            async with asyncio.timeout(SWEEP_INTERVAL):
                await loops.gone.wait()
        except TimeoutError:
            continue


@dataclass(frozen=True, slots=True)
class Adapters:
    """A runtime, and what fetches images for it; None where it takes none."""

    runtime: Runtime
    images: Images | None = None


def make_adapters(options: UpOptions, store: SnapshotStore, secrets_of: SecretsOf) -> Adapters:
    """Return the runtime asked for.

    Raises:
        Unsupported: there is none of that name.
        Conflict: the state folder holds instances of another runtime, which would be left without a master.
    """
    places = options.places
    control_plane, seal = control_plane_id(places.root / "id"), Seal(places.bus_authority)
    _check_single(options.runtime, {"process": places.process, "docker": places.docker})
    match options.runtime:
        case "process":
            settings = ProcessSettings(
                state_dir=places.process,
                control_plane=control_plane,
                cgroup_parent=options.cgroup_parent,
                roots_cache=default_cache() / "roots",
                volumes=options.volumes,
                bus_authority=seal.authority,
            )
            return Adapters(ProcessRuntime(settings, store.path_of, secrets_of))
        case "docker":
            from crucible.runtimes.docker import DockerRuntime, DockerSettings  # noqa: PLC0415 - 40 ms

            chosen = DockerSettings(
                places.docker, control_plane, volumes=options.volumes, bus_authority=seal.authority
            )
            docker = DockerRuntime(chosen, store.path_of, secrets_of)
            return Adapters(docker, docker.images)
        case _:
            raise Unsupported(f"runtime {options.runtime} is not supported: use process or docker")


def _check_single(wanted: str, folders: Mapping[str, Path]) -> None:
    for name, folder in folders.items():
        instances = folder / "instances"
        if name != wanted and any(instances.glob("*/*")):
            raise Conflict(
                f"{folder.parent} holds instances of the {name} runtime: start once more with "
                f"--runtime {name} and delete or suspend its plugins, or use another --state"
            )


def control_plane_id(path: Path) -> str:
    """Return this control plane's id, which marks everything it makes; made up the first time."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_text(secrets.token_hex(4))
        fresh.replace(path)
    return path.read_text().strip()
