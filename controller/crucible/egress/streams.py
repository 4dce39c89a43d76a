"""Streams that hold little: whoever reads nothing makes the proxy keep some tens of KiB, and no more.

``asyncio``'s own read up to 256 KiB at once, and stop only after that. These read into one buffer that all
connections share, and stop at :data:`HELD`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

STEP: Final = 1 << 15
"""Bytes that are read or written at once, at most."""
HELD: Final = 1 << 14
"""Bytes that may wait, in one direction, before no more are read; one step may come on top."""
_KERNEL: Final = 1 << 18

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Protocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """Reads by steps. What is read is copied before anybody else can read: they share a buffer."""

    _room = memoryview(bytearray(STEP))

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._room[:nbytes]))


async def connect(host: str, port: int) -> Streams:
    """Connect to an address.

    Raises:
        OSError: nobody answers there.
    """
    loop = asyncio.get_running_loop()
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        for which in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # the kernel's part, which it counts to nobody
            one.setsockopt(socket.SOL_SOCKET, which, _KERNEL)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(one, (host, port))
    except BaseException:
        one.close()
        raise
    reader = asyncio.StreamReader(limit=HELD // 2, loop=loop)
    transport, protocol = await loop.create_connection(lambda: _Protocol(reader, loop=loop), sock=one)
    return reader, _bounded(asyncio.StreamWriter(transport, protocol, reader, loop))


async def serve(talk: Talk, listener: socket.socket) -> asyncio.AbstractServer:
    """Hand each connection that comes to a listening socket to ``talk``, in a task of its own."""
    loop = asyncio.get_running_loop()
    if listener.family == socket.AF_UNIX:
        return await loop.create_unix_server(_protocols(talk, loop), sock=listener)
    return await loop.create_server(_protocols(talk, loop), sock=listener)


async def listen(talk: Talk, address: str, port: int, backlog: int) -> asyncio.Server:
    """Listen, and serve; at every address where none is named.

    Raises:
        OSError: it is taken, or not this host's.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(_protocols(talk, loop), address or None, port, backlog=backlog)


def _protocols(talk: Talk, loop: asyncio.AbstractEventLoop) -> Callable[[], _Protocol]:

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(reader, _bounded(writer))

    def protocol() -> _Protocol:
        return _Protocol(asyncio.StreamReader(limit=HELD // 2, loop=loop), begin, loop=loop)

    return protocol


def _bounded(writer: asyncio.StreamWriter) -> asyncio.StreamWriter:
    writer.transport.set_write_buffer_limits(high=HELD)
    return writer
