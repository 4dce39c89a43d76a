"""Puts together the egress proxy of a cluster: who has which address, and what each may reach."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crucible.control.cluster import ClusterClient, find_endpoint
from crucible.control.voice import ApiVoice
from crucible.core.doors import PROXY_PORT
from crucible.core.egress import denial_event
from crucible.egress import streams
from crucible.egress.dial import Internet
from crucible.egress.gate import Gate, Guest, Room
from crucible.model import names
from crucible.model.plugin import Identity
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.confirmed import Confirmed
from crucible.runtimes.kubernetes.reflector import Reflector
from crucible.runtimes.kubernetes.tenants import Tenants, grant_now
from crucible.runtimes.kubernetes.upkeep import collection
from crucible.telemetry import logs
from crucible.telemetry.http import Desk, answering
from crucible.telemetry.metrics import Family, exposition, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crucible.core.egress import Address, Grant
    from crucible.runtimes.kubernetes.tenants import Tenant
    from crucible.telemetry.logs import Format

log = logging.getLogger(__name__)

_LOOK: Final = 0.5
_WAITING_ALL: Final = 256
_WAITING_EACH: Final = 16
_BEAT: Final = 1.0
_STUCK: Final = 30.0
_DRAIN: Final = 20.0
_BACKLOG: Final = 512


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How to run the egress proxy; the words are those of ``crucible egress --help``."""

    namespaces: tuple[str, ...] = ()
    address: str = ""
    port: int = PROXY_PORT
    replicas: int = 1
    wait: float = 10.0
    health_port: int = 8080
    metrics_port: int = 9090
    kubeconfig: Path | None = None
    log_format: Format = "text"
    verbose: bool = False


def run(options: GatewayOptions) -> None:
    """Run the egress proxy until SIGINT or SIGTERM; what goes on then has some seconds to end.

    Raises:
        NotFound: there is no cluster to talk to.
    """
    logs.configure(options.log_format, verbose=options.verbose)
    asyncio.run(_run(options))


async def _run(options: GatewayOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    find = partial(find_endpoint, options.kubeconfig)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClusterClient(find))
        register = Register(client, options)
        desk = Desk(register.ill, register.unready, lambda: figures(register))
        ports = await stack.enter_async_context(answering(desk, options.health_port, options.metrics_port))
        server = await streams.listen(register.gate.accept, options.address, options.port, _BACKLOG)
        ports = {**ports, "proxy": server.sockets[0].getsockname()[1]}
        log.info("answers on %s", ports)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in register.works()]
            await stop.wait()
            server.close()
            log.info("stops: no new connection is taken, %d have %g s to end", register.gate.open, _DRAIN)
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN):
                    await register.gate.empty()
            for task in tasks:
                task.cancel()


class Register:
    """Knows who has which address, and what each may reach, as long as the cluster can be asked.

    Attributes:
        gate: serves those who are known.
    """

    def __init__(self, client: ClusterClient, options: GatewayOptions) -> None:
        """Begin with nobody.

        Args:
            client: of the cluster.
            options: which namespaces to look at, and among how many proxies a plugin's speed is shared.
        """
        self._voice = ApiVoice(client, "crucible-egress", time.time)
        self._replicas = options.replicas
        self._wait = options.wait
        self._tenants = Tenants()
        self._plugins: set[marks.Owner] = set()
        self._confirmed = Confirmed(client, time.monotonic)
        self._changed = asyncio.Event()
        self._waiting: Counter[Address] = Counter()
        self._telling: set[asyncio.Task[None]] = set()
        self._beat = time.monotonic()
        self.gate = Gate(self.who, self._tell, Internet(absolute=True), room=Room())
        places = options.namespaces or ("",)
        root = f"/apis/{names.API_VERSION}"
        self._followed = [
            *(
                Reflector(client, collection("/api/v1", "pods", each), marks.SELECTOR, self.pod)
                for each in places
            ),
            *(Reflector(client, collection(root, names.PLURAL, each), "", self.plugin) for each in places),
        ]

    def works(self) -> list[Any]:
        """Return what has to go on, until cancelled."""
        return [
            *(each.run(lambda: None) for each in self._followed),
            self.gate.end_the_idle(),
            self._go_on(),
        ]

    def ill(self) -> str:
        """Return why this process should be restarted."""
        age = time.monotonic() - self._beat
        return f"the loop has not turned for {age:.0f} s" if age > _STUCK else ""

    def unready(self) -> str:
        """Return why nobody should connect now: who cannot be known is not let through."""
        return next((each.problem for each in self._followed if each.problem), "")

    def pod(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Take in that a pod came, changed or went."""
        for place in self._tenants.told(before, after):
            self.gate.leave(place)
        self._wake()

    def plugin(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Take in that a Plugin came, changed or went."""
        gone = _owner(before) if before is not None else None
        here = _owner(after) if after is not None else None
        if gone is not None and gone != here:
            self._plugins.discard(gone)
            self.gate.forget(gone.uid)
        if after is not None and here is not None:
            grant = self._share(grant_now(after))
            self._plugins.add(here)
            self.gate.grant(here.uid, grant)
            after["spec"] = {}  # of all that a Plugin says, its sources among it, nothing else is of use here
        self._wake()

    def _share(self, grant: Grant) -> Grant:
        """Return what one of several proxies may let pass, so that all together keep to the manifest."""
        if grant.rate is None:
            return grant
        return replace(grant, rate=max(grant.rate // self._replicas, 1))

    async def who(self, address: Address) -> Guest | None:
        """Return who has an address now, as the API server says; None where that stays unknown."""
        if self._known(address) is not None:
            return await self._sure(address)
        if self._waiting[address] >= _WAITING_EACH or self._waiting.total() >= _WAITING_ALL:
            return None
        self._waiting[address] += 1
        try:
            return await self._sure(address)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    async def _sure(self, address: Address) -> Guest | None:
        try:
            async with asyncio.timeout(self._wait):
                while True:
                    tenant = self._known(address)
                    sure = tenant is not None and address in await self._confirmed.addresses(tenant)
                    if tenant is not None and sure and self._known(address) == tenant:
                        return Guest(
                            tenant.owner.namespace, tenant.owner.plugin, tenant.owner.uid, tenant.uid
                        )
                    await self._change()
        except TimeoutError:
            log.warning(
                "a connection from %s was refused: no pod of a plugin with a way out is known to have it; "
                "where one has, the cluster's network hides the addresses of pods",
                address,
            )
            return None

    def _known(self, address: Address) -> Tenant | None:
        tenant = self._tenants.who(address)
        return tenant if tenant is not None and tenant.owner in self._plugins else None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        """Wait until something was told, or for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await self._changed.wait()

    def _tell(self, words: Mapping[str, Any]) -> None:
        """Say that a plugin was refused a way out: in the log, and as an event of the Plugin."""
        event = denial_event(words)
        log.warning("%s/%s: %s", words["namespace"], words["plugin"], event.message)
        identity = Identity(words["namespace"], words["plugin"], words["pluginUid"], 0)
        task = asyncio.get_running_loop().create_task(self._voice.tell(identity, event))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _go_on(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(_BEAT)


def figures(register: Register) -> str:
    """Return the metrics: counters of each plugin since this process began."""
    gate = register.gate
    accounts = [
        ((("namespace", one.namespace), ("plugin", one.plugin)), one.counters)
        for one in gate.accounts.values()
    ]
    moved: dict[tuple[tuple[str, str], ...], float] = {}
    for labels, count in accounts:
        moved[*labels, ("direction", "sent")] = count.sent
        moved[*labels, ("direction", "received")] = count.received
    return exposition(
        [
            plain("crucible_egress_open", "gauge", "Connections there are.", gate.open),
            plain(
                "crucible_egress_strangers_total", "counter", "Connections of nobody known.", gate.strangers
            ),
            Family(
                "crucible_egress_connections_total",
                "counter",
                "Connections that were let through.",
                {labels: count.connections for labels, count in accounts},
            ),
            Family(
                "crucible_egress_denied_total",
                "counter",
                "Connections that were refused.",
                {labels: count.denied for labels, count in accounts},
            ),
            Family("crucible_egress_bytes_total", "counter", "Bytes that were passed on.", moved),
        ]
    )


def _owner(plugin: Mapping[str, Any]) -> marks.Owner:
    meta = plugin["metadata"]
    return marks.Owner(meta["namespace"], meta["name"], meta["uid"])
