"""A small client for the tests: plain requests, plain answers, and waits with a deadline."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

PLUGINS = "/apis/probe.dev/v1/namespaces/default/plugins"
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
DEADLINE = 60.0


def plugin(name: str, meta: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "probe.dev/v1",
        "kind": "Plugin",
        "metadata": {"name": name, **(meta or {})},
        "spec": {"image": "x", **spec},
    }


def configmap(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@dataclass(frozen=True)
class Reply:
    """One answer: status code, decoded body (or its text under ``_text``), headers."""

    code: int
    body: Any
    headers: Any = field(repr=False)

    @property
    def brief(self) -> list[Any]:
        """Code and, for a Status, its reason and message; else the kind."""
        if self.body.get("kind") != "Status":
            return [self.code, self.body.get("kind"), None]
        return [self.code, self.body.get("reason") or self.body.get("status"), self.body.get("message")]

    @property
    def full(self) -> list[Any]:
        return [self.code, *(self.body.get(key) for key in ("reason", "message", "details"))]

    @property
    def names(self) -> list[Any]:
        items = self.body.get("items", [])
        return [item["metadata"]["name"] for item in items] or self.brief

    @property
    def revision(self) -> int:
        return int(self.body["metadata"]["resourceVersion"])


class Probe:
    """Requests to one server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def ask(self, method: str, path: str, body: Any = None, **how: Any) -> Reply:
        text = body if body is None or isinstance(body, bytes | str) else json.dumps(body)
        raw = text.encode() if isinstance(text, str) else text
        data = None if raw is None else io.BytesIO(raw)
        headers = {"Accept": how.get("accept", "application/json"), **how.get("headers", {})}
        if data is not None:
            headers["Content-Type"] = how.get("media", "application/json")
        async with self.session.request(method, self.url + path, data=data, headers=headers) as response:
            answer = await response.text(errors="replace")
            try:
                found = json.loads(answer)
            except ValueError:
                found = {"_text": answer}
            return Reply(response.status, found, response.headers)

    async def get(self, path: str, **how: Any) -> Reply:
        return await self.ask("GET", path, **how)

    async def post(self, path: str, body: Any, **how: Any) -> Reply:
        return await self.ask("POST", path, body, **how)

    async def put(self, path: str, body: Any) -> Reply:
        return await self.ask("PUT", path, body)

    async def patch(self, path: str, body: Any, media: str = MERGE) -> Reply:
        return await self.ask("PATCH", path, body, media=media)

    async def delete(self, path: str, body: Any = None) -> Reply:
        return await self.ask("DELETE", path, body)

    async def apply(self, name: str, manager: str, body: dict[str, Any], **query: str) -> Reply:
        full = {"apiVersion": "probe.dev/v1", "kind": "Plugin", "metadata": {"name": name}, **body}
        extra = "".join(f"&{key}={value}" for key, value in query.items())
        return await self.patch(f"{PLUGINS}/{name}?fieldManager={manager}{extra}", full, APPLY)

    async def until(self, path: str, accept: Callable[[Reply], bool]) -> Reply:
        """Ask again until the answer is accepted."""
        found: list[Reply] = []

        async def ready() -> bool:
            found.append(await self.get(path))
            return accept(found[-1])

        await until(ready)
        return found[-1]

    @asynccontextmanager
    async def watch(self, path: str, accept: str = "application/json") -> AsyncIterator[Watch]:
        async with self.session.get(self.url + path, headers={"Accept": accept}) as response:
            yield Watch(response)


class Watch:
    """The events of one watch, as they come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.code = response.status
        self._response = response

    async def line(self) -> bytes:
        async with asyncio.timeout(DEADLINE):
            line = await self._response.content.readline()
        if not line:
            raise EOFError
        return line

    async def next(self) -> dict[str, Any]:
        return dict(json.loads(await self.line()))

    async def take(self, count: int) -> list[dict[str, Any]]:
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[dict[str, Any]]:
        """Everything until the server ends the watch."""
        events = []
        with suppress(EOFError):
            while True:
                events.append(await self.next())
        return events


async def until(ready: Callable[[], Awaitable[bool]], deadline: float = DEADLINE) -> None:
    """Poll a condition until it holds.

    Raises:
        TimeoutError: It did not in time.
    """
    async with asyncio.timeout(deadline):
        while not await ready():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def probing(url: str, ca: Path, token: str) -> AsyncIterator[Probe]:
    context = ssl.create_default_context(cafile=str(ca))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=100),
        headers={"Authorization": f"Bearer {token}"},
    ) as session:
        yield Probe(url, session)


def seen(events: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(event["type"], event["object"]["metadata"].get("name")) for event in events]
