"""The SDKs against the real broker: for each language one program that uses all of it, and does the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from imagelib import rune
from raw import words
from sandboxless import PROGRAMS, REPOSITORY, Program, until

from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from raw import Raw

    from conftest import Bus

LANGUAGES = ("python", "asyncio", "javascript")
"""Whose programs do several things at a time."""
ALL = (*LANGUAGES, "rune")
EVERYTHING = {
    "python": "everything.py",
    "asyncio": "everything_aio.py",
    "javascript": "everything.mjs",
    "rune": "everything.rn",
}
ALONE = {"python": "alone.py", "asyncio": "alone_aio.py", "javascript": "alone.cjs", "rune": "alone.rn"}
GRANTS: dict[str, Any] = {
    "call": ("gate.*", "everything.*", "nobody.m"),
    "subscribe": ("notes.>",),
    "publish": ("notes.*",),
}


class Talk:
    """The program, and somebody who may call it."""

    def __init__(self, program: Program, raw: Raw) -> None:
        self.program = program
        self.raw = raw
        self._last = -1

    def ask(self, method: str, payload: object = None, **fields: Any) -> int:
        self._last += 2
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.raw.send(Frame(Kind.CALL, self._last, f"everything.{method}", data, **fields))
        return self._last

    async def call(self, method: str, payload: object = None, **fields: Any) -> Any:
        """Return the value of an answer, or the code and text of an error."""
        self.ask(method, payload, **fields)
        frame = await self.raw.next()
        if frame.kind == Kind.ERROR:
            return frame.name, frame.payload.decode()
        return json.loads(frame.payload) if frame.payload else None


def command(language: str, program: str, folder: Path) -> tuple[str, ...]:
    """Return how a program is run, with its SDK where the sandbox would have it."""
    source = PROGRAMS / program
    if language == "rune":
        shutil.copytree(PROGRAMS, folder / "plugin", ignore=shutil.ignore_patterns("*.py", "*.*js"))
        (folder / "config").mkdir()
        return (str(rune.build(print)), "--root", str(folder), f"/plugin/{program}")
    if language != "javascript":
        return (sys.executable, "-s", "-S", "-B", "-u", str(source))
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here: install nodejs")
    # Where node looks for packages depends on where the program lies.
    (folder / "plugin").mkdir()
    (folder / "node_modules").symlink_to(REPOSITORY / "plugin-images/javascript/sdk")
    return (node, shutil.copy(source, folder / "plugin"))


async def start(language: str, program: str, bus: Path | None, folder: Path) -> Program:
    env = {"PYTHONPATH": str(REPOSITORY / "plugin-images/python/sdk")}
    words_of = command(language, program, folder)
    if language == "rune":  # whose host shows it that file and no other
        (folder / "config/config.json").write_text('{"greeting": "hello"}')
        env["CRUCIBLE_CONFIG"] = "/config/config.json"
    return await Program.start(words_of, bus, folder, {"greeting": "hello"}, **env)


@pytest.fixture(params=LANGUAGES)
async def talk(bus: Bus, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Talk]:
    """A program that does several things at a time."""
    found = await begin(bus, tmp_path, request.param)
    yield found
    await found.program.close()


@pytest.fixture(params=ALL)
async def any_talk(bus: Bus, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Talk]:
    """A program of any language; it may do one thing at a time."""
    found = await begin(bus, tmp_path, request.param)
    yield found
    await found.program.close()


async def begin(bus: Bus, folder: Path, language: str) -> Talk:
    socket = bus.plugin("everything", **GRANTS)
    program = await start(language, EVERYTHING[language], socket, folder)
    await bus.ready("everything", program)
    return Talk(program, await bus.join(bus.host, namespace="here"))


async def test_methods_answer_and_know_who_asks(any_talk: Talk) -> None:
    assert await any_talk.call("split", {"text": "to be"}) == ["to", "be"]
    assert await any_talk.call("quick") == {"caller": "$host", "method": "quick"}
    any_talk.ask("echo-bytes", b"\x00\xff")
    assert (await any_talk.raw.next()).payload == b"\x00\xff"


async def test_what_goes_wrong_in_a_method_is_its_callers_answer_and_not_its_end(any_talk: Talk) -> None:
    assert await any_talk.call("fail", "luck") == ("Failed", "TypeError: no luck")
    code, why = await any_talk.call("split", b"{")
    assert (code, "no JSON" in why) == ("Malformed", True)
    code, _ = await any_talk.call("nothing")
    assert code == "NoSuchMethod"
    assert await any_talk.call("split", {"text": "still here"}) == ["still", "here"]
    (line,) = (line for line in any_talk.program.lines if line["level"] == "error")
    assert "TypeError: no luck" in line["error"]
    assert "everything" in line["error"], "it says where"


async def test_a_method_calls_others_itself_too(talk: Talk) -> None:
    asked = {"to": "everything.split", "with": {"text": "a b"}}
    assert await talk.call("relay", asked) == ["a", "b"]
    denied = await talk.call("relay", {"to": "other.m"})
    assert (denied["code"], denied["retry"]) == ("NotPermitted", False)
    assert "capabilities.bus.call" in denied["why"]
    absent = await talk.call("relay", {"to": "nobody.m"})
    assert absent["code"] == "NoSuchPlugin"


async def test_the_time_that_a_caller_left_is_all_that_a_method_may_spend(bus: Bus, any_talk: Talk) -> None:
    gate = await bus.add("gate", "open")
    any_talk.ask("relay", {"to": "gate.open"}, deadline=20_000)
    asked = await gate.next()
    assert 0 < asked.deadline <= 20_000
    gate.send(Frame(Kind.ANSWER, asked.id))
    assert (await any_talk.raw.next()).kind == Kind.ANSWER


async def test_a_trace_is_carried_on(bus: Bus, any_talk: Talk) -> None:
    gate = await bus.add("gate", "open")
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "tracestate": "a=1"}
    any_talk.ask("relay", {"to": "gate.open"}, headers=headers)
    asked = await gate.next()
    version, carried, span, flags = asked.headers["traceparent"].split("-")
    assert (version, carried, flags, asked.headers["tracestate"]) == ("00", trace_id, "01", "a=1")
    assert span != "00f067aa0ba902b7"
    gate.send(Frame(Kind.ANSWER, asked.id))
    await any_talk.raw.next()
    await any_talk.call("log", 7, headers=headers)
    await until(lambda: any_talk.program.lines)
    (line,) = any_talk.program.lines
    assert (line["message"], line["number"], line["trace_id"]) == ("a line", 7, trace_id)
    assert await any_talk.call("log", 8, headers={"traceparent": "00-nonsense"}) is None


async def test_a_caller_leaves_what_is_said_on_its_behalf_room_for_headers(bus: Bus, any_talk: Talk) -> None:
    gate = await bus.add("gate", "open")
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    for length, passed in ((512, True), (513, False), (3900, False)):
        any_talk.ask(
            "relay", {"to": "gate.open"}, headers={"traceparent": traceparent, "tracestate": "x" * length}
        )
        asked = await gate.next()
        assert asked.headers["traceparent"].split("-")[1] == "a" * 32
        assert ("tracestate" in asked.headers) is passed
        gate.send(Frame(Kind.ANSWER, asked.id))
        await any_talk.raw.next()


async def test_a_method_that_yields_streams_as_far_as_its_caller_wants(talk: Talk) -> None:
    assert await talk.call("count", 3) == [0, 1, 2]
    ident = talk.ask("count", 3, flags=1)
    talk.raw.send(Frame(Kind.CREDIT, ident, payload=(2).to_bytes(4, "big")))
    assert [(await talk.raw.next()).payload for _ in range(2)] == [b"0", b"1"]
    assert await talk.call("quick"), "without credit nothing comes, and nothing else waits"
    talk.raw.send(Frame(Kind.CREDIT, ident, payload=(9).to_bytes(4, "big")))
    assert [words(await talk.raw.next())[0] for _ in range(2)] == ["ITEM", "ANSWER"]


async def test_items_come_in_and_streams_are_read(talk: Talk) -> None:
    ident = talk.ask("add_up", flags=1)
    credit = await talk.raw.next()
    assert credit.kind == Kind.CREDIT
    for number in (1, 2):
        talk.raw.send(Frame(Kind.ITEM, ident, payload=str(number).encode()))
    talk.raw.send(Frame(Kind.ITEM, ident, payload=b"4", flags=2))
    assert (await talk.raw.next()).payload == b"7"
    asked = {"from": "everything.count", "with": 100}
    assert await talk.call("read_all", asked) in ([*range(100), "done"], [*range(100), None])
    failed = await talk.call("read_all", asked | {"with": "many"})
    assert failed[0] == "Failed"
    assert "TypeError" in failed[1]


async def test_messages_come_in_order_and_are_sent(any_talk: Talk) -> None:
    for number in range(20):
        any_talk.raw.send(Frame(Kind.PUBLISH, 0, "notes.saved", str(number).encode()))
    assert await any_talk.call("publish", "notes.made") == 1
    assert "capabilities.bus.publish" in await any_talk.call("publish", "other.made")
    heard: list[Any] = []
    while len(heard) < 21:
        heard = await any_talk.call("what_was_heard")
    assert heard == [
        *(["notes.saved", "$host", number] for number in range(20)),
        ["notes.made", "everything", {"note": 7}],
    ]


async def test_a_ping_is_answered_and_a_configuration_taken_or_refused(bus: Bus, any_talk: Talk) -> None:
    assert await any_talk.call("config") == {"greeting": "hello"}
    seat = bus.broker.roster.find("here", "everything")
    assert seat is not None
    answers = Answers()
    for name, payload in (("$ping", b"x"), ("$config", b'{"a":1}'), ("$config", b'{"refuse":1}')):
        answers.wait_for = len(answers.frames) + 1
        frame = Frame(Kind.CALL, 1, name, payload, deadline=20_000)
        bus.broker.calls.ask(seat.connections[0], seat, frame, answers)
        await until(lambda: len(answers.frames) == answers.wait_for)
    ping, taken, refused = answers.frames
    assert (ping.kind, ping.payload) == (Kind.ANSWER, b"x")
    assert (taken.kind, refused.kind, refused.name) == (Kind.ANSWER, Kind.ERROR, "Failed")
    assert b"not this" in refused.payload
    assert await any_talk.call("config") == {"a": 1}


class Answers:
    """Who asks on behalf of the broker."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.wait_for = 0

    def item(self, call: object, frame: Frame) -> None:
        raise AssertionError((call, frame))

    def credit(self, call: object, items: int) -> None:
        raise AssertionError((call, items))

    def ended(self, call: object, frame: Frame) -> None:
        self.frames.append(frame)


async def test_the_store_keeps_values_and_revisions_guard_them(bus: Bus, talk: Talk) -> None:
    async with bus.stores() as stores:
        code = (await talk.call("store", ["put", "a/1", {"x": 1}]))["code"]
        assert code == "NotPermitted", "it was granted none"
        bus.grant("everything", store=100_000, **GRANTS)
        assert await talk.call("store", ["put", "a/1", {"x": 1}]) == 1
        assert await talk.call("store", ["put", "a/2", [2], 0]) == 2
        assert await talk.call("store", ["get", "a/1"]) == {"x": 1}
        assert await talk.call("store", ["get", "b", "default"]) == "default"
        conflict = await talk.call("store", ["put", "a/1", 3, 7])
        assert conflict["code"] == "Conflict"
        assert await talk.call("store", ["keys", "a/"]) == ["a/1", "a/2"]
        ident = talk.ask("watch", "a/", flags=1)
        talk.raw.send(Frame(Kind.CREDIT, ident, payload=(9).to_bytes(4, "big")))
        await until(lambda: stores._watches._watchers)
        talk.ask("store", ["delete", "a/2"])
        frames = [await talk.raw.next(), await talk.raw.next()]
        (item,) = (frame for frame in frames if frame.kind == Kind.ITEM)
        assert json.loads(item.payload) == ["a/2", True, None, 3]
        talk.raw.send(Frame(Kind.CANCEL, ident))
        await until(lambda: not stores._watches._watchers)


async def test_asked_to_stop_it_lets_calls_end_and_takes_no_new_ones(bus: Bus, any_talk: Talk) -> None:
    gate = await bus.add("gate", "open", "goodbye")
    long = any_talk.ask("last_long")
    asked = await gate.next()
    any_talk.program.ask_to_stop()
    seat = bus.broker.roster.find("here", "everything")
    assert seat is not None
    await until(lambda: not seat.connections[0].ready)
    assert await any_talk.call("quick") == ("Unavailable", "stopping")
    gate.send(Frame(Kind.ANSWER, asked.id))
    answer = await any_talk.raw.next()
    assert (answer.id, answer.payload) == (long, b'"ended"')
    goodbye = await gate.next()
    assert goodbye.name == "goodbye"
    gate.send(Frame(Kind.ANSWER, goodbye.id))
    assert await any_talk.program.end() == 0, any_talk.program.errors
    assert any_talk.program.messages == ["began", "left"]


async def test_it_comes_back_by_itself_when_the_broker_went_away(bus: Bus, any_talk: Talk) -> None:
    gate = await bus.add("gate", "open")
    any_talk.ask("relay", {"to": "gate.open"})
    await gate.next()
    seat = bus.broker.roster.find("here", "everything")
    assert seat is not None
    (old,) = seat.connections
    old.close()
    assert words(await any_talk.raw.next())[2] == "Unavailable"
    await until(lambda: "no answer" in any_talk.program.messages)
    (line,) = any_talk.program.lines
    assert line["code"] in {"Unavailable", "Cancelled"}, (
        "what it had called itself ends at once, not in its time"
    )
    await until(lambda: any(one is not old and one.ready for one in seat.connections))
    assert await any_talk.call("split", {"text": "back again"}) == ["back", "again"]
    await until(lambda: len(seat.connections[0].subscriptions) == 1)


@pytest.mark.parametrize("language", ALL)
async def test_a_plugin_without_a_bus_says_so_and_still_stops_when_asked(
    language: str, tmp_path: Path
) -> None:
    program = await start(language, ALONE[language], None, tmp_path)
    await until(lambda: program.lines or program.process.returncode is not None)
    program.ask_to_stop()
    assert await program.end() == 0, program.errors
    assert "capabilities.bus" in program.lines[0]["why"]


async def test_the_example_in_c_speaks_the_wire(bus: Bus, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here: install gcc")
    program = tmp_path / "shout"
    source = REPOSITORY / "plugin-images/binary/example-bus/bus.c"
    flags = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-std=c11", "-D_POSIX_C_SOURCE=200809L")
    subprocess.run(["cc", *flags, "-fsanitize=address,undefined", "-o", program, source], check=True)
    running = await Program.start((str(program),), bus.plugin("everything"), tmp_path)
    seat = bus.broker.roster.find("here", "everything")
    assert seat is not None
    await until(lambda: seat.connections or running.process.returncode is not None)
    talk = Talk(running, await bus.join(bus.host, namespace="here"))
    assert await talk.call("upper", "to be" * 10_000, headers={"traceparent": "00-1"}) == "TO BE" * 10_000
    code, _ = await talk.call("lower")
    assert code == "NoSuchMethod"
    pinged = Answers()
    frame = Frame(Kind.CALL, 1, "$ping", b"x", deadline=20_000)
    bus.broker.calls.ask(seat.connections[0], seat, frame, pinged)
    await until(lambda: pinged.frames)
    assert pinged.frames[0].payload == b"x"
    bus.remove("everything")
    assert await running.end() == 1
    assert b"NotPermitted: the plugin is gone" in running.errors
