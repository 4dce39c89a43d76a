"""Two real brokers of one cluster and a real NATS server: what is killed, and what goes on."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from ground import DEADLINE
from meeting import Meeting
from raw import Raw, words
from replicas import Natted

from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ground import LocalGround

_PATTERN = {"pattern": "notes.>"}
_SUBJECT = {"subject": "notes.saved"}
_STORE = {"size": "64Ki", "onDelete": "remove"}
_KEY = {"key": "a"}


class Replicas:
    """Two brokers behind one Service, and their server."""

    def __init__(self, local: LocalGround) -> None:
        self.local = local
        self.server = Natted(local.place / "nats")
        arguments = self.server.arguments()
        self.one = Meeting(local, "broker-one", *arguments)
        self.two = Meeting(local, "broker-two", *arguments)

    async def open(self) -> None:
        await self.server.start()
        self.two.begin()
        await self.one.open("--stores")
        await self.until_joined()

    async def until_joined(self) -> None:
        """Wait until both see each other."""

        async def joined() -> bool:
            figures = await asyncio.gather(*(each.figures() for each in (self.one, self.two)))
            return all("crucible_bus_joined 1" in text and "_replicas 1" in text for text in figures)

        def why() -> str:
            return self.one.log() + self.two.log() + self.server.log()

        await self.local.until(lambda: self.one.port("metrics") and self.two.port("metrics"), why)
        await self.local.until(joined, why)

    async def close(self) -> None:
        await self.one.close()
        await self.two.close()
        self.server.kill()


@pytest.fixture
async def replicas(local: LocalGround) -> AsyncIterator[Replicas]:
    found = Replicas(local)
    try:
        await found.open()
        yield found
    finally:
        await found.close()


async def until_taken(replicas: Replicas, here: Raw, there: Raw) -> str:
    """Put events until one is taken: a subscription begins with its first take. Return which it was."""
    numbers = iter(range(5001, 9000, 2))

    async def taken() -> str:
        ident = next(numbers)
        assert (await here.call(ident, "$events.put", headers=_SUBJECT, deadline=20_000)).kind == Kind.ANSWER
        event = await there.call(ident, "$events.take", headers=_PATTERN, deadline=500)
        return event.headers.get("sequence", "")

    return str(await replicas.local.until(taken, replicas.two.log))


async def until_called(replicas: Replicas, here: Raw, there: Raw, numbers: list[int]) -> None:
    """Call until somebody answers; each call ends, typed, before its deadline."""

    async def answered() -> bool:
        numbers[0] += 2
        here.send(Frame(Kind.CALL, numbers[0], "split.words", b"x", deadline=20_000))
        ended = await here.next()
        assert ended.kind == Kind.ANSWER or words(ended)[2] == "Unavailable", ended
        return ended.kind == Kind.ANSWER

    serving = asyncio.create_task(_echo(there))
    try:
        await replicas.local.until(answered, lambda: replicas.one.log() + replicas.two.log())
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _echo(raw: Raw) -> None:
    while True:
        frame = await raw.next()
        if frame.kind == Kind.CALL:
            raw.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))


async def is_cut(raw: Raw) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        await raw.gone()


async def test_one_of_two_brokers_is_killed_then_nats_and_nothing_that_was_promised_is_lost(
    replicas: Replicas,
) -> None:
    one, two, numbers = replicas.one, replicas.two, [1]
    callee, caller = await asyncio.gather(
        one.plugin("split", _STORE, subscribe=["notes.>"]),
        one.plugin("ask", call=["split.words"], publish=["notes.>"]),
    )
    there, here = await two.join(callee, "words"), await one.join(caller)
    await until_called(replicas, here, there, numbers)
    done = await until_taken(replicas, here, there)
    kept = await there.call(9001, "$store.put", b"seven", headers=_KEY, deadline=20_000)
    assert kept.kind == Kind.ANSWER, kept
    trusted = await one.authority()
    # A broker is killed while a call is open with who is connected to it.
    here.send(Frame(Kind.CALL, 9001, "split.words", b"open", deadline=600_000))
    assert (await there.next()).payload == b"open"
    two.kill()
    await is_cut(there)
    assert words(await here.next()) == ("ERROR", 9001, "Unavailable")
    # Its plugin comes to the other, which it believes already.
    there = await one.join(callee, "words")
    await until_called(replicas, here, there, numbers)
    assert (await there.call(9001, "$store.get", headers=_KEY, deadline=20_000)).payload == b"seven"
    two.begin()
    await replicas.until_joined()
    assert await one.authority() == trusted
    moved = await two.join(caller)
    await until_called(replicas, moved, there, [1])
    # The server is killed: those of one broker still reach each other, the rest is told why not.
    put = await here.call(9003, "$events.put", b"kept", headers=_SUBJECT, deadline=20_000)
    assert put.kind == Kind.ANSWER
    replicas.server.kill()
    await until_called(replicas, here, there, numbers)
    moved.send(Frame(Kind.CALL, 9005, "split.words", deadline=20_000))
    ended = await moved.next()
    assert words(ended)[2] == "Unavailable"
    assert words(await here.call(9007, "$events.put", headers=_SUBJECT))[2] == "Unavailable"
    assert words(await there.call(9003, "$store.get", headers=_KEY))[2] == "Unavailable"
    await replicas.server.start()
    await replicas.until_joined()
    await until_called(replicas, moved, there, [9007])
    for ident in range(9009, 9999, 2):  # what was taken too late the first time comes before it
        event = await there.call(ident, "$events.take", headers=_PATTERN | {"done": done}, deadline=50_000)
        assert event.kind == Kind.ANSWER, event
        if event.payload == b"kept":
            break
        done = event.headers["sequence"]
    assert event.payload == b"kept"
    elsewhere = await two.join(callee)
    assert (await elsewhere.call(1, "$store.get", headers=_KEY, deadline=20_000)).payload == b"seven"
    # Another plugin of that name has nothing of it.
    await replicas.local.delete("split")

    async def gone() -> bool:
        found = await replicas.local.client.get(replicas.local.plugins)
        return all(each["metadata"]["name"] != "split" for each in found["items"])

    await replicas.local.until(gone)
    again = await one.join(await one.plugin("split", _STORE))
    assert words(await again.call(1, "$store.get", headers=_KEY, deadline=20_000))[2] == "NotFound"
    assert two.process is not None
    two.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(two.process.wait, DEADLINE) == 0
