"""Alerts are delivered to a real receiver, once, again while they last, and with their end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from crucible.core.alerts import QUARANTINED, REFUSED, Alert
from crucible.errors import InvalidInput, NotFound, Unavailable
from crucible.model.status import parse_time
from crucible.telemetry import alerts as courier
from crucible.telemetry.alerts import ENDS, PATH, REPEAT, Courier, Receiver, read_receiver, receiver_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FIRST = Alert(QUARANTINED, 900.0, "CrashLoop: it crashed", "default", "echo")
SECOND = Alert(REFUSED, 950.0, "Invalid: spec.x", "default", "other")


@dataclass
class Listener:
    """What was posted, and what is answered."""

    status: int = 200
    posts: list[list[dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        if self.status == 200:
            self.posts.append(await request.json())
        return web.Response(status=self.status, headers={"location": "/elsewhere"})

    def told(self) -> list[tuple[str, bool]]:
        """Return, for the last post, each plugin and whether its alert is over."""
        return [(each["labels"]["plugin"], parse_time(each["endsAt"]) <= 1000.0) for each in self.posts[-1]]


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    listener = Listener()
    application = web.Application()
    application.router.add_post(PATH, listener.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    listener.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield listener
    finally:
        await runner.cleanup()


@dataclass
class World:
    """What is wrong, and what time it is."""

    now: float = 1000.0
    alerts: tuple[Alert, ...] = (FIRST,)

    def courier(self, receiver: Receiver) -> Courier:
        return Courier(receiver, lambda: self.alerts, lambda: self.now)


async def test_what_is_wrong_is_told_as_alertmanager_takes_it() -> None:
    world = World()
    async with listening() as listener:
        receiver = Receiver(listener.url, "word", (("host", "h"),))
        async with world.courier(receiver) as delivery:
            await delivery.turn()
    (alert,) = listener.posts[0]
    assert alert["labels"] == {"host": "h", **dict(FIRST.labels)}
    assert alert["annotations"] == {
        "summary": "default/echo crashed too often and is not started again",
        "description": "CrashLoop: it crashed",
        "runbook": "docs/runbook.md#cruciblepluginsquarantined",
    }
    assert parse_time(alert["startsAt"]) == 900.0
    assert parse_time(alert["endsAt"]) == 1000.0 + ENDS
    assert listener.headers[0]["Authorization"] == "Bearer word"


async def test_the_same_is_told_once_then_now_and_then_and_its_end_at_once() -> None:
    world = World()
    async with listening() as listener, world.courier(Receiver(listener.url)) as delivery:
        await delivery.turn()
        await delivery.turn()
        assert len(listener.posts) == 1
        world.now += REPEAT
        await delivery.turn()
        assert len(listener.posts) == 2
        world.now, world.alerts = 1000.0, (FIRST, SECOND)
        await delivery.turn()
        assert listener.told() == [("echo", False), ("other", False)]
        world.alerts = (SECOND,)
        await delivery.turn()
        assert listener.told() == [("other", False), ("echo", True)]
        world.alerts = ()
        await delivery.turn()
        assert listener.told() == [("other", True)]
        await delivery.turn()
        assert len(listener.posts) == 5


async def test_a_new_controller_tells_again_what_goes_on() -> None:
    world = World()
    async with listening() as listener:
        for _ in range(2):
            async with world.courier(Receiver(listener.url)) as delivery:
                await delivery.turn()
        assert listener.posts[0] == listener.posts[1]


@pytest.mark.parametrize("status", [302, 401, 404, 429, 500, 503])
async def test_what_was_not_taken_counts_as_not_told(status: int) -> None:
    world = World()
    async with listening() as listener, world.courier(Receiver(listener.url)) as delivery:
        listener.status = status
        with pytest.raises(Unavailable, match=str(status)):
            await delivery.turn()
        listener.status = 200
        await delivery.turn()
        assert len(listener.posts) == 1


async def test_a_receiver_that_is_away_is_said_once_and_forgiven(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(courier, "_RETRY_FIRST", 0.005)
    monkeypatch.setattr(courier, "LOOK", 0.005)
    caplog.set_level(logging.WARNING)
    world = World()
    async with listening() as listener:
        listener.status = 503
        async with world.courier(Receiver(listener.url.replace("//", "//user:hunter2@"))) as delivery:
            running = asyncio.create_task(delivery.run())
            async with asyncio.timeout(30):
                while len(listener.headers) < 3:
                    await asyncio.sleep(0.005)
                listener.status = 200
                while not listener.posts or "delivered again" not in caplog.text:
                    await asyncio.sleep(0.005)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert caplog.text.count("are not delivered") == 1
    assert caplog.text.count("delivered again") == 1
    assert "hunter2" not in caplog.text


async def test_very_many_are_told_in_several_requests() -> None:
    world = World(alerts=tuple(Alert(REFUSED, 1.0, "x", "n", f"p{at}") for at in range(450)))
    async with listening() as listener, world.courier(Receiver(listener.url)) as delivery:
        await delivery.turn()
        assert [len(post) for post in listener.posts] == [200, 200, 50]


@pytest.mark.parametrize(
    "text", ["ftp://a", "file:///etc/passwd", "http:///b", "//a", "http://a:99999", "http://[", "unix:///x"]
)
def test_only_http_is_a_receiver_and_the_refusal_repeats_none_of_it(text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        receiver_of(text)
    assert text not in str(raised.value)


def test_a_receiver_names_nothing_secret() -> None:
    receiver = Receiver("https://user:hunter2@alerts.example.org:9093/secret?key=word", token="word2")
    assert repr(receiver) == "Receiver(https://alerts.example.org:9093)"


def test_a_file_says_where_and_with_what(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("url: https://a.example/\ntoken: word\nlabels: {host: h}\n")
    assert read_receiver("a.yaml", tmp_path) == Receiver("https://a.example", "word", (("host", "h"),))
    assert read_receiver("http://b:1", tmp_path) == Receiver("http://b:1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "write `url:"),
        ("url: 3", "write `url:"),
        ("url: ftp://a", "has to be http"),
        ("url: http://a\nmore: x", "nothing else"),
        ("url: http://a\nlabels: [x]", "labels"),
        ("url: http://a\nlabels: {x: 1}", "labels"),
        ("url: http://a\ntoken: 'a b'", "token"),
        ("{", "no YAML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_told_how(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=words):
        read_receiver("a.yaml", tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_receiver("none.yaml", tmp_path)
