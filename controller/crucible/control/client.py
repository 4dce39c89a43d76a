"""The asynchronous client of an API server: dicts in, dicts out, one connection pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import aiohttp

from crucible.control.answers import error_of
from crucible.control.tls import tls_of
from crucible.errors import Unavailable
from crucible.model.encoding import decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.control.kubeconfig import Endpoint

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_CREATED = 201
_DEADLINE = aiohttp.ClientTimeout(total=30)


class Client:
    """Talks to one API server. Use as an async context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"accept": "application/json", "user-agent": "crucible"}
        if self._endpoint.token:
            headers["authorization"] = f"Bearer {self._endpoint.token}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls_of(self._endpoint), limit=16),
            headers=headers,
            timeout=_DEADLINE,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read one object or a list."""
        return (await self._request("GET", path, params=params))[1]

    async def text(self, path: str, params: Mapping[str, str] | None = None) -> str:
        """Read what is no object: a log."""
        return (await self._answer("GET", path, params=params))[1].decode(errors="replace")

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in a collection."""
        return (await self._request("POST", path, body, "application/json"))[1]

    async def patch(self, path: str, body: object, kind: str = MERGE_PATCH) -> dict[str, Any]:
        """Change part of an object."""
        return (await self._request("PATCH", path, body, kind))[1]

    async def tell(self, path: str, body: object) -> None:
        """Change part of an object, and do not read what it is then."""
        await self._answer("PATCH", path, body, MERGE_PATCH)

    async def apply(self, path: str, body: Mapping[str, Any], manager: str) -> tuple[bool, dict[str, Any]]:
        """Apply on the server, fields of others included; return whether that made it, and what it is."""
        params = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        code, answer = await self._request("PATCH", path, body, APPLY_PATCH, params)
        return code == _CREATED, answer

    async def delete(self, path: str, uid: str | None = None) -> dict[str, Any]:
        """Ask for an object's deletion, of that very one where a uid is given; finalizers may hold it."""
        only = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}} if uid else None
        return (await self._request("DELETE", path, only, "application/json" if only else ""))[1]

    async def _request(
        self,
        verb: str,
        path: str,
        body: object = None,
        content_type: str = "",
        params: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        code, text = await self._answer(verb, path, body, content_type, params)
        try:
            answer: dict[str, Any] = decoded(text)
        except ValueError as error:  # cut off, or by something that stands before the server
            raise Unavailable(f"{self._endpoint.server} answers what is no JSON: {error}") from error
        return code, answer

    async def _answer(
        self,
        verb: str,
        path: str,
        body: object = None,
        content_type: str = "",
        params: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Ask, and turn an answer that is an error into ours.

        Raises:
            CrucibleError: as the server's Status says; ``Unavailable`` where it says nothing.
        """
        if self._session is None:
            raise Unavailable("the client is not open")
        data = None if body is None else encoded(body)
        headers = {"content-type": content_type} if content_type else {}
        try:
            async with self._session.request(
                verb, self._endpoint.server + path, data=data, headers=headers, params=params
            ) as response:
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._endpoint.server} does not answer: {error}") from error
        if response.status >= 400:  # noqa: PLR2004 - HTTP's own figure
            raise error_of(response.status, text.decode(errors="replace"))
        return response.status, text
