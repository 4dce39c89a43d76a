"""A cluster's API server as people outside see it who forward ports: what a kubelet would do with that.

As the real one: ``GET …/pods/NAME/portforward?ports=N`` with an upgrade to a WebSocket that speaks
``v4.channel.k8s.io``. Each port has two channels, data and error, whose first message is the port, low byte
first. A node connects to the pod's loopback; that nobody listens there comes on the error channel, which ends
it.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from faults import Faults, _status

if TYPE_CHECKING:
    from crucible.control.kubeconfig import Endpoint

PROTOCOL = "v4.channel.k8s.io"
_POD = re.compile(r"(/api/v1/namespaces/[a-z0-9-]+/pods/([a-z0-9-]+))/portforward")


class Forwarding(Faults):
    """Hands on what is no forwarding, and plays the nodes for what is.

    Attributes:
        heard: every byte that went between nodes and pods, both ways: what a capture there would show.
        forwarded: pods to which somebody was let through, in order.
        silent: pods whose node says nothing: an upgrade to them is never answered.
    """

    def __init__(self, upstream: Endpoint) -> None:
        super().__init__(upstream)
        self.heard = bytearray()
        self.forwarded: list[str] = []
        self.silent: set[str] = set()
        self._open: dict[web.WebSocketResponse, str] = {}

    async def lose(self, pod: str) -> None:
        """Cut what is open to a pod: its node is gone."""
        for link in [link for link, name in self._open.items() if name == pod]:
            await link.close(code=aiohttp.WSCloseCode.GOING_AWAY)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        found = _POD.fullmatch(request.path)
        if found is None:
            return await super()._handle(request)
        self.asked.append(f"{request.method} {request.path}")
        planned = self.answer(request.method, request.path)
        if planned is not None:
            return _status(*planned)
        path, pod = found.groups()
        async with self._session.get(
            self._upstream.server + path, headers={"authorization": f"Bearer {self._upstream.token}"}
        ) as there:
            if there.status != 200:
                return web.Response(status=there.status, body=await there.read())
            status = (await there.json()).get("status") or {}
        if request.headers.get("upgrade", "").lower() != "websocket":
            return _status(400, "Upgrade request required")
        if status.get("phase") != "Running":
            return _status(500, f"unable to forward port because pod is not running: {status.get('phase')}")
        if pod in self.silent:
            await asyncio.Event().wait()
        return await self._forward(request, pod, int(request.query["ports"]))

    async def _forward(self, request: web.Request, pod: str, port: int) -> web.WebSocketResponse:
        link = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=32 << 20)
        await link.prepare(request)
        assert link.ws_protocol == PROTOCOL
        self.forwarded.append(pod)
        self._open[link] = pod
        try:
            for channel in (0, 1):
                await link.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError as error:
                said = f"error forwarding port {port} to pod {pod}: {error.strerror}"
                await link.send_bytes(b"\1" + said.encode())
            else:
                await self._carry(link, reader, writer)
            await link.close()
        finally:
            del self._open[link]
        return link

    async def _carry(
        self, link: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        back = asyncio.create_task(self._back(link, reader))
        try:
            with suppress(OSError):
                async for message in link:
                    if message.type is aiohttp.WSMsgType.BINARY and message.data[0] == 0:
                        self.heard += message.data[1:]
                        writer.write(message.data[1:])
                        await writer.drain()
        finally:
            writer.transport.abort()  # at once, whoever cancels this
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _back(self, link: web.WebSocketResponse, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 15):
                self.heard += data
                await link.send_bytes(b"\0" + data)
        await link.close()
