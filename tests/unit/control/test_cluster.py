"""The client of a cluster: who it is, and that nobody writes who may not."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from crucible.control.cluster import ClusterClient, find_endpoint
from crucible.control.kubeconfig import Endpoint
from crucible.errors import InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Server:
    """Answers what it was asked, to whoever has the token."""

    def __init__(self) -> None:
        self.token = "first"
        self.asked: list[str] = []
        self.body = b"{}"
        self.code = 200

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text=json.dumps({"message": "Unauthorized"}))
        return web.Response(status=self.code, body=self.body)


async def test_a_token_that_was_replaced_is_read_anew_and_what_was_asked_is_asked_again() -> None:
    server, tokens = Server(), ["first"]
    async with server.serving() as url, ClusterClient(lambda: Endpoint(url, token=tokens[-1])) as client:
        assert await client.get("/a") == {}
        server.token = "second"
        with pytest.raises(InvalidInput, match="Unauthorized"):
            await client.get("/b")
        tokens.append("second")
        assert await client.create("/c", {}) == {}
    assert server.asked == ["GET /a", "GET /b", "POST /c", "POST /c"]


async def test_whoever_may_not_write_reads_and_sends_nothing_else() -> None:
    server = Server()
    async with (
        server.serving() as url,
        ClusterClient(lambda: Endpoint(url, token="first"), may_write=lambda: False) as client,
    ):
        await client.get("/a")
        for write in (
            client.create("/b", {}),
            client.patch("/b", {}),
            client.replace("/b", {}),
            client.end("/b", "uid", 0),
            client.delete("/b"),
        ):
            with pytest.raises(Unavailable, match="not the leader"):
                await write
    assert server.asked == ["GET /a"]


async def test_of_many_requests_some_are_under_way_and_the_others_wait_for_their_turn() -> None:
    busy, most, told, enough, over = 0, 0, 0, asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        if busy == 40:
            enough.set()
        await enough.wait()
        busy -= 1
        return web.Response(body=b"{}")

    async def wait(_: web.Request) -> web.Response:
        nonlocal told
        told += 1
        await over.wait()
        return web.Response(body=b"{}")

    async def take(_: web.Request) -> web.Response:
        return web.Response(body=b"{}")

    application = web.Application()
    application.router.add_get("/a", answer)
    application.router.add_get("/b", take)
    application.router.add_get("/events", wait)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with asyncio.timeout(60), ClusterClient(lambda: Endpoint(url)) as client:
        assert await asyncio.gather(*(client.get("/a") for _ in range(200))) == [{}] * 200
        events = [asyncio.create_task(client.get("/events")) for _ in range(100)]
        while told < 8:
            await asyncio.sleep(0)
        assert await client.get("/b") == {}, "events that wait hold up something else"
        over.set()
        await asyncio.gather(*events)
    await runner.cleanup()
    assert 40 <= most <= 48


async def test_a_watch_yields_events_of_any_length_and_an_answer_that_is_none_as_an_error() -> None:
    server = Server()
    long = {"type": "ADDED", "object": {"text": "x" * 300_000}}
    server.body = (json.dumps(long) + "\n" + json.dumps({"type": "BOOKMARK", "object": {}})).encode()
    async with server.serving() as url, ClusterClient(lambda: Endpoint(url, token="first")) as client:
        assert [each["type"] for each in await _events(client)] == ["ADDED", "BOOKMARK"]
        server.code, server.body = 410, b'{"kind": "Status", "code": 410}'
        assert await _events(client) == [{"type": "ERROR", "object": {"kind": "Status", "code": 410}}]
        server.code = 503
        with pytest.raises(Unavailable):
            await _events(client)


async def test_what_is_no_json_may_be_asked_again_and_ends_nothing() -> None:
    server = Server()
    server.body = b'{"type": "ADDED", "obj'
    async with server.serving() as url, ClusterClient(lambda: Endpoint(url, token="first")) as client:
        with pytest.raises(Unavailable, match="no JSON"):
            await client.get("/a")
        with pytest.raises(Unavailable, match="no JSON"):
            await _events(client)


async def _events(client: ClusterClient) -> list[dict[str, Any]]:
    async with client.watch("/pods", {"watch": "true"}) as events:
        return [event async for event in events]


def test_a_pod_signs_in_with_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "t\n"), ("ca.crt", "CA"), ("namespace", "ours")):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert find_endpoint(account=tmp_path) == Endpoint("https://[fd00::1]:443", "CA", "t", namespace="ours")


def test_without_any_way_in_it_says_what_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(NotFound, match="--kubeconfig"):
        find_endpoint(account=tmp_path)
