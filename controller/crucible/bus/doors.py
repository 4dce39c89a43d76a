"""The sockets that clients connect to: who may, how many, how often; with or without TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import TYPE_CHECKING, Final

from crucible.bus.ledger import Fault

if TYPE_CHECKING:
    import ssl

    from crucible.bus.broker import Broker
    from crucible.bus.connection import Connection
    from crucible.model.door import Doorway

_CREDENTIALS: Final = struct.Struct("3i")
_BURST: Final = 32
"""Connections one door takes at once; then :data:`_RATE` a second."""
_RATE: Final = 16.0
_REST: Final = 0.25
"""Seconds for which a door that is asked too often is not looked at."""
_GREETING: Final = 8
"""Connections of one door that may be at TLS's greetings at once; they count as open only after that."""
_HANDSHAKE: Final = 10.0
_GOODBYE: Final = 2.0
"""Seconds for TLS's last words, which whoever was cut off may leave unanswered."""

log = logging.getLogger(__name__)


class Pace:
    """How often somebody may connect: some times at once, then so many a second."""

    def __init__(self) -> None:
        self._tokens = float(_BURST)
        self._counted: float | None = None

    def allows(self, now: float) -> bool:
        """Say whether one more may be let in at this moment, in seconds, and count it if so."""
        gained = 0.0 if self._counted is None else (now - self._counted) * _RATE
        self._tokens, self._counted = min(self._tokens + gained, _BURST), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Entrance:
    """Accepts connections on one listening socket, until closed."""

    def __init__(
        self, broker: Broker, doorway: Doorway, listener: socket.socket, tls: ssl.SSLContext | None = None
    ) -> None:
        """Accept from now on.

        Args:
            broker: whom who comes is brought to.
            doorway: who that is.
            listener: where they come; closed with this.
            tls: how they speak; None: as they are, which is for a socket of the kernel's own.
        """
        self.doorway = doorway
        self._broker = broker
        self._tls = tls
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._pace = Pace()
        self._beginning: dict[asyncio.Task[None], Connection] = {}
        self._rest: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept nothing more, and cut off who came in."""
        self._loop.remove_reader(self._listener)
        if self._rest is not None:
            self._rest.cancel()
        self._listener.close()
        for connection in self._beginning.values():
            connection.close()
        self._broker.shut(self.doorway.key)

    def renew(self, tls: ssl.SSLContext) -> None:
        """Speak so with whoever connects from now on; nobody who is in is cut off."""
        self._tls = tls

    def _listen(self) -> None:
        self._rest = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        if not self._pace.allows(self._loop.time()):
            self._broker.ledger.fault(
                self.doorway.namespace,
                self.doorway.plugin,
                Fault.CONNECTIONS,
                "too often one after the other",
            )
            self._pause()
            return
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.warning("%s: nobody can connect: %s", self.doorway.key, error)
            self._pause()
            return
        self._admit(client)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)
        self._rest = self._loop.call_later(_REST, self._listen)

    def _admit(self, client: socket.socket) -> None:
        """Let a client in, if it is who should be behind this door."""
        client.setblocking(False)
        user = user_of(client)
        if self.doorway.peer not in (None, user):
            self._broker.ledger.fault(
                self.doorway.namespace,
                self.doorway.plugin,
                Fault.STRANGER,
                f"user {user}, not {self.doorway.peer}",
            )
            client.close()
            return
        greeting = self._tls is not None and len(self._beginning) >= _GREETING
        connection = None if greeting else self._broker.connect(self.doorway)
        if connection is None:
            client.close()
            return
        task = self._loop.create_task(begin(self._broker, connection, client, self._tls))
        self._beginning[task] = connection
        task.add_done_callback(self._beginning.pop)


async def begin(
    broker: Broker, connection: Connection, client: socket.socket, tls: ssl.SSLContext | None
) -> None:
    """Let a connection speak through a socket; one that does not speak TLS as it should is closed.

    Args:
        broker: where that is counted.
        connection: whose it becomes.
        client: the socket; closed with it.
        tls: how to speak; None: plainly.
    """
    loop = asyncio.get_running_loop()
    if tls is None:
        await loop.connect_accepted_socket(lambda: connection, client)
        return
    try:
        await loop.connect_accepted_socket(
            lambda: connection,
            client,
            ssl=tls,
            ssl_handshake_timeout=_HANDSHAKE,
            ssl_shutdown_timeout=_GOODBYE,
        )
    except OSError as error:  # of which ssl.SSLError is one
        client.close()
        doorway = connection.doorway
        broker.ledger.fault(doorway.namespace, doorway.plugin, Fault.MALFORMED, f"no TLS: {error}")


def user_of(client: socket.socket) -> int:
    """Return the user id, as this process sees it, of who connected."""
    answer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(answer)
    return int(user)
