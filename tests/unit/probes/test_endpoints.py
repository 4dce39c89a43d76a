from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from crucible.probes import endpoints
from crucible.probes.endpoints import FRESH, HttpEndpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Service:
    """Answers with what it is told to, and counts who asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        headers = {"Location": "/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, headers=headers)


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", service.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/health"
    yield service
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (302, True), (404, True), (500, False), (503, False)]
)
async def test_an_answer_below_500_means_that_it_serves(status: int, *, ok: bool) -> None:
    async with serving() as service, HttpEndpoints() as found:
        service.status = status
        reach = await found.reach(service.url)
        assert reach.ok is ok
        assert reach.message == (
            f"{service.url} answers" if ok else f"{service.url} answers with status {status}"
        )
        assert service.asked == ["/health"]  # a redirect is not followed


async def test_it_is_asked_again_only_when_the_answer_is_old() -> None:
    clock = Clock()
    async with serving() as service, HttpEndpoints(clock) as found:
        for now in (0.0, FRESH - 0.1, FRESH, FRESH + 0.1):
            clock.now = now
            await found.reach(service.url)
        assert len(service.asked) == 2


async def test_nobody_there_is_said_in_words() -> None:
    async with serving() as service:
        url = service.url
    async with HttpEndpoints() as found:
        reach = await found.reach(url)
        assert not reach.ok
        assert reach.message.startswith(f"{url} cannot be reached: ")


async def test_one_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PATIENCE", 0.05)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with HttpEndpoints() as found:
            reach = await found.reach(f"http://127.0.0.1:{silent.getsockname()[1]}/")
    assert not reach.ok
    assert reach.message.endswith("did not answer within 0.05 s")
