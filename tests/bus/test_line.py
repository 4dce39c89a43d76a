"""The operator's lines to brokers: to each that there is, while it leads, and to none that only says so."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from raw import DEADLINE, Raw
from sandboxless import until

from crucible.backbone.authority import fresh_authority, utc_now
from crucible.bus import controller
from crucible.bus.credentials import serving
from crucible.bus.gate import Gate, Visitor
from crucible.bus.host import Client
from crucible.bus.line import Line, operators_way
from crucible.bus.lines import Lines, Place
from crucible.bus.wire import Frame, Kind, encode
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from conftest import Bus
    from crucible.bus.broker import Broker

KEY = "uid-here-{}/0-1/bus"


class Post:
    """A broker with a gate through which the operator alone comes, and plugins by their sockets."""

    def __init__(self, bus: Bus, authority: Any, name: str = "bus") -> None:
        self.bus = bus
        issued = authority.server((name,), utc_now())
        self.gate = Gate(self.bus.broker, self._who, serving(issued.certificate, issued.key))
        listener = socket.create_server(("127.0.0.1", 0))
        self.place = Place("127.0.0.1", listener.getsockname()[1])
        self._serving = asyncio.create_task(self.gate.serve(listener))

    def line(self) -> Line:
        """Give the operator its seat, once all plugins are there."""
        self.end = Line(self.bus.broker)
        return self.end

    async def _who(self, _: IPv4Address | IPv6Address) -> Visitor | None:
        return Visitor(operators_way("operator-a"), "uid")

    async def close(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        await Raw.hang_up()


class Operator:
    """The operator's end, and what it hears."""

    def __init__(self, authority: Any, on_the_way: float = 0.0) -> None:
        self.leads = True
        self.heard: list[Mapping[str, Any]] = []
        self.authority = authority
        self.lines = Lines(self._trust, lambda: self.leads, self.heard.append, on_the_way=on_the_way)

    async def _trust(self) -> str:
        return str(self.authority.certificate)

    async def reach(self, *posts: Post) -> None:
        self.lines.become({post.place for post in posts})
        await until(lambda: not self.lines.trouble)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as found:
        yield found


@pytest.fixture
def authority() -> Any:
    return fresh_authority("crucible-bus-ca", utc_now())


@pytest.fixture
async def posts(bus: Bus, tmp_path: Path, authority: Any, stack: AsyncExitStack) -> list[Post]:
    folder = tmp_path / "other"
    folder.mkdir()
    other = type(bus)(folder)
    stack.push_async_callback(other.close)
    found = [Post(each, authority) for each in (bus, other)]
    for post in found:
        stack.push_async_callback(post.close)
    return found


@pytest.fixture
async def operator(authority: Any, stack: AsyncExitStack, posts: list[Post]) -> Operator:
    found = Operator(authority)
    stack.push_async_callback(found.lines.close)
    assert posts
    return found


async def echo(raw: Raw) -> None:
    frame = await raw.next()
    raw.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))


async def test_it_asks_whichever_broker_has_the_plugin_and_tells_all_of_them(
    posts: list[Post], operator: Operator
) -> None:
    one, two = posts
    here = await one.bus.add("one", subscribe=("crucible.events.>",))
    there = await two.bus.add("two", subscribe=("crucible.events.>",))
    for raw in (here, there):
        await raw.ask(Frame(Kind.SUBSCRIBE, 1, "crucible.events.>"))
    ends = [post.line() for post in posts]
    await operator.reach(*posts)
    assert all(end.held for end in ends)
    for raw, name in ((here, "one"), (there, "two")):
        answering = asyncio.create_task(echo(raw))
        assert await operator.lines.call(KEY.format(name), "$ping", "there?", 20.0) == ("", "there?")
        await answering
    code, text = await operator.lines.call(KEY.format("three"), "$ping", "", 20.0)
    assert (code, text) == ("Unavailable", "it has not connected to the bus")
    await operator.lines.publish("here", "crucible.events.one.Started", {"a": 1})
    for raw in (here, there):
        message = await raw.next()
        assert (message.name, message.payload) == ("crucible.events.one.Started", b'{"a":1}')
        assert message.headers["from"] == "$controller"
    ends[1].tell("here", "two", ["too much"])
    await until(lambda: operator.heard)
    assert operator.heard == [{"namespace": "here", "plugin": "two", "notices": ["too much"]}]


async def test_who_is_not_connected_may_be_on_the_way_after_a_broker_came_or_went(
    posts: list[Post], authority: Any, stack: AsyncExitStack
) -> None:
    operator = Operator(authority, on_the_way=DEADLINE)
    stack.push_async_callback(operator.lines.close)
    one, _ = posts
    here = await one.bus.add("one")
    for post in posts:
        post.line()
    await operator.reach(*posts)
    with pytest.raises(Unavailable, match="on the way"):
        await operator.lines.call(KEY.format("two"), "$ping", "", 20.0)
    answering = asyncio.create_task(echo(here))
    assert await operator.lines.call(KEY.format("one"), "$ping", "there?", 20.0) == ("", "there?")
    await answering
    operator.lines._moved = -math.inf  # that was long ago
    assert (await operator.lines.call(KEY.format("two"), "$ping", "", 20.0))[0] == "Unavailable"
    await operator.reach(one)  # the other goes
    with pytest.raises(Unavailable, match="on the way"):
        await operator.lines.call(KEY.format("two"), "$ping", "", 20.0)


async def test_a_count_that_one_broker_cannot_give_is_not_known(
    posts: list[Post], operator: Operator
) -> None:
    one, two = posts
    callee = await one.bus.add("busy", "work")
    caller = await one.bus.add("asks", call=("busy.work",))
    await two.bus.add("busy", "work")
    caller.send(Frame(Kind.CALL, 1, "busy.work", deadline=30_000))
    given = await callee.next()
    one.bus.drain("busy", "0-1")
    for post in posts:
        post.line()
    await operator.reach(*posts)
    key = KEY.format("busy")
    assert await operator.lines.open_calls([key]) == {key: None}, "one has not heard yet that it is to end"
    two.bus.broker.forget({"uid-here-busy"})
    await until(lambda: two.bus.broker.through(key) is None)
    assert await operator.lines.open_calls([key]) == {key: 1}
    callee.send(Frame(Kind.ANSWER, given.id))
    await caller.next()
    assert await operator.lines.open_calls([key]) == {key: 0}


async def test_who_does_not_lead_says_nothing(posts: list[Post], operator: Operator) -> None:
    one, _ = posts
    listens = await one.bus.add("one", subscribe=("crucible.events.>",))
    await listens.ask(Frame(Kind.SUBSCRIBE, 1, "crucible.events.>"))
    one.line()
    await operator.reach(one)
    operator.leads = False
    for work in (
        operator.lines.call(KEY.format("one"), "$ping", "", 20.0),
        operator.lines.open_calls([KEY.format("one")]),
        operator.lines.publish("here", "crucible.events.one.Started", {}),
    ):
        with pytest.raises(Unavailable, match="not the leader"):
            await work
    operator.leads = True
    await operator.lines.publish("here", "crucible.events.one.Ended", {})
    assert (await listens.next()).name == "crucible.events.one.Ended"
    await operator.lines.close()
    await until(lambda: not one.end.held)
    with pytest.raises(Unavailable):
        await operator.lines.call(KEY.format("one"), "$ping", "", 20.0)


async def test_a_broker_of_another_authority_or_name_is_not_spoken_to(
    posts: list[Post], authority: Any, stack: AsyncExitStack, operator: Operator
) -> None:
    others = fresh_authority("crucible-bus-ca", utc_now())
    bus = posts[0].bus
    for posing in (Post(bus, others), Post(bus, authority, "crucible-bus")):
        stack.push_async_callback(posing.close)
        posing.line()
        operator.lines.become({posing.place})
        await until(lambda: "verify failed" in operator.lines.trouble)
        assert not posing.end.held


async def test_one_broker_that_is_away_leaves_what_it_may_know_open(
    posts: list[Post], operator: Operator
) -> None:
    one, two = posts
    here = await one.bus.add("one")
    for post in posts:
        post.line()
    await operator.reach(*posts)
    await two.close()
    await until(lambda: operator.lines.trouble)
    with pytest.raises(Unavailable):
        await operator.lines.call(KEY.format("two"), "$ping", "", 20.0)
    operator.lines.become({one.place})
    assert not operator.lines.trouble
    del here


async def test_a_broker_that_lets_in_nobody_new_is_asked_of_those_it_has_until_its_line_falls(
    posts: list[Post], operator: Operator
) -> None:
    one, two = posts
    here = await one.bus.add("one")
    for post in posts:
        post.line()
    await operator.reach(*posts)
    operator.lines.become({two.place}, {one.place})
    answering = asyncio.create_task(echo(here))
    assert await operator.lines.call(KEY.format("one"), "$ping", "there?", 20.0) == ("", "there?")
    await answering
    await one.close()
    await until(lambda: one.place not in operator.lines._tasks)
    assert not operator.lines.trouble, "it is not tried again"
    operator.lines.become({two.place}, {one.place})
    assert one.place not in operator.lines._tasks, "none is begun"


async def test_a_broker_that_hangs_is_no_plugin_that_does_and_keeps_nobody_from_those_of_others(
    posts: list[Post], operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = posts
    there = await two.bus.add("two")
    for post in posts:
        post.line()
    await operator.reach(*posts)
    answer = controller.answer

    async def hangs(broker: Broker, words: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if broker is one.bus.broker:
            await asyncio.Event().wait()
        return await answer(broker, words)

    monkeypatch.setattr(controller, "answer", hangs)
    answering = asyncio.create_task(echo(there))
    assert await operator.lines.call(KEY.format("two"), "$ping", "there?", 20.0) == ("", "there?")
    await answering
    with pytest.raises(Unavailable, match="does not answer"):
        await operator.lines.call(KEY.format("one"), "$ping", "", 0.5)
    monkeypatch.undo()
    assert (await operator.lines.call(KEY.format("two"), "$ping", "", 0.5))[0] == "DeadlineExceeded"


async def test_a_line_that_takes_its_time_to_end_does_not_take_the_next_one_with_it(
    posts: list[Post], operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = posts
    one.line()
    slow, leave = asyncio.Event(), Client.__aexit__

    async def left(self: Client, *why: object) -> None:
        if asyncio.current_task() is ending:
            await slow.wait()
        await leave(self, *why)

    monkeypatch.setattr(Client, "__aexit__", left)
    await operator.reach(one)
    ending = operator.lines._tasks[one.place]
    operator.lines.become(())
    await operator.reach(one)
    slow.set()
    await asyncio.gather(ending, return_exceptions=True)
    assert operator.lines._open, "else it would be taken for one that has nobody"
    await until(lambda: one.end.held)


async def test_a_host_that_cannot_be_reached_any_more_is_an_outage_whatever_the_kernel_calls_it() -> None:
    class Gone:
        def is_closing(self) -> bool:
            return False

        def write(self, _: bytes) -> None:
            """It goes nowhere."""

        async def drain(self) -> None:
            raise OSError(errno.EHOSTUNREACH, "No route to host")

        def close(self) -> None:
            """It is."""

        async def wait_closed(self) -> None:
            """It was."""

    reader = asyncio.StreamReader()
    reader.feed_data(encode(Frame(Kind.WELCOME, payload=b"{}")))

    async def connect() -> Any:
        return reader, Gone()

    async with Client(connect, "") as client:
        with pytest.raises(Unavailable, match="No route"):
            await client.call("$controller.ask", b"{}")
