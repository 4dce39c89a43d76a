"""WebSockets to an API server: for what goes on in both directions, in an instance or to a pod."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from crucible.control.answers import error_of
from crucible.control.tls import tls_of
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crucible.control.kubeconfig import Endpoint

_CONNECT: Final = 10.0
_ERROR: Final = 400


@asynccontextmanager
async def websocket(
    endpoint: Endpoint, path: str, protocol: str, *, beat: float | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open one.

    Args:
        endpoint: the API server, and whom to be there.
        path: with its query.
        protocol: which to speak.
        beat: seconds between two looks whether the other end is there; None: no look.

    Raises:
        CrucibleError: as the server says; ``Unavailable`` where nothing answers.
    """
    headers = {"user-agent": "crucible"}
    if endpoint.token:
        headers["authorization"] = f"Bearer {endpoint.token}"
    secure: Any = tls_of(endpoint) if endpoint.server.startswith("https") else False
    refusal: list[str] = []
    async with aiohttp.ClientSession(
        headers=headers, trace_configs=[_keep_words(refusal)], cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        try:
            async with asyncio.timeout(_CONNECT):
                link = await session.ws_connect(
                    endpoint.server + path, protocols=(protocol,), ssl=secure, max_msg_size=0, heartbeat=beat
                )
        except aiohttp.WSServerHandshakeError as error:
            raise error_of(error.status, "".join(refusal)) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"{endpoint.server} does not answer: {error or 'timeout'}") from None
        async with link:
            yield link


def _keep_words(refusal: list[str]) -> aiohttp.TraceConfig:
    """Keep the body of an answer that is no WebSocket: aiohttp's error leaves it out."""

    async def keep(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
        if ended.response.status >= _ERROR:
            refusal.append(await ended.response.text())

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(keep)
    return trace
