"""Who reads in the SDK for Python: the thread that waits, where one alone does, and who leads otherwise."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from raw import DEADLINE, Raw

from crucible.bus.wire import Frame, Kind
from crucible_plugin import Plugin, wire
from crucible_plugin.aio.client import Client
from crucible_plugin.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Bus
    from crucible_plugin.calls import Request

MANY = 200


class Noted(Plugin):
    """A plugin that notes which thread took each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[int] = []

    def receive(self, frame: wire.Frame) -> None:
        if frame.kind == wire.ANSWER:
            self.readers.append(threading.get_ident())
        super().receive(frame)


@pytest.fixture
async def noted(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Noted]:
    """A plugin that may call another that echoes, and serves ``hello``."""
    monkeypatch.setenv("CRUCIBLE_BUS", str(bus.plugin("noted", call=("echo.*",))))
    echo = await Raw.greet(bus.plugin("echo"), methods=["say"])
    serving = asyncio.create_task(answer_all(echo))
    plugin = Noted()
    plugin.method("hello")(lambda _: "here")
    yield plugin
    await asyncio.to_thread(plugin.close)
    serving.cancel()


async def answer_all(echo: Raw) -> None:
    while True:
        frame = await echo.next()
        if frame.kind == Kind.CALL:
            echo.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))


def call_many(plugin: Noted) -> int:
    for number in range(MANY):
        assert plugin.call("echo.say", number) == number
    return threading.get_ident()


async def hello(bus: Bus, ident: int = 1) -> bytes:
    host = await Raw.greet(bus.host, namespace="here")
    async with asyncio.timeout(DEADLINE):
        return (await host.call(ident, "noted.hello")).payload


async def test_a_thread_that_calls_alone_reads_its_answers_and_who_leads_reads_on_after_it(
    bus: Bus, noted: Noted
) -> None:
    await asyncio.to_thread(noted.start)
    caller = await asyncio.to_thread(call_many, noted)
    assert noted.readers.count(caller) >= MANY // 4  # not all: one that pauses between calls is read for
    assert await hello(bus) == b'"here"'
    assert await asyncio.to_thread(call_many, noted)
    assert await hello(bus) == b'"here"'


async def test_what_comes_for_others_meanwhile_is_served(bus: Bus, noted: Noted) -> None:
    await asyncio.to_thread(noted.start)
    host, ident = await Raw.greet(bus.host, namespace="here"), 1
    async with asyncio.TaskGroup() as group:
        going = group.create_task(asyncio.to_thread(lambda: [call_many(noted) for _ in range(10)]))
        while not going.done():
            async with asyncio.timeout(DEADLINE):
                assert (await host.call(ident, "noted.hello")).payload == b'"here"'
            ident += 2
    assert ident > 1


async def test_many_that_call_at_once_all_get_their_own_answers(noted: Noted) -> None:
    await asyncio.to_thread(noted.start)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(asyncio.to_thread(call_many, noted) for _ in range(4)))


async def test_where_a_method_is_inline_it_runs_in_the_thread_that_leads(bus: Bus, noted: Noted) -> None:
    ran: list[int] = []

    def shout(_: Request) -> Any:
        ran.append(threading.get_ident())

    noted.method("shout", inline=True)(shout)
    await asyncio.to_thread(noted.start)
    caller = await asyncio.to_thread(call_many, noted)
    assert caller not in noted.readers[-MANY // 2 :]
    host = await Raw.greet(bus.host, namespace="here")
    assert (await host.call(1, "noted.shout")).kind == Kind.ANSWER
    assert set(ran) == set(noted.readers[-MANY // 2 :])


async def test_it_ends_when_asked_though_a_thread_calls_and_calls(noted: Noted) -> None:
    await asyncio.to_thread(noted.start)
    await asyncio.to_thread(call_many, noted)
    async with asyncio.timeout(DEADLINE):
        await asyncio.to_thread(noted.close)
    assert not noted._line.connected


async def test_what_asyncio_calls_ends_at_once_with_a_connection_and_the_next_call_makes_one(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_BUS", str(bus.plugin("noted", call=("gate.*",))))
    gate = await bus.add("gate", "open")
    client = Client()
    calling = asyncio.create_task(client.call("gate.open", timeout=60))
    await gate.next()
    seat = bus.broker.roster.find("here", "noted")
    assert seat is not None
    seat.connections[0].close()
    with pytest.raises(Unavailable, match="not known whether"):
        await asyncio.wait_for(calling, DEADLINE)
    assert (await gate.next()).kind == Kind.CANCEL
    calling = asyncio.create_task(client.call("gate.open", timeout=60))
    gate.send(Frame(Kind.ANSWER, (await gate.next()).id, payload=b"7"))
    assert await asyncio.wait_for(calling, DEADLINE) == 7
    client.close()
