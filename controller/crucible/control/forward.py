"""A connection to a port of a pod, through the API server: ``pods/portforward`` over a WebSocket.

The server passes it on to the pod's kubelet, which connects to the port on the pod's own loopback. What is
said goes in binary messages whose first byte is a channel: 0 for what is said, 1 for what is wrong. The first
message of each channel is the port.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

import aiohttp

from crucible.control.websocket import websocket

if TYPE_CHECKING:
    from crucible.control.kubeconfig import Endpoint

PROTOCOL: Final = "v4.channel.k8s.io"
DATA: Final = 0
ERROR: Final = 1
_CHUNK: Final = 32 * 1024
_BEAT: Final = 20.0
"""Seconds after which the other end is asked whether it is there; it has half of that to say so."""
_TOLD: Final = 500


class Forward:
    """One connection. Use as an async context manager.

    Attributes:
        socket: this end of it, not a network's; closing it hangs up.
        problem: what the node says is wrong; empty: nothing so far.
    """

    socket: socket.socket

    def __init__(self, endpoint: Endpoint, namespace: str, pod: str, port: int) -> None:
        """Prepare.

        Args:
            endpoint: the API server, and whom to be there.
            namespace: the pod's.
            pod: its name.
            port: on its loopback.
        """
        self.problem = ""
        self._endpoint = endpoint
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect to the node; that nobody listens there is said later, in :attr:`problem`.

        Raises:
            CrucibleError: as the API server says.
        """
        async with self._stack:
            link = await self._stack.enter_async_context(
                websocket(self._endpoint, self._path, PROTOCOL, beat=_BEAT)
            )
            self.socket, inner = socket.socketpair()
            self._stack.callback(self.socket.close)
            streams = await asyncio.open_unix_connection(sock=inner)
            carrying = asyncio.get_running_loop().create_task(self._carry(link, *streams))
            self._stack.push_async_callback(_end, carrying)
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _carry(
        self,
        link: aiohttp.ClientWebSocketResponse,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Carry both ways until one end hangs up; then the other is told."""
        sending = asyncio.get_running_loop().create_task(_send(link, reader))
        try:
            with suppress(OSError):  # this end hung up
                await self._receive(link, writer)
        finally:
            await _end(sending)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _receive(self, link: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
        begun: set[int] = set()
        async for message in link:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in begun:
                begun.add(channel)  # the port, which is known
            elif channel == ERROR and data:
                self.problem = (self.problem + data.decode(errors="replace"))[:_TOLD]
                return
            elif channel == DATA:
                writer.write(data)
                await writer.drain()


async def _send(link: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    with suppress(OSError, aiohttp.ClientError):  # either end hung up
        while data := await reader.read(_CHUNK):
            await link.send_bytes(bytes([DATA]) + data)
    await link.close()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
