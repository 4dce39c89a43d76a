"""The client of a whole cluster: who one is there, watches, and writes that only the leader may make."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from crucible.control.answers import error_of
from crucible.control.client import Client
from crucible.control.kubeconfig import Endpoint, default_path, load_endpoint
from crucible.control.tls import tls_of
from crucible.errors import CrucibleError, NotFound, Unavailable
from crucible.model.encoding import decoded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_READS: Final = frozenset({"GET", "HEAD"})
_UNAUTHORIZED: Final = 401
_GONE: Final = 410
_FAILED: Final = 400
_DEADLINE: Final = aiohttp.ClientTimeout(total=15)
_STREAM: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=300)
_AT_ONCE: Final = 48
"""Requests under way, besides what goes on and on; the time of one that waits begins with its turn."""
_EVENTS_AT_ONCE: Final = 8
"""Events that are being told, beside those: ten thousand of them hold up nobody else's status."""


def find_endpoint(kubeconfig: Path | None = None, account: Path = SERVICE_ACCOUNT) -> Endpoint:
    """Return where the API server is, and whom to be there now, for tokens change by the hour.

    A kubeconfig that is named counts first, then the service account of the pod, then the usual kubeconfig.

    Raises:
        NotFound: there is neither.
    """
    if kubeconfig is not None:
        return load_endpoint(kubeconfig)
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST", ""),
        os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if host and (account / "token").is_file():
        return Endpoint(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            ca=(account / "ca.crt").read_text(),
            token=(account / "token").read_text().strip(),
            namespace=(account / "namespace").read_text().strip(),
        )
    path = default_path()
    if not path.is_file():
        raise NotFound(
            f"there is neither a service account nor a kubeconfig at {path}: run it in a pod, or name one "
            "with --kubeconfig"
        )
    return load_endpoint(path)


class ClusterClient(Client):
    """Talks to a cluster. Use as an async context manager.

    What writes asks first whether this process may: one that was paused must not act on what it knew then.
    """

    def __init__(self, find: Callable[[], Endpoint], may_write: Callable[[], bool] = lambda: True) -> None:
        """Talk to whatever ``find`` says, with the token it says at the time of each request."""
        super().__init__(find())
        self._find = find
        self._may_write = may_write
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._events = asyncio.Semaphore(_EVENTS_AT_ONCE)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls_of(self._endpoint), limit=0),
            headers={"accept": "application/json", "user-agent": "crucible-operator"},
            timeout=_DEADLINE,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(self._sign,),
        )
        return self

    async def _sign(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Sign a request, the last moment before it is sent; a token that was replaced is read anew."""
        if request.method not in _READS and not self._may_write():
            raise aiohttp.ClientConnectionError("this replica is not the leader")
        if self._endpoint.token:
            request.headers["authorization"] = f"Bearer {self._endpoint.token}"
        response = await handler(request)
        if response.status == _UNAUTHORIZED:
            self._endpoint = replace(self._endpoint, token=self._find().token)
        return response

    async def _answer(
        self,
        verb: str,
        path: str,
        body: object = None,
        content_type: str = "",
        params: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Ask as a :class:`Client` does; once more where a token was refused that has been replaced since."""
        async with self._events if path.endswith("/events") else self._turns:
            token = self._endpoint.token
            try:
                return await super()._answer(verb, path, body, content_type, params)
            except CrucibleError:
                if self._endpoint.token == token:
                    raise
            return await super()._answer(verb, path, body, content_type, params)

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object, unless it changed since it was read."""
        return (await self._request("PUT", path, body, "application/json"))[1]

    async def end(self, path: str, uid: str, grace: int | None = None) -> dict[str, Any]:
        """Delete that very object; ``grace`` is in seconds, None for the object's own."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        return (await self._request("DELETE", path, options, "application/json"))[1]

    @asynccontextmanager
    async def watch(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Watch a collection; entered once the server agreed to tell."""
        async with self.lines(path, params, forgiven=_GONE) as lines:
            yield (_event(line) async for line in lines if line)

    @asynccontextmanager
    async def lines(
        self, path: str, params: Mapping[str, str], *, forgiven: int = 0
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read an answer line by line, without the lines' ends, for as long as it comes."""
        if self._session is None:
            raise Unavailable("the client is not open")
        try:
            async with self._session.get(
                self._endpoint.server + path, params=params, timeout=_STREAM
            ) as response:
                if response.status >= _FAILED and response.status != forgiven:
                    raise error_of(response.status, await response.text())
                yield _split(response.content)
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise Unavailable(f"{self._endpoint.server} does not answer: {error or 'timeout'}") from error


def _event(line: bytes) -> dict[str, Any]:
    """Return an event; an answer that is a Status instead of events is one that tells of an error.

    Raises:
        Unavailable: it is none: the line was cut off, say.
    """
    try:
        found: dict[str, Any] = decoded(line)
    except ValueError as error:
        raise Unavailable(f"a watch tells what is no JSON: {error}") from error
    return {"type": "ERROR", "object": found} if found.get("kind") == "Status" else found


async def _split(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines of any length."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest
