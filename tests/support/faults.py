"""A proxy in front of an API server that can be told to fail in every way a network and a server do."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml
from aiohttp import web

from crucible.control.tls import tls_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crucible.control.kubeconfig import Endpoint

Answer = tuple[int, str]
"""An HTTP status, and the message of the Status that goes with it."""
HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host"}


class Faults:
    """Hands requests on, unless told otherwise; plain HTTP on loopback, so no client needs a certificate.

    Attributes:
        away: every connection is closed without an answer.
        answer: asked before each request is handed on; what it returns is sent instead. Given verb and path,
            the path of a watch with ``?watch`` at its end.
        answer_after: as ``answer``, once the server has done what was asked.
        asked: every request that came, as ``VERB path``.
        latency: seconds each request waits before it is handed on.
    """

    def __init__(self, upstream: Endpoint) -> None:
        self.away = False
        self.answer: Callable[[str, str], Answer | None] = lambda _verb, _path: None
        self.answer_after: Callable[[str, str], Answer | None] = lambda _verb, _path: None
        self.asked: list[str] = []
        self.latency = 0.0
        self._upstream = upstream
        self._watches: set[asyncio.Task[Any]] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls_of(self._upstream), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        application = web.Application(client_max_size=1 << 25)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await self._runner.cleanup()
        await self._session.close()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here."""
        config = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "c", "user": {"token": "any"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "default"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def cut(self) -> None:
        """Cut every watch that is open."""
        for task in tuple(self._watches):
            task.cancel()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.away:
            self._hang_up(request)
        watch = "?watch" if "watch" in request.query else ""
        planned = self.answer(request.method, request.path + watch)
        if planned is not None:
            return _status(*planned)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP}
        headers["authorization"] = f"Bearer {self._upstream.token}"
        async with self._session.request(
            request.method,
            self._upstream.server + request.path_qs,
            data=await request.read(),
            headers=headers,
        ) as answer:
            if "watch" in request.query:
                return await self._stream(request, answer)
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in HOP}
            body = await answer.read()
            late = self.answer_after(request.method, request.path)
            return _status(*late) if late else web.Response(status=answer.status, body=body, headers=kept)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"content-type": "application/json"})
        await response.prepare(request)
        copying = asyncio.ensure_future(self._copy(answer, response))
        self._watches.add(copying)
        try:
            await copying
        except asyncio.CancelledError:
            if not copying.cancelled():
                copying.cancel()
                raise
            self._hang_up(request)
        finally:
            self._watches.discard(copying)
        return response

    @staticmethod
    async def _copy(answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            async for chunk in answer.content.iter_any():
                await response.write(chunk)

    @staticmethod
    def _hang_up(request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()
        raise web.HTTPServiceUnavailable


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.Response(status=code, text=json.dumps(body), content_type="application/json")
