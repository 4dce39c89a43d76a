"""Calls between plugins: routed, bounded in time, ended once, and only where they are granted."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from raw import Raw, words

from crucible.bus import wire
from crucible.bus.wire import Frame, Kind
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from conftest import Bus


async def test_a_call_reaches_the_plugin_and_its_answer_the_caller(bus: Bus) -> None:
    asked = await bus.add("tokenizer", "split")
    asker = await bus.add("counter", call=("tokenizer.split",))
    asker.send(Frame(Kind.CALL, 1, "tokenizer.split", b"to be", {"traceparent": "00-1"}, 1, 5000))
    got = await asked.next()
    assert (got.kind, got.name, got.payload, got.priority) == (Kind.CALL, "split", b"to be", 1)
    assert got.headers == {"traceparent": "00-1", "from": "counter"}
    assert got.id % 2 == 0
    assert 1000 < got.deadline <= 5000
    asked.send(Frame(Kind.ANSWER, got.id, payload=b"2"))
    answer = await asker.next()
    assert (answer.kind, answer.id, answer.payload, answer.priority) == (Kind.ANSWER, 1, b"2", 1)


async def test_what_a_method_says_when_it_fails_comes_with_its_name(bus: Bus) -> None:
    asked = await bus.add("tokenizer", "split")
    asker = await bus.add("counter", call=("tokenizer.*",))
    asker.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    got = await asked.next()
    asked.send(Frame(Kind.ERROR, got.id, "Failed", b"text is empty"))
    assert await asker.next() == Frame(Kind.ERROR, 1, "Failed", b"text is empty", {"from": "tokenizer"})


async def test_a_call_that_cannot_be_made_is_refused_at_once_with_the_reason(bus: Bus) -> None:
    bus.plugin("asleep", state="is suspended: set spec.suspend to false")
    bus.plugin("starting")
    await bus.add("tokenizer", "split")
    asker = await bus.add("counter", call=("asleep.m", "starting.m", "nobody.m", "tokenizer.*", "a.b"))
    expected = {
        "asleep.m": ("Unavailable", "is suspended"),
        "starting.m": ("Unavailable", "has not offered"),
        "nobody.m": ("NoSuchPlugin", "no plugin nobody"),
        "tokenizer.join": ("NoSuchMethod", "no method join"),
        "tokenizer": ("Malformed", "no plugin.method"),
        "tokenizer.": ("Malformed", "no plugin.method"),
        "$bus.nothing": ("NotPermitted", "lacks"),
        "other.m": ("NotPermitted", "capabilities.bus.call: [other.m]"),
    }
    for number, (name, (code, text)) in enumerate(expected.items()):
        answer = await asker.call(2 * number + 1, name)
        assert words(answer) == ("ERROR", 2 * number + 1, code), name
        assert text in answer.payload.decode()


async def test_a_deadline_ends_the_call_on_both_sides(bus: Bus) -> None:
    asked = await bus.add("slow", "work")
    asker = await bus.add("asker", call=("slow.work",))
    asker.send(Frame(Kind.CALL, 1, "slow.work", deadline=500))
    got = await asked.next()
    assert words(await asker.next()) == ("ERROR", 1, "DeadlineExceeded")
    assert words(await asked.next()) == ("CANCEL", got.id, "")
    asked.send(Frame(Kind.ANSWER, got.id))
    assert words(await asker.call(1, "$bus.ping")) == ("ANSWER", 1, "")


async def test_a_cancelled_call_ends_at_once_and_its_late_answer_is_dropped(bus: Bus) -> None:
    asked = await bus.add("slow", "work")
    asker = await bus.add("asker", call=("slow.work",))
    asker.send(Frame(Kind.CALL, 1, "slow.work"))
    got = await asked.next()
    assert words(await asker.ask(Frame(Kind.CANCEL, 1))) == ("ERROR", 1, "Cancelled")
    assert words(await asked.next()) == ("CANCEL", got.id, "")
    asked.send(Frame(Kind.ANSWER, got.id))
    asker.send(Frame(Kind.CANCEL, 1))
    assert words(await asker.call(3, "$bus.ping")) == ("ANSWER", 3, "")


async def test_who_goes_away_leaves_nobody_waiting(bus: Bus) -> None:
    asked = await bus.add("slow", "work")
    asker = await bus.add("asker", call=("slow.work",))
    other = await bus.add("other", call=("slow.work",))
    other.send(Frame(Kind.CALL, 1, "slow.work"))
    ident = (await asked.next()).id
    await other.close()
    assert words(await asked.next()) == ("CANCEL", ident, "")
    asker.send(Frame(Kind.CALL, 1, "slow.work"))
    await asked.next()
    await asked.close()
    answer = await asker.next()
    assert words(answer) == ("ERROR", 1, "Unavailable")
    assert "went away" in answer.payload.decode()


async def test_calls_that_wait_for_one_that_goes_away_end_with_it(bus: Bus) -> None:
    asked = await bus.join(bus.plugin("slow"), methods=["work"], window=1)
    asker = await bus.add("asker", call=("slow.work",))
    asker.send(*(Frame(Kind.CALL, ident, "slow.work") for ident in (1, 3, 5)))
    await asked.next()
    assert words(await asker.call(99, "$bus.ping")) == ("ANSWER", 99, "")
    await asked.close()
    assert {words(await asker.next()) for _ in range(3)} == {("ERROR", n, "Unavailable") for n in (1, 3, 5)}


async def test_a_call_that_names_no_deadline_has_one(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crucible.bus.calls.DEFAULT_TIME", 0.02)
    asked = await bus.add("slow", "work")
    asker = await bus.add("asker", call=("slow.work",))
    assert words(await asker.call(1, "slow.work")) == ("ERROR", 1, "DeadlineExceeded")
    ident = (await asked.next()).id
    assert words(await asked.next()) == ("CANCEL", ident, "")


async def test_one_caller_with_many_calls_waiting_keeps_no_other_from_its_turn(bus: Bus) -> None:
    asked = await bus.join(bus.plugin("slow"), methods=["work"], window=1)
    greedy = await bus.add("greedy", call=("slow.work",))
    modest = await bus.add("modest", call=("slow.work",))
    greedy.send(*(Frame(Kind.CALL, ident, "slow.work") for ident in range(1, 101, 2)))
    assert words(await greedy.call(999, "$bus.ping")) == ("ANSWER", 999, "")
    modest.send(Frame(Kind.CALL, 1, "slow.work"))
    assert words(await modest.call(999, "$bus.ping")) == ("ANSWER", 999, "")
    callers = []
    while "modest" not in callers:
        got = await asked.next()
        callers.append(got.headers["from"])
        asked.send(Frame(Kind.ANSWER, got.id))
    assert len(callers) <= 4, "it waited behind all that another had waiting"


async def test_more_calls_than_a_plugin_takes_wait_and_the_urgent_come_first(bus: Bus) -> None:
    asked = await bus.join(bus.plugin("slow"), methods=["work"], window=1)
    asker = await bus.add("asker", call=("slow.work",))
    order = [3, 3, 2, 1, 0]
    asker.send(*(Frame(Kind.CALL, 2 * n + 1, "slow.work", priority=level) for n, level in enumerate(order)))
    assert words(await asker.call(99, "$bus.ping")) == ("ANSWER", 99, "")
    served = []
    for _ in order:
        got = await asked.next()
        served.append(got.priority)
        asked.send(Frame(Kind.ANSWER, got.id))
    assert served == [3, 0, 1, 2, 3]
    assert {(await asker.next()).id for _ in order} == {1, 3, 5, 7, 9}


async def test_what_waits_can_be_cancelled_and_runs_out_of_time(bus: Bus) -> None:
    asked = await bus.join(bus.plugin("slow"), methods=["work"], window=1)
    asker = await bus.add("asker", call=("slow.work",))
    asker.send(*(Frame(Kind.CALL, ident, "slow.work", deadline=d) for ident, d in ((1, 0), (3, 0), (5, 40))))
    first = await asked.next()
    asker.send(Frame(Kind.CANCEL, 3))
    ended = [words(await asker.next()) for _ in range(2)]
    assert sorted(ended) == [("ERROR", 3, "Cancelled"), ("ERROR", 5, "DeadlineExceeded")]
    asked.send(Frame(Kind.ANSWER, first.id))
    assert words(await asker.next()) == ("ANSWER", 1, "")
    asker.send(Frame(Kind.CALL, 7, "slow.work", b"last"))
    assert (await asked.next()).payload == b"last"


async def test_the_instance_with_the_fewest_open_calls_is_asked(bus: Bus) -> None:
    path = bus.plugin("pool")
    pool = [await bus.join(path, methods=["work"]) for _ in range(3)]
    asker = await bus.add("asker", call=("pool.work",))
    asker.send(*(Frame(Kind.CALL, ident, "pool.work") for ident in (1, 3, 5)))
    assert {(await member.next()).name for member in pool} == {"work"}


async def test_an_instance_that_is_to_be_stopped_keeps_its_calls_and_is_given_no_new_ones(bus: Bus) -> None:
    leaving = await bus.join(bus.plugin("pool", subscribe=("news",)), methods=["work"])
    asker = await bus.add("asker", call=("pool.work",), publish=("news",))
    asker.send(Frame(Kind.CALL, 1, "pool.work"))
    kept = await leaving.next()
    leaving.send(Frame(Kind.SUBSCRIBE, 1, "news"))
    await leaving.next()
    door = "uid-here-pool/0-1/bus"
    assert bus.broker.open_calls(door) is None, "it is not to be stopped yet"
    bus.drain("pool", "0-1")
    assert bus.broker.open_calls(door) == 1
    assert bus.broker.open_calls("uid-here-pool/0-9/bus") == 0
    refused = await asker.call(3, "pool.work")
    assert words(refused) == ("ERROR", 3, "Unavailable")
    assert "about to be stopped" in refused.payload.decode()
    other = await bus.join(
        bus.open(Doorway(Door.BUS, "here", "pool", "uid-here-pool", "0-2")), methods=["work"]
    )
    asker.send(Frame(Kind.CALL, 5, "pool.work", b"new"), Frame(Kind.PUBLISH, 7, "news", b"flash"))
    assert (await other.next()).payload == b"new"
    leaving.send(Frame(Kind.ANSWER, kept.id, payload=b"old"))
    found = {words(await asker.next())[:2] for _ in range(2)}
    assert ("ANSWER", 1) in found
    assert bus.broker.open_calls(door) == 0
    bus.drain("pool")
    asker.send(Frame(Kind.PUBLISH, 9, "news", b"later"))
    assert (await leaving.next()).payload == b"later", "what was published meanwhile did not reach it"


async def test_too_much_at_one_receiver_is_refused_and_counted(bus: Bus) -> None:
    await bus.join(bus.plugin("slow"), methods=["work"], window=1)
    asker = await bus.add("asker", call=("slow.work",))
    second = await bus.add("second", call=("slow.work",))
    big = b"x" * 600_000
    asker.send(*(Frame(Kind.CALL, ident, "slow.work", big) for ident in (1, 3, 5, 7, 9)))
    assert words(await asker.next()) == ("ERROR", 9, "Overloaded")
    second.send(Frame(Kind.CALL, 1, "slow.work", b"small"))
    assert words(await second.call(3, "$bus.ping")) == ("ANSWER", 3, "")
    assert bus.faults("asker") == {"overloaded": 1}


async def test_a_connection_has_a_bounded_number_of_calls_open(bus: Bus) -> None:
    await bus.join(bus.plugin("slow"), methods=["work"], window=1024)
    asker = await bus.add("asker", call=("slow.work",))
    asker.send(*(Frame(Kind.CALL, 2 * n + 1, "slow.work") for n in range(1025)))
    assert words(await asker.next()) == ("ERROR", 2049, "Overloaded")


async def test_a_revoked_grant_ends_what_is_under_way(bus: Bus) -> None:
    asked = await bus.add("slow", "work")
    asker = await bus.add("asker", call=("slow.work",))
    asker.send(Frame(Kind.CALL, 1, "slow.work"))
    got = await asked.next()
    bus.grant("asker")
    assert words(await asker.next()) == ("ERROR", 1, "NotPermitted")
    assert words(await asked.next()) == ("CANCEL", got.id, "")
    assert words(await asker.call(3, "slow.work")) == ("ERROR", 3, "NotPermitted")


async def test_a_plugin_that_is_deleted_is_cut_off(bus: Bus) -> None:
    path = bus.plugin("shortlived")
    client = await bus.join(path)
    bus.remove("shortlived")
    assert [words(frame) for frame in await client.gone()] == [("ERROR", 0, "NotPermitted")]
    late = await Raw.connect(path)
    late.send(Frame(Kind.HELLO, payload=b'{"wire":[1]}'))
    assert [words(frame) for frame in await late.gone()] == [("ERROR", 0, "Unavailable")]
    await late.close()


async def test_items_flow_both_ways_as_far_as_credit_goes(bus: Bus) -> None:
    asked = await bus.add("notes", "search")
    asker = await bus.add("asker", call=("notes.search",))
    asker.send(Frame(Kind.CALL, 1, "notes.search", flags=wire.STREAM), wire.credit(1, 2))
    got = await asked.next()
    assert (got.flags, got.deadline) == (wire.STREAM, 0)
    assert wire.credit_of(await asked.next()) == 2
    asked.send(wire.credit(got.id, 1), *(Frame(Kind.ITEM, got.id, payload=b"%d" % n) for n in range(2)))
    assert wire.credit_of(await asker.next()) == 1
    assert [(await asker.next()).payload for _ in range(2)] == [b"0", b"1"]
    asker.send(Frame(Kind.ITEM, 1, payload=b"last", flags=wire.LAST))
    item = await asked.next()
    assert (item.payload, item.flags) == (b"last", wire.LAST)
    asked.send(Frame(Kind.ANSWER, got.id, payload=b"done"))
    assert (await asker.next()).payload == b"done"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_item_without_credit_ends_the_call_on_both_sides(bus: Bus, stream: bool) -> None:
    asked = await bus.add("notes", "search")
    asker = await bus.add("asker", call=("notes.search",))
    asker.send(Frame(Kind.CALL, 1, "notes.search", flags=wire.STREAM if stream else 0))
    got = await asked.next()
    asked.send(Frame(Kind.ITEM, got.id, payload=b"unasked"))
    assert words(await asker.next()) == ("ERROR", 1, "Overloaded")
    assert words(await asked.next()) == ("CANCEL", got.id, "")


async def test_credit_given_while_a_call_waits_arrives_with_it(bus: Bus) -> None:
    asked = await bus.join(bus.plugin("notes"), methods=["search"], window=1)
    asker = await bus.add("asker", call=("notes.search",))
    asker.send(Frame(Kind.CALL, 1, "notes.search"))
    first = await asked.next()
    asker.send(
        Frame(Kind.CALL, 3, "notes.search", flags=wire.STREAM), wire.credit(3, 5), wire.credit(3, 1024)
    )
    assert words(await asker.call(5, "$bus.ping")) == ("ANSWER", 5, "")
    asked.send(Frame(Kind.ANSWER, first.id))
    assert words(await asked.next())[0] == "CALL"
    assert wire.credit_of(await asked.next()) == wire.LARGEST_CREDIT


async def test_the_host_calls_and_is_called(bus: Bus) -> None:
    host = await bus.join(bus.host, namespace="here", methods=["open"])
    plugin = await bus.add("notes", "search", call=("$host.open",))
    host.send(Frame(Kind.CALL, 1, "notes.search"))
    got = await plugin.next()
    assert got.headers["from"] == "$host"
    plugin.send(Frame(Kind.CALL, 1, "$host.open", b"note 7"))
    assert (await host.next()).payload == b"note 7"


async def test_readiness_is_what_the_plugin_said_last(bus: Bus) -> None:
    client = await bus.add("shy")
    seat = bus.broker.roster.find("here", "shy")
    assert seat is not None
    await client.call(1, "$bus.ready")
    assert seat.connections[0].ready
    await client.call(3, "$bus.unready")
    assert not seat.connections[0].ready
    assert (await client.call(5, "$bus.ping", b"any")).payload == b"any"


async def test_many_callers_many_calls_every_one_answered_once(bus: Bus) -> None:
    asked = await bus.add("echo", "say")

    async def serve() -> None:
        while True:
            got = await asked.next()
            asked.send(Frame(Kind.ANSWER, got.id, payload=got.payload))

    async def ask(name: str) -> None:
        asker = await bus.add(name, call=("echo.say",))
        asker.send(*(Frame(Kind.CALL, 2 * n + 1, "echo.say", f"{name} {n}".encode()) for n in range(200)))
        got = {(frame.id, frame.payload) for frame in [await asker.next() for _ in range(200)]}
        assert got == {(2 * n + 1, f"{name} {n}".encode()) for n in range(200)}

    server = asyncio.create_task(serve())
    await asyncio.gather(*(ask(f"asker{number}") for number in range(5)))
    server.cancel()
    seat = bus.broker.roster.find("here", "echo")
    assert seat is not None
    assert not seat.connections[0].given
    assert not seat.connections[0].waiting.count


async def test_a_call_takes_no_more_than_milliseconds_of_a_processor(bus: Bus) -> None:
    asked = await bus.add("echo", "say")
    asker = await bus.add("asker", call=("echo.say",))
    took = []
    for ident in range(1, 601, 2):
        began = time.process_time()  # of both ends and the broker between them
        asker.send(Frame(Kind.CALL, ident, "echo.say", b"x" * 256))
        asked.send(Frame(Kind.ANSWER, (await asked.next()).id))
        await asker.next()
        took.append(time.process_time() - began)
    assert sorted(took)[150] < 0.005
