"""The watch of Plugins, before kopf hears it: changes of known ones go straight to their loops.

kopf gives every object a queue and a task, and every event a dozen wrappers; it decodes each line with the
standard library and hands on the half of it that only servers read. What a change of a Plugin that has a loop
needs is to ring that loop. So such a line ends here, and kopf is told by a bookmark how far the stream has
come. All else goes on to kopf as it is: what is listed, comes, goes or went wrong.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from pydantic_core import from_json

from crucible.control.tls import tls_of
from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from crucible.control.kubeconfig import Endpoint

    Follow = Callable[[dict[str, Any]], bool]

_OK: Final = 200


def session_of(
    endpoint: Endpoint, follow: Follow, watched: Callable[[], None] = lambda: None
) -> aiohttp.ClientSession:
    """Return a session for kopf with an API server.

    Args:
        endpoint: where that is, and whom to be there.
        follow: told of every Plugin that changed; returns whether kopf need not hear of it.
        watched: called whenever the server agreed to tell of them.
    """

    async def thin(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        watches = request.url.query.get("watch") == "true"
        if watches and request.url.path.endswith(f"/{names.PLURAL}") and response.status == _OK:
            watched()
            response.content = cast("aiohttp.StreamReader", Stream(response.content, follow))
        return response

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls_of(endpoint), limit=0),
        headers={"authorization": f"Bearer {endpoint.token}"} if endpoint.token else {},
        middlewares=(thin,),
    )


class Stream:
    """What is left of a watch for kopf; in all that kopf does not read it by, the stream it was made of."""

    def __init__(self, content: aiohttp.StreamReader, follow: Follow) -> None:
        self._content = content
        self._follow = follow

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever aiohttp asks of a stream
        return getattr(self._content, name)

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """Yield whole lines, as many as there are at once."""
        rest = b""
        async for chunk in self._content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            left = b"".join(self._left(lines))
            if left:
                yield left
        if rest:
            yield rest

    def _left(self, lines: Iterable[bytes]) -> list[bytes]:
        left: list[bytes] = []
        version = ""
        for line in lines:
            version = self._taken(line)
            if not version:
                left.append(line + b"\n")  # its own version is newer than that of what was taken before
        if version:
            left.append(_bookmark(version))
        return left

    def _taken(self, line: bytes) -> str:
        """Return the version of the Plugin that a line was about, if its loop was told; else nothing."""
        try:
            event = from_json(line)
        except ValueError:
            return ""  # kopf has words for that
        match event:
            case {"type": "MODIFIED", "object": {"metadata": {"resourceVersion": str(version)}} as found}:
                return version if self._follow(found) else ""
        return ""


def _bookmark(version: str) -> bytes:
    found = {"kind": names.KIND, "apiVersion": names.API_VERSION, "metadata": {"resourceVersion": version}}
    return json.dumps({"type": "BOOKMARK", "object": found}).encode() + b"\n"
