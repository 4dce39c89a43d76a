"""Puts together the broker of a cluster: who has which address, what each may do, and who vouches for it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop

from crucible.bus.broker import Broker
from crucible.bus.gate import Gate, Visitor
from crucible.bus.kept import KeptStores
from crucible.bus.line import Line, operators_way
from crucible.bus.roster import ANYWHERE
from crucible.control.cluster import ClusterClient, find_endpoint
from crucible.control.voice import ApiVoice
from crucible.core.admission import admit
from crucible.core.bus import is_on_bus, limit_event, member_of, refusal_event
from crucible.core.doors import BUS_PORT, CALLERS_PORT
from crucible.errors import InvalidInput, InvalidManifest
from crucible.figures import Heart
from crucible.gathering import read_status
from crucible.model import names
from crucible.model.bus import HOST
from crucible.model.door import Door, Doorway
from crucible.model.plugin import Identity, read_identity
from crucible.replicated import Replica
from crucible.runtimes.kubernetes.doorman import Doorman, owner_at
from crucible.runtimes.kubernetes.tenants import Staff
from crucible.runtimes.kubernetes.upkeep import collection
from crucible.telemetry import logs
from crucible.telemetry.http import Desk, answering
from crucible.telemetry.metrics import Family, exposition, plain
from crucible.vouching import COMPONENT, Mounted, Own, Vouching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from crucible.core.egress import Address
    from crucible.model.decision import Event
    from crucible.replicated import Backbone
    from crucible.runtimes.kubernetes.tenants import Tenant
    from crucible.serving import Serving

log = logging.getLogger(__name__)

_BACKLOG: Final = 512
_LOOPBACK: Final = "127.0.0.1"
_OUTSIDERS: Final = 64
"""Connections of people outside, of all together."""
_NEWS: Final = 600.0
"""Seconds between two events that say what a plugin does too much of."""


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How to run the broker of a cluster; the words are those of ``crucible broker --help``.

    Attributes:
        serving: what it is told as the egress proxy is.
        port: where plugins find it.
        certificates: folder with what it shows to plugins; None: it makes that itself.
        backbone: where its replicas meet; None: it is the only one.
        operator: ``NAMESPACE/SERVICEACCOUNT`` of the pods that are the operator's; empty: none are.
        callers: namespaces in which who may forward ports to this pod may act, ``*`` each that is served;
            empty: nobody does.
        callers_port: where they find it, on the loopback.
    """

    serving: Serving
    port: int = BUS_PORT
    certificates: Path | None = None
    backbone: Backbone | None = None
    operator: str = ""
    callers: tuple[str, ...] = ()
    callers_port: int = CALLERS_PORT


def run(options: BrokerOptions) -> None:
    """Run the broker until SIGINT or SIGTERM.

    Raises:
        NotFound: there is no cluster to talk to.
        InvalidInput: certificates that it was given cannot be used.
    """
    logs.configure(options.serving.log_format, verbose=options.serving.verbose)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options))


async def _run(options: BrokerOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    find = partial(find_endpoint, options.serving.kubeconfig)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClusterClient(find))
        hub = Hub(client, options)
        desk = Desk(hub.ill, hub.unready, lambda: figures(hub))
        ports = await stack.enter_async_context(
            answering(desk, options.serving.health_port, options.serving.metrics_port)
        )
        doors = {"bus": (hub.gate, _listen(options.serving.address, options.port))}
        if options.callers:
            doors["callers"] = (hub.callers, _listen(_LOOPBACK, options.callers_port))
        log.info("answers on %s", {**ports, **{name: at.getsockname()[1] for name, (_, at) in doors.items()}})
        async with asyncio.TaskGroup() as group:
            serving = {group.create_task(gate.serve(at)) for gate, at in doors.values()}
            tasks = [group.create_task(work) for work in hub.works()]
            await stop.wait()
            log.info("stops: whoever is connected is cut off")
            for task in serving:
                task.cancel()
            await asyncio.wait(serving)
            await hub.broker.far.farewell()
            for task in tasks:
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
        callers: how people outside do, who may forward ports to this pod.
        vouching: how they know it.
        replica: which of several this is; None: the only one.
    """

    def __init__(self, client: ClusterClient, options: BrokerOptions) -> None:
        """Begin with nobody.

        Raises:
            InvalidInput: certificates that it was given cannot be used.
        """
        self.broker = Broker(asyncio.get_running_loop())
        self.broker.ledger.refused = self._refused
        self.broker.ledger.heard = self._heard
        self._said: dict[tuple[str, str], float] = {}
        source = Own() if options.certificates is None else Mounted(options.certificates)
        self.vouching = Vouching(client, source)
        far = self.broker.far
        self.replica = None if options.backbone is None else Replica(far, options.backbone)
        self._stores: KeptStores | None = None
        if options.backbone is not None:
            self._stores = KeptStores(self.broker.calls, self.broker.ledger, far, options.backbone.copies)
            self.broker.calls.services.update(self._stores.services())
        self._client, self._served = client, options.serving.namespaces
        self.gate = Gate(self.broker, self._who, self.vouching.tls)
        self.callers = Gate(self.broker, _outsider, self.vouching.tls, _OUTSIDERS)
        self.broker.roster.outsiders = outsiders_of(options)
        self._staff = staff_of(options.operator)
        if self._staff is not None:
            self.vouching.want(self._staff.owner, wanted=True)
        self._doorman = Doorman(
            client, Door.BUS, self, options.serving.namespaces, options.serving.wait, staff=self._staff
        )
        self._line = Line(self.broker)
        self._leader = ""
        self._voice = ApiVoice(client, COMPONENT, time.time)
        self._known: dict[tuple[str, str], Identity] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._heart = Heart()

    def works(self) -> list[Any]:
        """Return what has to go on, until cancelled."""
        joined: list[Any] = [] if self.replica is None else [self.replica.keep(), self.broker.far.keep()]
        joined += [] if self._stores is None else [self._stores.sweep(self._is_gone)]
        return [*self._doorman.works(), self.vouching.keep(), self._heart.go_on(), *joined]

    def ill(self) -> str:
        """Return why this process should be restarted."""
        return self._heart.trouble

    def unready(self) -> str:
        """Return why nobody should connect now."""
        return self._doorman.unready or ("" if self.replica is None else self.replica.unready)

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
            if self._stores is not None:
                self._stores.forget(gone.uid)
        if after is not None and here is not None:
            identity = read_identity(after)
            spec = _admitted(after)
            self._known[here.namespace, here.plugin] = identity
            self.vouching.want(here, wanted=spec is not None and is_on_bus(spec))
            member = member_of(identity, spec, read_status(after.get("status")))
            if self._stores is not None and spec is not None:
                self._stores.know(member, str(after["metadata"].get("creationTimestamp") or ""))
            self.broker.know(member)

    async def _is_gone(self, namespace: str, name: str, uid: str) -> bool:
        """Ask the API server whether a Plugin is no more: what the watch told may not be all yet.

        Raises:
            Unavailable: it does not answer.
        """
        if self._served and namespace not in self._served:
            return False
        path = collection(f"/apis/{names.API_VERSION}", names.PLURAL, namespace)
        found = await self._client.get(f"{path}?fieldSelector=metadata.name%3D{name}")
        return all(each["metadata"]["uid"] != uid for each in found["items"])

    async def _who(self, address: Address) -> Visitor | None:
        tenant = await self._doorman.who(address)
        if tenant is None:
            return None
        owner = tenant.owner
        if self._staff is not None and owner == self._staff.owner:
            return self._operator(tenant)
        slot = tenant.pod.removeprefix(f"{owner.plugin}-")
        return Visitor(Doorway(Door.BUS, owner.namespace, owner.plugin, owner.uid, slot), tenant.uid)

    def _operator(self, tenant: Tenant) -> Visitor:
        """Let the operator's pod in, and out any other that was in: who comes last leads."""
        if self._leader not in {"", tenant.uid}:
            self.gate.leave(self._leader)
        self._leader = tenant.uid
        return Visitor(operators_way(tenant.pod), tenant.uid)

    def _refused(self, namespace: str, plugin: str, what: str) -> None:
        """Say that a plugin was refused something: in the log, and as an event of the Plugin."""
        event = refusal_event(what)
        log.warning("%s/%s: %s", namespace, plugin, event.message)
        self._say((namespace, plugin), event)

    def _heard(self, namespace: str, plugin: str) -> None:
        """Say what a plugin does wrong or too much of; its log has it more often.

        The operator makes a condition of it; where none listens, an event has to do.
        """
        if self._line.held:
            self._line.tell(namespace, plugin, self.broker.ledger.of(namespace, plugin).notices())
            return
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


def staff_of(named: str) -> Staff | None:
    """Return whose pods are the operator's, by ``NAMESPACE/SERVICEACCOUNT``; None where none is named.

    Raises:
        InvalidInput: it is not written so.
    """
    if not named:
        return None
    namespace, slash, account = named.partition("/")
    if not (namespace and slash and account):
        raise InvalidInput(f"--operator {named}: write NAMESPACE/SERVICEACCOUNT")
    return Staff(namespace, account)


def outsiders_of(options: BrokerOptions) -> frozenset[str]:
    """Return where people from outside may act: nowhere, unless somebody says so.

    Raises:
        InvalidInput: it is no namespace that is served, or nobody could know whom to believe.
    """
    served, asked = frozenset(options.serving.namespaces), frozenset(options.callers)
    if asked and not options.operator:
        raise InvalidInput(
            "--callers: say --operator too, whose namespace is told who vouches for the broker"
        )
    if served and ANYWHERE in asked:
        return served
    unknown = sorted(asked - served) if served else []
    if unknown:
        raise InvalidInput(
            f"--callers {unknown[0]}: plugins of that namespace are not served: add --namespace"
        )
    return asked


async def _outsider(address: Address) -> Visitor | None:
    """Let in who comes from the pod's own loopback: whoever may forward ports to it, and nobody else, can."""
    return Visitor(Doorway(Door.BUS, "", HOST, HOST, "outside"), HOST) if address.is_loopback else None


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
            plain(
                "crucible_bus_joined",
                "gauge",
                "1 while it reaches the backbone.",
                int(hub.broker.far.nats is not None),
            ),
            plain(
                "crucible_bus_replicas",
                "gauge",
                "Other replicas it sees.",
                len(hub.broker.far.to_json()["peers"]),
            ),
            family("calls", "Calls that were made.", lambda each: each["calls"]),
            family("answered", "Answers that were given.", lambda each: each["answered"]),
            family("published", "Messages that were sent.", lambda each: each["published"]),
            family("delivered", "Messages that came.", lambda each: each["delivered"]),
            family("faults", "What was refused or too much.", lambda each: sum(each["faults"].values())),
        ]
    )
