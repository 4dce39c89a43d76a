"""Connections: at most so many, handshakes included, and each must ask for something soon after it was made.

Where there is no room for one more, the one goes that has asked for nothing for the longest time. So whoever
only opens connections, with or without a TLS handshake, keeps nobody out and exhausts nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from .settings import ServerSettings

_LOG = logging.getLogger(__name__)
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BREATH: Final = 0.1
"""Seconds before accepting again, once the system had no descriptor left."""


class Doors:
    """The connections of one server, from the moment they are accepted."""

    def __init__(self, make: Callable[[], asyncio.Protocol], settings: ServerSettings) -> None:
        self._make = make
        self._limit = settings.max_connections
        self.patience = settings.header_timeout
        self._quiet: dict[Connection, None] = {}
        self._speaking: set[Connection] = set()
        self._handshakes: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Accept connections until cancelled; handshakes still under way end then."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    caller, _ = await loop.sock_accept(listener)
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        _LOG.warning("cannot accept a connection: %s", error.strerror)
                        self._make_room()
                        await asyncio.sleep(_BREATH)
                    continue
                self._greet(caller, context)
        finally:
            for task in self._handshakes:
                task.cancel()

    def _greet(self, caller: socket.socket, context: ssl.SSLContext) -> None:
        if self.count() >= self._limit and not self._make_room():
            caller.close()
            return
        caller.setblocking(False)
        connection = Connection(self._make(), self)
        task = asyncio.create_task(self._shake_hands(caller, connection, context))
        connection.abandon = task.cancel
        self._quiet[connection] = None
        self._handshakes.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._handshakes.discard(task)
            if not connection.is_made:
                self.leave(connection)
                caller.close()

        task.add_done_callback(done)

    async def _shake_hands(
        self, caller: socket.socket, connection: Connection, context: ssl.SSLContext
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, caller, ssl=context, ssl_handshake_timeout=self.patience
            )
        except OSError as error:
            _LOG.debug("no TLS handshake: %s", error)

    def _make_room(self) -> bool:
        """End the connection that has been quiet for the longest time; False if none is."""
        oldest = next(iter(self._quiet), None)
        if oldest is None:
            return False
        del self._quiet[oldest]
        oldest.abandon()
        return True

    def count(self) -> int:
        """How many connections there are, handshakes included."""
        return len(self._quiet) + len(self._speaking)

    def hear(self, connection: Connection) -> None:
        """A connection asked for something."""
        if connection in self._quiet:
            del self._quiet[connection]
            self._speaking.add(connection)

    def leave(self, connection: Connection) -> None:
        """A connection is no more."""
        self._quiet.pop(connection, None)
        self._speaking.discard(connection)


class Connection(asyncio.Protocol):
    """Stands before the protocol that reads requests; ``heard`` says that it has read one.

    Attributes:
        abandon: Ends it, in whatever state it is.
        is_made: Its handshake is done.
    """

    def __init__(self, inner: asyncio.Protocol, doors: Doors) -> None:
        self._inner = inner
        self._doors = doors
        self._deadline: asyncio.TimerHandle | None = None
        self.abandon: Callable[[], object] = bool
        self.is_made = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        self.is_made = True
        self._inner.connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            self.abandon = transport.abort
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._doors.patience, transport.abort)

    def heard(self) -> None:
        """A whole request came: whoever speaks may go on."""
        self._doors.hear(self)
        self._wait_no_more()

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self._wait_no_more()
        self._doors.leave(self)
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()
