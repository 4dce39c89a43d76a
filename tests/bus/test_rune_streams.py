"""Streams, watches and what goes with calls, as Rune scripts have them, against the real broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from imagelib import rune
from raw import words
from sandboxless import Program, until

from crucible.bus.wire import LAST, STREAM, Frame, Kind, Priority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from raw import Raw

    from conftest import Bus
    from crucible.bus.stores import Stores

SCRIPT = """
pub fn main() {
    crucible::open([
        "count", "add_up", "read", "sum", "with", "watch", "watched", "unwatch", "time", "long", "large",
    ])?;
    crucible::ready()?;
    let changes = [];
    loop {
        let event = match crucible::next(60.0)? { Some(event) => event, None => continue };
        match event.kind {
            "call" => match method(event, changes) {
                Ok(value) => { crucible::answer(value); }
                Err(why) => { crucible::fail(why); }
            },
            "change" => changes.push([event.name, event.payload, event.revision, event.deleted]),
            "unwatched" => changes.push([event.name, event.payload]),
            "stop" => return Ok(()),
            _ => (),
        }
    }
}

fn method(event, changes) {
    let asked = event.payload;
    match event.name {
        "count" => {
            for number in 0..asked { crucible::send(0, number)?; }
            Ok(event.streams)
        }
        "add_up" => {
            let sum = 0;
            while let Some(number) = crucible::item(0)? { sum = sum + number; }
            Ok(sum)
        }
        "read" => {
            let found = [];
            let stream = crucible::stream("gate.many", asked)?;
            while let Some(item) = crucible::item(stream)? { found.push(item); }
            found.push(crucible::result()?);
            match crucible::item(stream) { Ok(_) => panic!("it is over"), Err(why) => found.push(why) }
            Ok(found)
        }
        "sum" => {
            let stream = crucible::stream_with("gate.sum", (), #{ seconds: 20.0 })?;
            for number in [1, 2] { crucible::send(stream, number)?; }
            crucible::finish(stream)?;
            while let Some(_) = crucible::item(stream)? {}
            crucible::result()
        }
        "with" => crucible::call_with("gate.open", b"\\xff", asked),
        "watch" => crucible::watch(asked),
        "watched" => Ok(changes),
        "unwatch" => crucible::close(asked),
        "time" => Ok([crucible::remaining(), crucible::cancelled(), crucible::trace()]),
        "large" => {
            let text = "x";
            while text.len() < 600000 { text = text + text; }
            crucible::send(0, text)?;
            crucible::send(0, text)?;
            Ok(())
        }
        "long" => {
            let answer = crucible::call("gate.open", ());
            crucible::call("gate.open", ());
            crucible::publish("told.end", [crucible::cancelled(), answer.is_err()]);
            Ok(())
        }
        _ => Err("NoSuchMethod: what is that"),
    }
}
"""
GRANTS: dict[str, Any] = {"call": ("gate.*",), "publish": ("told.*",)}


@pytest.fixture
async def host(bus: Bus, tmp_path: Path) -> AsyncIterator[Raw]:
    """The host application, that calls the script."""
    for name in ("plugin", "config", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "plugin/main.rn").write_text(SCRIPT)
    command = (str(rune.build(print)), "--root", str(tmp_path), "/plugin/main.rn")
    program = await Program.start(command, bus.plugin("script", **GRANTS), tmp_path)
    await bus.ready("script", program)
    yield await bus.join(bus.host, namespace="here")
    await program.close()


def credit(ident: int, items: int) -> Frame:
    return Frame(Kind.CREDIT, ident, payload=items.to_bytes(4, "big"))


async def test_it_answers_with_a_stream_or_with_a_list(host: Raw) -> None:
    assert (await host.call(1, "script.count", b"3")).payload == b"[0,1,2]"
    host.send(Frame(Kind.CALL, 3, "script.count", b"3", flags=STREAM), credit(3, 2))
    assert [(await host.next()).payload for _ in range(2)] == [b"0", b"1"]
    host.send(credit(3, 9))
    assert [(await host.next()).payload for _ in range(2)] == [b"2", b"true"]
    large = await host.call(5, "script.large")
    assert words(large) == ("ERROR", 5, "TooLarge")


async def test_what_its_caller_sends_is_read(host: Raw) -> None:
    host.send(Frame(Kind.CALL, 1, "script.add_up", flags=STREAM))
    assert (await host.next()).kind == Kind.CREDIT
    host.send(*[Frame(Kind.ITEM, 1, payload=b"%d" % number) for number in (1, 2)])
    host.send(Frame(Kind.ITEM, 1, payload=b"4", flags=LAST))
    assert (await host.next()).payload == b"7"


async def test_a_stream_is_read_to_its_end(bus: Bus, host: Raw) -> None:
    gate = await bus.add("gate", "many", "sum")
    host.send(Frame(Kind.CALL, 1, "script.read", b'"all"'))
    asked = await gate.next()
    assert (asked.flags, asked.payload) == (STREAM, b'"all"')
    sent = 0
    while sent < 20:
        for _ in range(int.from_bytes((await gate.next()).payload, "big")):
            gate.send(Frame(Kind.ITEM, asked.id, payload=b"%d" % sent))
            sent += 1
    gate.send(Frame(Kind.ANSWER, asked.id, payload=b'"done"'))
    *items, result, over = json.loads((await host.next()).payload)
    assert (len(items), items == list(range(len(items))), result) == (sent, True, "done")
    assert over.startswith("Malformed")
    host.send(Frame(Kind.CALL, 3, "script.read"))
    while (call := await gate.next()).kind != Kind.CALL:  # more credit for the first
        assert call.kind == Kind.CREDIT
    gate.send(Frame(Kind.ERROR, call.id, "NotFound", b"no more"))
    failed = await host.next()
    assert (failed.name, failed.payload) == ("NotFound", b"no more")


async def test_items_go_to_whom_it_calls_as_far_as_it_wants(bus: Bus, host: Raw) -> None:
    gate = await bus.add("gate", "sum")
    host.send(Frame(Kind.CALL, 1, "script.sum"))
    asked = await gate.next()
    assert 0 < asked.deadline <= 20_000
    gate.send(credit(asked.id, 2))
    assert [(await gate.next()).payload for _ in range(2)] == [b"1", b"2"]
    gate.send(credit(asked.id, 9))
    last = await gate.next()
    assert (last.payload, last.flags) == (b"", LAST)
    gate.send(Frame(Kind.ANSWER, asked.id, payload=b"3"))
    assert (await host.next()).payload == b"3"


async def test_time_priority_and_headers_go_with_a_call(bus: Bus, host: Raw) -> None:
    gate = await bus.add("gate", "open")
    said = {"seconds": 5, "priority": "high", "headers": {"colour": "red"}}
    host.send(Frame(Kind.CALL, 1, "script.with", json.dumps(said).encode()))
    asked = await gate.next()
    assert (asked.headers["colour"], asked.priority, asked.payload) == ("red", Priority.HIGH, b"\xff")
    assert 0 < asked.deadline <= 5000
    gate.send(Frame(Kind.ANSWER, asked.id))
    assert (await host.next()).payload == b"null"
    for wrong in ({"priority": "utmost"}, {"seconds": "many"}, {"headers": {"a": 1}}, {"colour": "red"}, []):
        host.send(Frame(Kind.CALL, 3, "script.with", json.dumps(wrong).encode()))
        assert (await host.next()).name == "Malformed", wrong


async def test_what_time_its_caller_left_is_known(host: Raw) -> None:
    frame = Frame(Kind.CALL, 1, "script.time", deadline=20_000, headers={"traceparent": "00-nonsense"})
    remaining, cancelled, trace = json.loads((await host.ask(frame)).payload)
    assert (0 < remaining <= 20, cancelled, trace) == (True, False, None)


async def test_who_is_not_waited_for_hears_of_it_and_so_do_those_it_calls(bus: Bus, host: Raw) -> None:
    gate = await bus.add("gate", "open")
    listener = await bus.add("listener", subscribe=("told.*",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "told.*"))
    host.send(Frame(Kind.CALL, 1, "script.long"))
    asked = await gate.next()
    host.send(Frame(Kind.CANCEL, 1))
    assert words(await gate.next()) == ("CANCEL", asked.id, "")
    assert words(await host.next()) == ("ERROR", 1, "Cancelled")
    assert (await listener.next()).payload == b"[true,true]", "the second call was not made"
    assert json.loads((await host.call(3, "script.time")).payload)[1] is False


async def test_changes_of_the_store_come_with_the_rest(bus: Bus, host: Raw, stores: Stores) -> None:
    bus.grant("script", store=100_000, **GRANTS)
    watch = json.loads((await host.call(1, "script.watch", b'"a/"')).payload)
    await until(lambda: stores._watches._watchers)
    for number in range(40):
        headers = {"plugin": "script", "key": f"a/{number}"}
        await host.call(2 * number + 3, "$store.put", b"7", headers=headers)
    await host.call(101, "$store.put", b"7", headers={"plugin": "script", "key": "b"})
    await host.call(103, "$store.delete", headers={"plugin": "script", "key": "a/1"})
    found = json.loads((await host.call(105, "script.watched")).payload)
    while len(found) < 41:
        found = json.loads((await host.call(105, "script.watched")).payload)
    assert found == [
        *([f"a/{number}", 7, number + 1, False] for number in range(40)),
        ["a/1", None, 42, True],
    ]
    assert (await host.call(107, "script.unwatch", str(watch).encode())).kind == Kind.ANSWER
    await until(lambda: not stores._watches._watchers)
    await host.call(109, "script.watch", b'"a/"')
    await until(lambda: stores._watches._watchers)
    bus.grant("script", **GRANTS)
    while not isinstance(found[-1][1], str):
        found = json.loads((await host.call(111, "script.watched")).payload)
    assert (found[-1][0], found[-1][1].startswith("NotPermitted: ")) == ("a/", True)
