"""Every function of ``crucible`` that WebAssembly programs have, by a program that does what it is told."""

from __future__ import annotations

import json
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest
import wasmdriver
from raw import words
from sandboxless import REPOSITORY, Program, until

from crucible.bus.wire import LAST, STREAM, Frame, Kind, Priority
from crucible.hosts.wasm_bus.functions import CODES, FUNCTIONS, NUMBERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from raw import Raw

    from conftest import Bus
    from crucible.bus.stores import Stores

HOST = REPOSITORY / "controller/crucible/hosts/wasm.py"
GRANTS: dict[str, Any] = {"call": ("gate.*",), "publish": ("heard.*", "told.*"), "subscribe": ("news.*",)}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "a=1"}
CANCELLED, DEADLINE, MALFORMED, TOO_LARGE, UNAVAILABLE = (
    -CODES.index(name) for name in ("Cancelled", "DeadlineExceeded", "Malformed", "TooLarge", "Unavailable")
)


class Driver:
    """The program, and the host application that tells it what to do."""

    def __init__(self, program: Program, raw: Raw) -> None:
        self.program = program
        self.raw = raw
        self._last = -1

    def ask(self, *steps: Sequence[object], **fields: Any) -> int:
        self._last += 2
        self.raw.send(Frame(Kind.CALL, self._last, "driver.do", wasmdriver.script(*steps), **fields))
        return self._last

    async def do(self, *steps: Sequence[object], **fields: Any) -> list[int | bytes]:
        self.ask(*steps, **fields)
        answer = await self.raw.next()
        assert answer.kind == Kind.ANSWER, answer
        return wasmdriver.results(answer.payload, *steps)


async def start(bus: Bus, folder: Path, flags: int = 3, **env: str) -> Program:
    for name in ("plugin", "config", "tmp"):
        (folder / name).mkdir()
    (folder / "plugin/main.wat").write_text(wasmdriver.program("news.*", flags))
    command = (sys.executable, "-I", "-B", str(HOST), "--root", str(folder), "--", "/plugin/main.wat")
    program = await Program.start(command, bus.plugin("driver", **GRANTS), folder, **env)
    await bus.ready("driver", program)
    return program


@pytest.fixture
async def driver(bus: Bus, tmp_path: Path) -> AsyncIterator[Driver]:
    program = await start(bus, tmp_path)
    yield Driver(program, await bus.join(bus.host, namespace="here"))
    await program.close()


def test_the_reference_names_every_function_and_no_other() -> None:
    assert set(wasmdriver.reference()) == {*FUNCTIONS, *NUMBERS}


async def heard(listener: Raw, *pieces: str) -> list[bytes]:
    """Return the subject and the pieces of what the program told it has heard."""
    message = await listener.next()
    found = wasmdriver.results(message.payload, *(("copy", piece) for piece in pieces))
    return [message.name.encode(), *(one for one in found if isinstance(one, bytes))]


async def test_headers_and_priority_go_with_the_next_call_alone(bus: Bus, driver: Driver) -> None:
    gate = await bus.add("gate", "open")
    call = ("bus_call", "gate.open", b"x", 0)
    driver.ask(("bus_header", "colour", "red"), ("bus_priority", 1), call, call, ("bus_priority", 9))
    first = await gate.next()
    assert (first.headers["colour"], first.priority, first.payload) == ("red", Priority.HIGH, b"x")
    gate.send(Frame(Kind.ANSWER, first.id))
    second = await gate.next()
    assert (second.headers, second.priority) == ({"from": "driver"}, Priority.NORMAL)
    gate.send(Frame(Kind.ANSWER, second.id))
    assert struct.unpack("<5q", (await driver.raw.next()).payload) == (0, 0, 0, 0, MALFORMED)


async def test_a_trace_goes_on_with_what_is_said_and_is_in_the_log(bus: Bus, driver: Driver) -> None:
    gate = await bus.add("gate", "open", subscribe=("told.*",))
    await gate.ask(Frame(Kind.SUBSCRIBE, 1, "told.*"))
    steps = [
        ("log_write", 1, "a line", '{"number": 7}'),
        ("log_write", 0, "not asked for", ""),
        ("log_write", 2, "no object", "[1]"),
        ("copy", 4),
        ("bus_publish", "told.it", b""),
        ("bus_call", "gate.open", b"", 0),
    ]
    ident = driver.ask(*steps, headers=TRACED)
    said = [await gate.next(), await gate.next()]
    for frame in said:
        version, carried, span, flags = frame.headers["traceparent"].split("-")
        assert (version, carried, flags, frame.headers["tracestate"]) == ("00", TRACE, "01", "a=1")
        assert span != "00f067aa0ba902b7"
    gate.send(Frame(Kind.ANSWER, said[1].id))
    answer = await driver.raw.next()
    assert answer.id == ident
    found = wasmdriver.results(answer.payload, *steps)
    assert found[:3] == [0, 0, MALFORMED]
    assert found[3] == said[0].headers["traceparent"].encode()
    await until(lambda: driver.program.lines)
    (line,) = driver.program.lines
    assert (line["level"], line["message"], line["number"]) == ("info", "a line", 7)
    assert (line["trace_id"], line["span_id"]) == (TRACE, found[3].decode().split("-")[2])
    assert await driver.do(("copy", 4)) == [b""], "the next call has none"
    assert await driver.do(("copy", 4), headers={"traceparent": "00-nonsense"}) == [b""]


async def test_the_level_of_the_log_is_the_environments(bus: Bus, tmp_path: Path) -> None:
    program = await start(bus, tmp_path, CRUCIBLE_LOG_LEVEL="error")
    driver = Driver(program, await bus.join(bus.host, namespace="here"))
    await driver.do(
        ("log_write", 2, "quiet", ""), ("log_write", 3, "loud", ""), ("log_write", 99, "loud", "")
    )
    await until(lambda: len(program.lines) == 2)
    assert [(line["level"], line["message"]) for line in program.lines] == [("error", "loud")] * 2
    await program.close()


async def test_a_call_may_take_no_longer_than_its_own_caller_left(bus: Bus, driver: Driver) -> None:
    gate = await bus.add("gate", "open")
    driver.ask(("bus_remaining",), ("bus_call", "gate.open", b"", 0), deadline=20_000)
    asked = await gate.next()
    assert 0 < asked.deadline <= 20_000
    gate.send(Frame(Kind.ANSWER, asked.id))
    remaining, done = struct.unpack("<2q", (await driver.raw.next()).payload)
    assert (0 < remaining <= 20_000, done) == (True, 0)


async def test_who_is_not_waited_for_any_more_hears_of_it_and_so_do_those_it_calls(
    bus: Bus, driver: Driver
) -> None:
    gate = await bus.add("gate", "open")
    call = ("bus_call", "gate.open", b"", 0)
    report = ("bus_publish", "told.ends", b"")
    listener = await bus.add("listener", subscribe=("told.*",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "told.*"))
    ident = driver.ask(("bus_cancelled",), call, ("bus_cancelled",), call, ("stream_put", 0, b""), report)
    asked = await gate.next()
    driver.raw.send(Frame(Kind.CANCEL, ident))
    assert words(await gate.next()) == ("CANCEL", asked.id, "")
    assert words(await driver.raw.next()) == ("ERROR", ident, "Cancelled")
    assert (await listener.next()).name == "told.ends", "the program goes on"
    assert await driver.do(("bus_cancelled",)) == [0]


async def test_errors_have_codes_of_the_programs_choice(driver: Driver) -> None:
    for code, name in ((12, "NotFound"), (99, "Failed"), (-1, "Failed")):
        driver.ask(("bus_fail_as", code, "not here"))
        frame = await driver.raw.next()
        assert (frame.name, frame.payload) == (name, b"not here")


async def test_a_stream_is_read_to_its_end(bus: Bus, driver: Driver) -> None:
    gate = await bus.add("gate", "many")
    steps = [
        ("bus_stream", "gate.many", b"all", 0),
        *[step for _ in range(20) for step in (("stream_next", 1, -1), ("copy", 0))],
        ("stream_next", 1, -1),
        ("copy", 0),
        ("stream_next", 1, 0),
    ]
    # The streams' numbers are those of the wire, of which this program has used some.
    (used,) = await driver.do(("bus_stream", "gate.many", b"", 0))
    first = await gate.next()
    assert isinstance(used, int)
    steps = [
        tuple(used + 2 if one == 1 and step[0] == "stream_next" else one for one in step) for step in steps
    ]
    assert await driver.do(("stream_close", used), ("stream_close", used)) == [0, MALFORMED]
    assert words(await gate.next()) == ("CANCEL", first.id, "")
    driver.ask(*steps)
    asked = await gate.next()
    assert (asked.flags, asked.payload) == (STREAM, b"all")
    sent = 0
    while sent < 20:
        credit = await gate.next()
        assert credit.kind == Kind.CREDIT
        for _ in range(int.from_bytes(credit.payload, "big")):
            if sent < 20:
                gate.send(Frame(Kind.ITEM, asked.id, payload=str(sent).encode()))
                sent += 1
    gate.send(Frame(Kind.ANSWER, asked.id, payload=b"done"))
    found = wasmdriver.results((await next_answer(driver)).payload, *steps)
    assert found[1:41] == [one for number in range(20) for one in (1, str(number).encode())]
    assert found[41:] == [2, b"done", MALFORMED], "it is over, and then there is none"


async def next_answer(driver: Driver) -> Frame:
    while (frame := await driver.raw.next()).kind != Kind.ANSWER:
        assert frame.kind != Kind.ERROR, frame
    return frame


async def test_streams_say_when_nothing_came_and_why_they_ended(bus: Bus, driver: Driver) -> None:
    gate = await bus.add("gate", "many")
    (ident,) = await driver.do(("bus_stream", "gate.many", b"", 0))
    asked = await gate.next()
    assert await driver.do(("stream_next", ident, 1), ("stream_next", ident, 0)) == [0, 0]
    await gate.next()  # credit
    gate.send(Frame(Kind.ERROR, asked.id, "NotFound", b"no more"))
    assert await driver.do(("stream_next", ident, -1), ("copy", 0)) == [-12, b"no more"]
    (late,) = await driver.do(("bus_stream", "gate.many", b"", 50))
    assert await driver.do(("stream_next", late, -1)) == [DEADLINE]
    assert (await driver.do(("stream_next", 77, 0), ("stream_put", 78, b""), ("stream_finish", 0)))[
        0
    ] == MALFORMED


async def test_items_go_to_whom_is_called_as_far_as_it_wants(bus: Bus, driver: Driver) -> None:
    gate = await bus.add("gate", "sum")
    (ident,) = await driver.do(("bus_stream", "gate.sum", b"", 0))
    asked = await gate.next()
    steps = [("stream_put", ident, b"1"), ("stream_put", ident, b"2"), ("stream_finish", ident)]
    driver.ask(*steps, ("stream_next", ident, -1), ("copy", 0))
    gate.send(Frame(Kind.CREDIT, asked.id, payload=(2).to_bytes(4, "big")))
    items = [await gate.next(), await gate.next()]
    assert [item.payload for item in items] == [b"1", b"2"]
    gate.send(Frame(Kind.CREDIT, asked.id, payload=(9).to_bytes(4, "big")))
    last = await gate.next()
    assert (last.payload, last.flags) == (b"", LAST)
    gate.send(Frame(Kind.ANSWER, asked.id, payload=b"3"))
    answer = await next_answer(driver)
    assert wasmdriver.results(answer.payload, *steps, ("n",), ("copy",)) == [0, 0, 0, 2, b"3"]


async def test_it_answers_with_a_stream_or_with_a_list(driver: Driver) -> None:
    steps = [("bus_streams",), *(("stream_put", 0, number) for number in (b"0", b"1", b"2"))]
    driver.ask(*steps)
    assert json.loads((await driver.raw.next()).payload) == [0, 1, 2], "who wants no stream gets a list"
    ident = driver.ask(*steps, flags=STREAM)
    driver.raw.send(Frame(Kind.CREDIT, ident, payload=(2).to_bytes(4, "big")))
    assert [(await driver.raw.next()).payload for _ in range(2)] == [b"0", b"1"]
    driver.raw.send(Frame(Kind.CREDIT, ident, payload=(9).to_bytes(4, "big")))
    assert (await driver.raw.next()).payload == b"2"
    answer = await driver.raw.next()
    assert wasmdriver.results(answer.payload, *steps) == [1, 0, 0, 0]


async def test_a_list_that_is_too_large_is_its_end(driver: Driver) -> None:
    part = b"1" * 500_000
    driver.ask(*[("stream_put", 0, part)] * 2, ("stream_put", 0, part))
    assert (await driver.raw.next()).payload == b"[" + part + b"," + part + b"]"


async def test_an_answer_that_is_too_large_is_an_error_to_both(driver: Driver) -> None:
    # The longest piece of memory there is to answer with: the script's room and what follows.
    steps = [("copy", 0)] * 2
    script = wasmdriver.script(*steps, ("log_write", 0, "x" * 600_000, ""))
    driver.raw.send(Frame(Kind.CALL, 1001, "driver.do", script))
    assert words(await driver.raw.next()) == ("ERROR", 1001, "TooLarge")
    assert await driver.do(("bus_cancelled",)) == [0], "it goes on"


async def test_what_its_caller_sends_is_read(driver: Driver) -> None:
    steps = [("stream_next", 0, -1), ("copy", 0), ("stream_next", 0, -1), ("stream_next", 0, -1)]
    ident = driver.ask(*steps, flags=STREAM)
    assert (await driver.raw.next()).kind == Kind.CREDIT
    driver.raw.send(Frame(Kind.ITEM, ident, payload=b"one"), Frame(Kind.ITEM, ident, payload=b"two"))
    driver.raw.send(Frame(Kind.ITEM, ident, flags=LAST))
    assert wasmdriver.results((await next_answer(driver)).payload, *steps) == [1, b"one", 1, 2]


async def test_changes_of_the_store_come_with_the_rest(bus: Bus, driver: Driver, stores: Stores) -> None:
    listener = await bus.add("listener", subscribe=("heard.*",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "heard.*"))
    (code,) = await driver.do(("store_watch", "a/"))
    assert isinstance(code, int)
    assert code > 0, "that it is not granted comes later: a watch waits for nothing"
    what, prefix, _, _ = await heard(listener, "name", "payload", "headers")
    assert (what, prefix) == (b"heard.6", b"a/")
    bus.grant("driver", store=100_000, **GRANTS)
    (watch,) = await driver.do(("store_watch", "a/"))
    await until(lambda: stores._watches._watchers)
    for number in range(40):
        assert await driver.do(("store_put", f"a/{number}", b"7", -1), ("store_revision",)) == [0, number + 1]
        what, key, value, headers = await heard(listener, "name", "payload", "headers")
        assert (what, key, value) == (b"heard.5", f"a/{number}".encode(), b"7")
        assert json.loads(headers)["op"] == "put"
    await driver.do(("store_put", "b", b"", -1), ("store_delete", "a/1", -1))
    what, key, _, headers = await heard(listener, "name", "payload", "headers")
    assert (what, key, json.loads(headers)["op"]) == (b"heard.5", b"a/1", "delete")
    assert await driver.do(("stream_next", watch, 0), ("stream_close", watch)) == [MALFORMED, 0]
    await until(lambda: not stores._watches._watchers)
    conflict = await driver.do(("store_put", "b", b"", 1), ("store_revision",))
    assert conflict == [-CODES.index("Conflict"), 41]


async def test_a_program_that_computes_between_changes_finds_them_in_line(
    bus: Bus, driver: Driver, stores: Stores
) -> None:
    bus.grant("driver", store=100_000, **GRANTS)
    puts = [("store_put", f"a/{number}", b"", -1) for number in range(4)]
    found = [step for _ in range(4) for step in (("bus_next", -1), ("store_deleted",), ("copy", 1))]
    report = ("bus_publish", "told.ends", b"")
    listener = await bus.add("listener", subscribe=("told.*",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "told.*"))
    driver.ask(("store_watch", ""), *puts, ("bus_answer", b""), *found, ("bus_next", 0), report)
    assert (await driver.raw.next()).payload == b""
    assert (await listener.next()).name == "told.ends"
    assert len(stores._watches._watchers) == 1


async def test_it_ends_by_itself_when_it_is_asked_to(bus: Bus, driver: Driver) -> None:
    gate = await bus.add("gate", "open", subscribe=("heard.*",))
    await gate.ask(Frame(Kind.SUBSCRIBE, 1, "heard.*"))
    ident = driver.ask(("bus_call", "gate.open", b"", 0))
    asked = await gate.next()
    driver.program.ask_to_stop()
    seat = bus.broker.roster.find("here", "driver")
    assert seat is not None
    await until(lambda: not any(one.ready for one in seat.connections))
    driver.ask(("bus_cancelled",))
    refused = await driver.raw.next()
    assert (refused.name, refused.payload) == ("Unavailable", b"stopping")
    gate.send(Frame(Kind.ANSWER, asked.id))
    assert words(await driver.raw.next()) == ("ANSWER", ident, "")
    assert (await gate.next()).name == "heard.4", "its last word"
    assert await driver.program.end() == 7, driver.program.errors


async def test_who_does_not_listen_for_the_end_is_ended_at_once(bus: Bus, tmp_path: Path) -> None:
    program = await start(bus, tmp_path, flags=0)
    program.ask_to_stop()
    assert await program.end() == -15


async def test_it_comes_back_as_ready_as_it_was_and_streams_have_ended(
    bus: Bus, driver: Driver, stores: Stores
) -> None:
    bus.grant("driver", store=100_000, **GRANTS)
    listener = await bus.add("listener", subscribe=("heard.*",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "heard.*"))
    gate = await bus.add("gate", "many")
    (stream, _) = await driver.do(("bus_stream", "gate.many", b"", 0), ("store_watch", "a/"))
    await until(lambda: stores._watches._watchers)
    await gate.next()
    seat = bus.broker.roster.find("here", "driver")
    assert seat is not None
    (old,) = seat.connections
    old.close()
    await until(lambda: any(one is not old and one.ready for one in seat.connections))
    what, prefix, why, _ = await heard(listener, "name", "payload", "headers")
    assert (what, prefix, b"the bus went away" in why) == (b"heard.6", b"a/", True)
    assert await driver.do(("stream_next", stream, -1), ("stream_next", stream, -1)) == [
        UNAVAILABLE,
        MALFORMED,
    ]
    await until(lambda: len(seat.connections[0].subscriptions) == 1)
