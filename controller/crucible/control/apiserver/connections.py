"""Connections: at most so many, and each must ask for something soon after it was made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import ServerSettings


class Doors:
    """The open connections of one server. Calling it makes the protocol of the next one."""

    def __init__(self, make: Callable[[], asyncio.Protocol], settings: ServerSettings) -> None:
        self._make = make
        self._limit = settings.max_connections
        self.patience = settings.header_timeout
        self._open: set[Connection] = set()

    def __call__(self) -> Connection:
        """A protocol for a connection that is about to be made."""
        return Connection(self._make(), self)

    def enter(self, connection: Connection) -> bool:
        """Count a connection; False where there is no room for it."""
        if len(self._open) >= self._limit:
            return False
        self._open.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """A connection is no more."""
        self._open.discard(connection)


class Connection(asyncio.Protocol):
    """Stands before the protocol that reads requests; ``heard`` says that it has read one."""

    def __init__(self, inner: asyncio.Protocol, doors: Doors) -> None:
        self._inner = inner
        self._doors = doors
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or turn the connection away."""
        self._inner.connection_made(transport)
        if not isinstance(transport, asyncio.Transport):
            return
        if not self._doors.enter(self):
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._doors.patience, transport.abort)

    def heard(self) -> None:
        """A whole request came: whoever speaks may go on."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self.heard()
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
