"""Puts together the broker of a cluster: who has which address, what each may do, and who vouches for it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop

from crucible.backbone.authority import fresh_authority, is_fresh, utc_now
from crucible.bus.broker import Broker
from crucible.bus.credentials import renew, serving
from crucible.bus.gate import Gate, Visitor
from crucible.control.cluster import ClusterClient, find_endpoint
from crucible.control.voice import ApiVoice
from crucible.core.admission import admit
from crucible.core.bus import is_on_bus, limit_event, member_of, refusal_event
from crucible.core.doors import BUS_PORT
from crucible.errors import CrucibleError, InvalidManifest
from crucible.figures import Heart
from crucible.gathering import read_status
from crucible.model.door import Door, Doorway
from crucible.model.plugin import Identity, read_identity
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.doorman import Doorman, owner_at
from crucible.runtimes.kubernetes.upkeep import collection
from crucible.telemetry import logs
from crucible.telemetry.http import Desk, answering
from crucible.telemetry.metrics import Family, exposition, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from crucible.backbone.authority import Issued
    from crucible.core.egress import Address
    from crucible.model.decision import Event
    from crucible.telemetry.logs import Format

log = logging.getLogger(__name__)

_COMPONENT: Final = "crucible-broker"
_BACKLOG: Final = 512
_STUCK: Final = 30.0
_AGAIN: Final = 60.0
"""Seconds between two looks whether namespaces still say who vouches for the broker."""
_RETRY: Final = 2.0
_NEWS: Final = 600.0
"""Seconds between two events that say what a plugin does too much of."""


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How to run the broker of a cluster; the words are those of ``crucible broker --help``."""

    namespaces: tuple[str, ...] = ()
    address: str = ""
    port: int = BUS_PORT
    wait: float = 10.0
    health_port: int = 8080
    metrics_port: int = 9090
    kubeconfig: Path | None = None
    log_format: Format = "text"
    verbose: bool = False


def run(options: BrokerOptions) -> None:
    """Run the broker until SIGINT or SIGTERM.

    Raises:
        NotFound: there is no cluster to talk to.
    """
    logs.configure(options.log_format, verbose=options.verbose)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options))


async def _run(options: BrokerOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    find = partial(find_endpoint, options.kubeconfig)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClusterClient(find))
        hub = Hub(client, options)
        desk = Desk(hub.ill, hub.unready, lambda: figures(hub))
        ports = await stack.enter_async_context(answering(desk, options.health_port, options.metrics_port))
        listener = _listen(options.address, options.port)
        log.info("answers on %s", {**ports, "bus": listener.getsockname()[1]})
        async with asyncio.TaskGroup() as group:
            serving_pods = group.create_task(hub.gate.serve(listener))
            tasks = [group.create_task(work) for work in hub.works()]
            await stop.wait()
            log.info("stops: whoever is connected is cut off")
            for task in (serving_pods, *tasks):
                task.cancel()


def _listen(address: str, port: int) -> socket.socket:
    """Listen; at every address, of both families where there are, where none is named."""
    if address or not socket.has_dualstack_ipv6():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=_BACKLOG)
    return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)


class Hub:
    """The broker and what it is told by the cluster. Keeps the contract of a doorman's house.

    Attributes:
        broker: of all pods.
        gate: how they come in.
        vouching: how they know it.
    """

    def __init__(self, client: ClusterClient, options: BrokerOptions) -> None:
        """Begin with nobody, and with an authority of its own that nobody else has the key of."""
        self.broker = Broker(asyncio.get_running_loop())
        self.broker.ledger.refused = self._refused
        self.broker.ledger.heard = self._heard
        self._said: dict[tuple[str, str], float] = {}
        self.vouching = Vouching(client)
        self.gate = Gate(self.broker, self._who, self.vouching.tls)
        self._doorman = Doorman(client, Door.BUS, self, options.namespaces, options.wait)
        self._voice = ApiVoice(client, _COMPONENT, time.time)
        self._known: dict[tuple[str, str], Identity] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._heart = Heart()

    def works(self) -> list[Any]:
        """Return what has to go on, until cancelled."""
        return [*self._doorman.works(), self.vouching.keep(), self._heart.go_on()]

    def ill(self) -> str:
        """Return why this process should be restarted."""
        age = self._heart.age
        return f"the loop has not turned for {age:.0f} s" if age > _STUCK else ""

    def unready(self) -> str:
        """Return why nobody should connect now."""
        return self._doorman.unready

    def leave(self, place: str) -> None:
        """Cut off a pod: its address is not its own any more."""
        self.gate.leave(place)

    def told(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Take in that a Plugin came, changed or went."""
        gone = owner_at(before) if before is not None else None
        here = owner_at(after) if after is not None else None
        if gone is not None and gone != here:
            self._known.pop((gone.namespace, gone.plugin), None)
            self._said.pop((gone.namespace, gone.plugin), None)
            self.vouching.want(gone, wanted=False)
            self.broker.forget({gone.uid})
        if after is not None and here is not None:
            identity = read_identity(after)
            spec = _admitted(after)
            self._known[here.namespace, here.plugin] = identity
            self.vouching.want(here, wanted=spec is not None and is_on_bus(spec))
            self.broker.know(member_of(identity, spec, read_status(after.get("status"))))

    async def _who(self, address: Address) -> Visitor | None:
        tenant = await self._doorman.who(address)
        if tenant is None:
            return None
        owner = tenant.owner
        slot = tenant.pod.removeprefix(f"{owner.plugin}-")
        return Visitor(Doorway(Door.BUS, owner.namespace, owner.plugin, owner.uid, slot), tenant.uid)

    def _refused(self, namespace: str, plugin: str, what: str) -> None:
        """Say that a plugin was refused something: in the log, and as an event of the Plugin."""
        event = refusal_event(what)
        log.warning("%s/%s: %s", namespace, plugin, event.message)
        self._say((namespace, plugin), event)

    def _heard(self, namespace: str, plugin: str) -> None:
        """Say what else a plugin does wrong or too much of; its log has it more often."""
        key, now = (namespace, plugin), asyncio.get_running_loop().time()
        lines = self.broker.ledger.of(namespace, plugin).notices(refusals=False)
        if lines and now - self._said.get(key, -_NEWS) >= _NEWS:
            self._said[key] = now
            self._say(key, limit_event(lines))

    def _say(self, key: tuple[str, str], event: Event) -> None:
        identity = self._known.get(key)
        if identity is not None:
            task = asyncio.get_running_loop().create_task(self._voice.tell(identity, event))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    @property
    def open(self) -> int:
        """How many connections there are that have introduced themselves."""
        return sum(len(seat.connections) for seat in self.broker.roster)


class Vouching:
    """Who vouches for the broker: an authority in this process's memory, and what namespaces are told of it.

    Attributes:
        tls: how the broker speaks.
    """

    def __init__(self, client: ClusterClient) -> None:
        """Make an authority, which lives as long as this process, and a certificate for the broker."""
        self._client = client
        self._authority = fresh_authority("crucible-bus-ca", utc_now())
        self._issued = self._issue()
        self.tls = serving(self._issued.certificate, self._issued.key)
        self._problems: dict[str, str] = {}
        self._wanted: dict[str, set[str]] = {}
        self._told: set[str] = set()
        self._wake = asyncio.Event()

    def _issue(self) -> Issued:
        return self._authority.server((Door.BUS,), utc_now())

    def want(self, owner: marks.Owner, *, wanted: bool) -> None:
        """Say whether a Plugin is on the bus: its pods wait until their namespace knows whom to believe."""
        uids = self._wanted.setdefault(owner.namespace, set())
        (uids.add if wanted else uids.discard)(owner.uid)
        if not uids:
            del self._wanted[owner.namespace]
        elif owner.namespace not in self._told:
            self._wake.set()

    async def keep(self) -> None:
        """Keep namespaces told, and the certificate fresh, until cancelled."""
        while True:
            self._wake.clear()
            if not is_fresh(self._issued.certificate, utc_now()):
                self._issued = self._issue()
                renew(self.tls, self._issued.certificate, self._issued.key)
            for namespace in sorted(self._wanted):
                await self._try(namespace)
            with suppress(TimeoutError):
                async with asyncio.timeout(_RETRY if self.untold else _AGAIN):
                    await self._wake.wait()

    async def _try(self, namespace: str) -> None:
        """Tell a namespace. That one cannot be told, by a quota for instance, is no matter of the others."""
        try:
            await self._tell(namespace)
        except CrucibleError as error:
            self._told.discard(namespace)
            if self._problems.get(namespace) != str(error):
                log.warning("%s: ConfigMap %s cannot be written: %s", namespace, marks.AUTHORITY, error)
            self._problems[namespace] = str(error)
        else:
            self._told.add(namespace)
            self._problems.pop(namespace, None)

    @property
    def untold(self) -> int:
        """How many namespaces have a plugin on the bus, and cannot know whom to believe."""
        return len(self._wanted.keys() - self._told)

    async def _tell(self, namespace: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": marks.AUTHORITY, "labels": {"app.kubernetes.io/part-of": "crucible"}},
            "data": {marks.AUTHORITY_KEY: self._authority.certificate},
        }
        path = f"{collection('/api/v1', 'configmaps', namespace)}/{marks.AUTHORITY}"
        await self._client.apply(path, body, _COMPONENT)


def _admitted(plugin: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return an admitted manifest; None for one that is refused, or whose Plugin is on its way out."""
    try:
        return None if read_identity(plugin).deleting else admit(plugin)
    except InvalidManifest:
        return None


def figures(hub: Hub) -> str:
    """Return the metrics: counters of each plugin since this process began."""
    counted = hub.broker.ledger.to_json()

    def family(name: str, text: str, value: Callable[[Mapping[str, Any]], int]) -> Family:
        values: dict[tuple[tuple[str, str], ...], float] = {
            (("namespace", each["namespace"]), ("plugin", each["plugin"])): value(each) for each in counted
        }
        return Family(f"crucible_bus_{name}_total", "counter", text, values)

    return exposition(
        [
            plain("crucible_bus_open", "gauge", "Connections there are.", hub.open),
            plain(
                "crucible_bus_strangers_total", "counter", "Connections of nobody known.", hub.gate.strangers
            ),
            plain(
                "crucible_bus_untold", "gauge", "Namespaces that cannot be told of it.", hub.vouching.untold
            ),
            family("calls", "Calls that were made.", lambda each: each["calls"]),
            family("answered", "Answers that were given.", lambda each: each["answered"]),
            family("published", "Messages that were sent.", lambda each: each["published"]),
            family("delivered", "Messages that came.", lambda each: each["delivered"]),
            family("faults", "What was refused or too much.", lambda each: sum(each["faults"].values())),
        ]
    )
