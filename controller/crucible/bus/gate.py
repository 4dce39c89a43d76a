"""The bus for pods of a cluster: one port for all, whoever comes is known by its address and speaks TLS."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from crucible.bus.alive import watch
from crucible.bus.broker import CONNECTIONS_LIMIT
from crucible.bus.doors import Pace, begin
from crucible.bus.ledger import Fault

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable
    from ipaddress import IPv4Address, IPv6Address

    from crucible.bus.broker import Broker
    from crucible.bus.connection import Connection
    from crucible.model.door import Doorway

_COMING: Final = 512
"""Connections that may be on their way in at once, of all: known to nobody yet, or at TLS's greetings."""
_SILENT: Final = (15, 5, 3)
"""A pod whose node is gone says nothing of it: after half a minute its connection counts as gone."""
_REST: Final = 0.25

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whose connection it is.

    Attributes:
        doorway: the instance.
        pod: uid of the very pod.
    """

    doorway: Doorway
    pod: str


@dataclass(slots=True)
class _Guest:
    doorway: Doorway
    pace: Pace
    greeting: set[Connection] = field(default_factory=set)


class Gate:
    """Lets in whoever is known, and nobody else.

    Attributes:
        strangers: how many connections were refused because nobody knew whose they were.
    """

    def __init__(
        self,
        broker: Broker,
        who: Callable[[IPv4Address | IPv6Address], Awaitable[Visitor | None]],
        tls: ssl.SSLContext,
        limit: int = CONNECTIONS_LIMIT,
    ) -> None:
        """Begin with nobody.

        Args:
            broker: whom they come to.
            who: returns who has an address now; None where that is not sure.
            tls: how to speak.
            limit: connections of one instance, and those of them at TLS's greetings.
        """
        self.strangers = 0
        self._limit = limit
        self._broker = broker
        self._who = who
        self._tls = tls
        self._guests: dict[str, _Guest] = {}
        self._coming: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Let in who comes to a listening socket, until cancelled; then nobody is left."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        try:
            while True:
                try:
                    client, place = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("nobody can connect: %s", error)
                    await asyncio.sleep(_REST)
                    continue
                if len(self._coming) >= _COMING:
                    client.close()
                    continue
                task = loop.create_task(self._admit(client, place[0]))
                self._coming.add(task)
                task.add_done_callback(self._coming.discard)
        finally:
            listener.close()
            for task in tuple(self._coming):
                task.cancel()
            for pod in tuple(self._guests):
                self.leave(pod)
            await asyncio.gather(*self._coming, return_exceptions=True)

    def leave(self, pod: str) -> None:
        """Cut all that came from a pod: its address is not its own any more."""
        guest = self._guests.pop(pod, None)
        if guest is not None:
            for connection in guest.greeting:
                connection.close()
            self._broker.shut(guest.doorway.key)

    async def _admit(self, client: socket.socket, place: str) -> None:
        try:
            visitor = await self._who(ip_address(place.partition("%")[0]))
        except BaseException:
            client.close()
            raise
        if visitor is None:
            self.strangers += 1
            client.close()
            return
        # From here to the greeting nothing is waited for: it is still whose it was.
        guest = self._guests.setdefault(visitor.pod, _Guest(visitor.doorway, Pace()))
        connection = self._connection(guest)
        if connection is None:
            client.close()
            return
        watch(client, *_SILENT)
        guest.greeting.add(connection)
        try:
            await begin(self._broker, connection, client, self._tls)
        finally:
            guest.greeting.discard(connection)

    def _connection(self, guest: _Guest) -> Connection | None:
        """Return a connection for a pod; None where it has enough, or comes too often."""
        if len(guest.greeting) >= self._limit or not guest.pace.allows(asyncio.get_running_loop().time()):
            doorway, why = guest.doorway, "too often one after the other"
            self._broker.ledger.fault(doorway.namespace, doorway.plugin, Fault.CONNECTIONS, why)
            return None
        return self._broker.connect(guest.doorway, self._limit)
