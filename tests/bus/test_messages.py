"""Publish and subscribe: who listens gets what was granted, of its own namespace, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raw import Raw, words

from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from conftest import Bus


async def listen(client: Raw, ident: int, pattern: str) -> None:
    assert words(await client.ask(Frame(Kind.SUBSCRIBE, ident, pattern))) == ("ANSWER", ident, "")


async def test_a_message_reaches_every_pattern_it_fits_and_nobody_else(bus: Bus) -> None:
    editor = await bus.add("editor", publish=("notes.>",))
    listener = await bus.add("listener", subscribe=("notes.>",))
    await listen(listener, 1, "notes.saved")
    await listen(listener, 3, "notes.*")
    await listen(listener, 5, "notes.>")
    await listen(listener, 7, "notes.*.again")
    answer = await editor.ask(Frame(Kind.PUBLISH, 1, "notes.saved", b"7", {"traceparent": "00"}))
    assert (answer.kind, answer.headers) == (Kind.ANSWER, {"reached": "3"})
    got = [await listener.next() for _ in range(3)]
    assert sorted(message.id for message in got) == [1, 3, 5]
    expected = Frame(Kind.MESSAGE, 1, "notes.saved", b"7", {"traceparent": "00", "from": "editor"})
    assert got[0]._replace(id=1) == expected
    answer = await editor.ask(Frame(Kind.PUBLISH, 3, "notes.saved.again"))
    assert answer.headers == {"reached": "2"}
    assert sorted([(await listener.next()).id for _ in range(2)]) == [5, 7]


async def test_a_message_stays_in_its_namespace(bus: Bus) -> None:
    there = await bus.add("listener", namespace="there", subscribe=(">",))
    await listen(there, 1, ">")
    editor = await bus.add("editor", namespace="here", publish=(">",))
    answer = await editor.ask(Frame(Kind.PUBLISH, 1, "notes.saved"))
    assert answer.headers == {"reached": "0"}
    assert words(await there.call(3, "$bus.ping")) == ("ANSWER", 3, "")


async def test_what_is_not_granted_is_refused_with_the_line_that_would_grant_it(bus: Bus) -> None:
    client = await bus.add("plain", publish=("a.*",), subscribe=("b.*",))
    cases = [
        (Frame(Kind.PUBLISH, 1, "b.x"), "NotPermitted", "bus.publish: [b.x]"),
        (Frame(Kind.PUBLISH, 3, "a.x.y"), "NotPermitted", "bus.publish: [a.x.y]"),
        (Frame(Kind.PUBLISH, 5, "a.*"), "Malformed", "no subject"),
        (Frame(Kind.PUBLISH, 7, "crucible.events.x"), "NotPermitted", "bus.publish"),
        (Frame(Kind.SUBSCRIBE, 9, "a.x"), "NotPermitted", "bus.subscribe: [a.x]"),
        (Frame(Kind.SUBSCRIBE, 11, "b.>"), "NotPermitted", "bus.subscribe: [b.>]"),
        (Frame(Kind.SUBSCRIBE, 13, ">"), "NotPermitted", "bus.subscribe: [>]"),
        (Frame(Kind.SUBSCRIBE, 15, "b.>.x"), "Malformed", "no pattern"),
    ]
    for frame, code, text in cases:
        answer = await client.ask(frame)
        assert words(answer) == ("ERROR", frame.id, code), frame
        assert text in answer.payload.decode()
    unasked = await client.ask(Frame(Kind.PUBLISH, 0, "b.x"))
    assert words(unasked) == ("ERROR", 0, "NotPermitted")
    assert unasked.headers == {"subject": "b.x"}
    assert bus.faults("plain") == {"refused": 7}


async def test_nobody_but_the_controller_publishes_its_subjects(bus: Bus) -> None:
    listener = await bus.add("listener", subscribe=("crucible.events.>",))
    await listen(listener, 1, "crucible.events.>")
    host = await bus.join(bus.host, namespace="here")
    assert words(await host.ask(Frame(Kind.PUBLISH, 1, "crucible.events.x"))) == ("ERROR", 1, "NotPermitted")
    bus.broker.messages.deliver("here", "$controller", Frame(Kind.PUBLISH, 0, "crucible.events.x", b"{}"))
    assert (await listener.next()).headers == {"from": "$controller"}


async def test_who_listens_no_more_gets_no_more(bus: Bus) -> None:
    client = await bus.add("both", publish=("a",), subscribe=("a",))
    await listen(client, 1, "a")
    client.send(Frame(Kind.UNSUBSCRIBE, 1), Frame(Kind.UNSUBSCRIBE, 1))
    assert (await client.ask(Frame(Kind.PUBLISH, 3, "a"))).headers == {"reached": "0"}
    assert bus.broker.messages.topics.count == 0


async def test_a_subscription_that_is_not_granted_any_more_ends(bus: Bus) -> None:
    client = await bus.add("both", publish=("a", "b"), subscribe=("a", "b"))
    await listen(client, 1, "a")
    await listen(client, 3, "b")
    bus.grant("both", publish=("a", "b"), subscribe=("b",))
    assert words(await client.next()) == ("ERROR", 1, "NotPermitted")
    assert (await client.ask(Frame(Kind.PUBLISH, 5, "a"))).headers == {"reached": "0"}


async def test_thousands_of_subscriptions_are_refused_and_those_there_are_go_with_the_connection(
    bus: Bus,
) -> None:
    client = await bus.add("greedy", subscribe=(">",))
    client.send(*(Frame(Kind.SUBSCRIBE, 2 * n + 1, f"a.b{n}") for n in range(3000)))
    kinds = [(await client.next()).kind for _ in range(3000)]
    assert kinds.count(Kind.ANSWER) == 256
    assert bus.faults("greedy") == {"overloaded": 3000 - 256}
    await client.close()
    await until_no_topics(bus)


async def until_no_topics(bus: Bus) -> None:
    other = await bus.add("other")
    ident = 1
    while bus.broker.messages.topics.count:
        await other.call(ident, "$bus.ping")
        ident += 2
    assert bus.broker.messages.topics._roots == {}


async def test_a_subscriber_that_never_reads_misses_messages_and_delays_nobody(bus: Bus) -> None:
    deaf = await bus.add("deaf", subscribe=("a",))
    well = await bus.add("well", subscribe=("a",))
    editor = await bus.add("editor", publish=("a",))
    await listen(deaf, 1, "a")
    await listen(well, 1, "a")
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(60):
        await editor.ask(Frame(Kind.PUBLISH, 2 * number + 1, "a", b"x" * 100_000))
        assert (await well.next()).headers == {"from": "editor"}
    assert bus.faults("deaf")["missed"] > 10
    assert "missed" not in bus.faults("well")
    deaf.writer.transport.resume_reading()  # type: ignore[attr-defined]
    got = 0
    while got + bus.faults("deaf")["missed"] < 60:
        got += (await deaf.next()).kind == Kind.MESSAGE
    await editor.ask(Frame(Kind.PUBLISH, 999, "a"))
    assert (await deaf.next()).headers == {"from": "editor", "missed": str(bus.faults("deaf")["missed"])}
