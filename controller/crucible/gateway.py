"""Puts together the egress proxy of a cluster: who has which address, and what each may reach."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
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
from crucible.figures import Heart
from crucible.model.door import Door
from crucible.model.plugin import Identity
from crucible.runtimes.kubernetes.doorman import Doorman, owner_at
from crucible.runtimes.kubernetes.tenants import grant_now
from crucible.telemetry import logs
from crucible.telemetry.http import Desk, answering
from crucible.telemetry.metrics import Family, exposition, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.core.egress import Address, Grant
    from crucible.serving import Serving

log = logging.getLogger(__name__)

_DRAIN: Final = 20.0
_BACKLOG: Final = 512


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How to run the egress proxy; the words are those of ``crucible egress --help``.

    Attributes:
        serving: what it is told as the broker is.
        port: where plugins find it.
        replicas: how many such proxies share what a plugin may let pass.
    """

    serving: Serving
    port: int = PROXY_PORT
    replicas: int = 1


def run(options: GatewayOptions) -> None:
    """Run the egress proxy until SIGINT or SIGTERM; what goes on then has some seconds to end.

    Raises:
        NotFound: there is no cluster to talk to.
    """
    logs.configure(options.serving.log_format, verbose=options.serving.verbose)
    asyncio.run(_run(options))


async def _run(options: GatewayOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    find = partial(find_endpoint, options.serving.kubeconfig)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClusterClient(find))
        register = Register(client, options)
        desk = Desk(register.ill, register.unready, lambda: figures(register))
        ports = await stack.enter_async_context(
            answering(desk, options.serving.health_port, options.serving.metrics_port)
        )
        server = await streams.listen(register.gate.accept, options.serving.address, options.port, _BACKLOG)
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
        self._telling: set[asyncio.Task[None]] = set()
        self._heart = Heart()
        self.gate = Gate(self._who, self._tell, Internet(absolute=True), room=Room())
        self.doorman = Doorman(
            client,
            Door.EGRESS,
            self,
            options.serving.namespaces,
            options.serving.wait,
        )

    def works(self) -> list[Any]:
        """Return what has to go on, until cancelled."""
        return [*self.doorman.works(), self.gate.end_the_idle(), self._heart.go_on()]

    def ill(self) -> str:
        """Return why this process should be restarted."""
        return self._heart.trouble

    def unready(self) -> str:
        """Return why nobody should connect now."""
        return self.doorman.unready

    def leave(self, place: str) -> None:
        """Cut off a pod: its address is not its own any more."""
        self.gate.leave(place)

    def told(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Take in that a Plugin came, changed or went."""
        gone = owner_at(before) if before is not None else None
        here = owner_at(after) if after is not None else None
        if gone is not None and gone != here:
            self.gate.forget(gone.uid)
        if after is not None and here is not None:
            self.gate.grant(here.uid, self._share(grant_now(after)))

    def _share(self, grant: Grant) -> Grant:
        """Return what one of several proxies may let pass, so that all together keep to the manifest."""
        if grant.rate is None:
            return grant
        return replace(grant, rate=max(grant.rate // self._replicas, 1))

    async def _who(self, address: Address) -> Guest | None:
        tenant = await self.doorman.who(address)
        if tenant is None:
            return None
        return Guest(tenant.owner.namespace, tenant.owner.plugin, tenant.owner.uid, tenant.uid)

    def _tell(self, words: Mapping[str, Any]) -> None:
        """Say that a plugin was refused a way out: in the log, and as an event of the Plugin."""
        event = denial_event(words)
        log.warning("%s/%s: %s", words["namespace"], words["plugin"], event.message)
        identity = Identity(words["namespace"], words["plugin"], words["pluginUid"], 0)
        task = asyncio.get_running_loop().create_task(self._voice.tell(identity, event))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


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
