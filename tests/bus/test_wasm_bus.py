"""The bus as a WebAssembly program has it: functions of ``crucible``, against the real broker."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from raw import DEADLINE, Gone, turn_away, words
from sandboxless import REPOSITORY, until

from crucible.backbone.authority import fresh_authority, utc_now
from crucible.bus import wire
from crucible.bus.credentials import serving
from crucible.bus.doors import Entrance
from crucible.bus.wire import Frame, Kind
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from raw import Raw

    from conftest import Bus

HOST = REPOSITORY / "controller/crucible/hosts/wasm.py"
IMPORTS = """
  (import "crucible" "bus_open" (func $open (param i32 i32 i32) (result i32)))
  (import "crucible" "bus_call" (func $call (param i32 i32 i32 i32 i32) (result i32)))
  (import "crucible" "bus_publish" (func $publish (param i32 i32 i32 i32) (result i32)))
  (import "crucible" "bus_subscribe" (func $subscribe (param i32 i32) (result i32)))
  (import "crucible" "bus_next" (func $next (param i32) (result i32)))
  (import "crucible" "bus_take" (func $take (param i32 i32 i32) (result i32)))
  (import "crucible" "bus_answer" (func $answer (param i32 i32) (result i32)))
  (import "crucible" "bus_fail" (func $fail (param i32 i32) (result i32)))
  (import "crucible" "bus_ready" (func $ready (result i32)))
  (import "crucible" "bus_unready" (func $unready (param i32 i32) (result i32)))
  (import "crucible" "store_get" (func $get (param i32 i32) (result i32)))
  (import "crucible" "store_put" (func $put (param i32 i32 i32 i32 i64) (result i32)))
  (import "crucible" "store_delete" (func $delete (param i32 i32 i64) (result i32)))
  (import "crucible" "store_revision" (func $revision (result i64)))
  (import "crucible" "store_list" (func $list (param i32 i32 i32 i32) (result i32)))
  (import "crucible" "event_put" (func $put_event (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "crucible" "event_take" (func $take_event (param i32 i32 i32 i32 i64 i32) (result i32)))
  (import "crucible" "bus_missed" (func $missed (result i64)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "relay")
  (data (i32.const 32) "caps.up")
  (data (i32.const 48) "news.*")
  (data (i32.const 64) "told.again")
  (data (i32.const 80) "no luck")
  (data (i32.const 96) "a/key")
"""
RELAY = f"""(module {IMPORTS}
  (func $payload (param $which i32) (result i32)
    (call $take (local.get $which) (i32.const 4096) (i32.const 8192)))
  (func $relay
    (local $code i32)
    ;; What was asked goes to caps.up, and its answer back; of an error, the text.
    (local.set $code
      (call $call (i32.const 32) (i32.const 7) (i32.const 4096) (call $payload (i32.const 0)) (i32.const 0)))
    (if (i32.lt_s (local.get $code) (i32.const 0))
      (then (drop (call $fail (i32.const 4096) (call $payload (i32.const 0)))))
      (else (drop (call $answer (i32.const 4096) (call $payload (i32.const 0)))))))
  (func $again (drop
    (call $publish (i32.const 64) (i32.const 10) (i32.const 4096) (call $payload (i32.const 0)))))
  (func $configured
    (if (i32.eq (call $payload (i32.const 0)) (i32.const 2)) ;; {{}} is taken, more is not
      (then (drop (call $answer (i32.const 0) (i32.const 0))))
      (else (drop (call $fail (i32.const 80) (i32.const 7))))))
  (func (export "_start") (local $what i32)
    (if (call $open (i32.const 16) (i32.const 5) (i32.const 1)) (then (call $exit (i32.const 9))))
    (if (call $subscribe (i32.const 48) (i32.const 6)) (then (call $exit (i32.const 8))))
    (drop (call $ready))
    (loop $forever
      (local.set $what (call $next (i32.const -1)))
      (if (i32.eq (local.get $what) (i32.const 1)) (then (call $relay)))
      (if (i32.eq (local.get $what) (i32.const 2)) (then (call $again)))
      (if (i32.eq (local.get $what) (i32.const 3)) (then (call $configured)))
      (br $forever))))"""
LISTED = '{"keys":[{"key":"a/key","revision":2,"size":7}],"more":false,"used":268,"size":10000}'
GRANTS = {"call": ("caps.up",), "publish": ("told.*",), "subscribe": ("news.*",)}


def exiting(body: str) -> str:
    """Return a program that connects and ends with a number, below 0 made positive."""
    return f"""(module {IMPORTS}
      (func (export "_start") (local $code i32)
        (local.set $code {body})
        (call $exit (select (local.get $code) (i32.sub (i32.const 0) (local.get $code))
          (i32.ge_s (local.get $code) (i32.const 0))))))"""


class Program:
    """A program that runs in the host, outside of any sandbox."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(
        cls, folder: Path, bus: Path | str | None, text: str, *options: str, authority: str = ""
    ) -> Program:
        for name in ("plugin", "config", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "plugin/main.wat").write_text(text)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", HOST, "--root", folder, *options, "--", "/plugin/main.wat"),
            stderr=asyncio.subprocess.PIPE,
            env={} if bus is None else {"CRUCIBLE_BUS": str(bus), "CRUCIBLE_BUS_CA": authority},
        )
        return cls(process)

    async def ended(self) -> tuple[int, str]:
        _, said = await asyncio.wait_for(self.process.communicate(), DEADLINE)
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


async def capitals(client: Raw) -> None:
    """Answer every call in capitals, and one for "no" with an error."""
    try:
        while True:
            frame = await client.next()
            answer = Frame(Kind.ANSWER, frame.id, payload=frame.payload.upper())
            if frame.payload == b"no":
                answer = wire.error(frame.id, wire.Code.FAILED, "not that")
            client.send(answer)
    except Gone:
        return


@pytest.fixture
async def relay(bus: Bus, tmp_path: Path) -> AsyncIterator[Program]:
    program = await Program.start(tmp_path, bus.plugin("relay", **GRANTS), RELAY)
    await bus.ready("relay")
    yield program
    await program.close()


@pytest.mark.usefixtures("relay")
async def test_it_is_called_and_calls_others(bus: Bus) -> None:
    server = await bus.add("caps", "up")
    serving = asyncio.create_task(capitals(server))
    host = await bus.join(bus.host, namespace="here")
    assert (await host.call(1, "relay.relay", b"to be")).payload == b"TO BE"
    failed = await host.call(3, "relay.relay", b"no")
    assert (words(failed), failed.payload) == (("ERROR", 3, "Failed"), b"not that")
    large = b"x" * 8000
    assert (await host.call(5, "relay.relay", large)).payload == large.upper()
    bus.grant("relay", subscribe=("news.*",))
    denied = await host.call(7, "relay.relay", b"to be")
    assert words(denied) == ("ERROR", 7, "Failed")
    assert b"spec.capabilities.bus.call: [caps.up]" in denied.payload
    await server.close()
    await serving


@pytest.mark.usefixtures("relay")
async def test_it_hears_and_tells_and_takes_its_configuration(bus: Bus) -> None:
    host = await bus.join(bus.host, namespace="here")
    await host.ask(Frame(Kind.SUBSCRIBE, 1, "told.>"))
    host.send(Frame(Kind.PUBLISH, 0, "news.today", b"rain"))
    heard = await host.next()
    assert (heard.name, heard.payload, heard.headers["from"]) == ("told.again", b"rain", "relay")
    for payload, expected in ((b"{}", Kind.ANSWER), (b'{"more":1}', Kind.ERROR)):
        answer = await bus.ask("relay", "$config", payload)
        assert answer.kind == expected
    assert (await bus.ask("relay", "$ping", b"there?")).payload == b"there?"
    assert (await bus.ask("relay", "$unknown", b"")).name == "NoSuchMethod"


async def test_a_program_that_is_let_to_the_broker_late_is_served_as_if_it_had_been_at_once(
    bus: Bus, tmp_path: Path
) -> None:
    bus.plugin("relay", **GRANTS)
    authority = fresh_authority("crucible-bus-ca", utc_now())
    (tmp_path / "ca.crt").write_text(authority.certificate)
    issued = authority.server(("127.0.0.1",), utc_now())
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"tls://127.0.0.1:{listener.getsockname()[1]}"
    program = await Program.start(tmp_path, address, RELAY, authority=str(tmp_path / "ca.crt"))
    try:
        await turn_away(listener, 2)
        doorway = Doorway(Door.BUS, "here", "relay", "uid-here-relay", "0-2")
        context = serving(issued.certificate, issued.key)
        bus.doors[doorway.key] = Entrance(bus.broker, doorway, listener, context)
        await bus.ready("relay")
    finally:
        await program.close()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("(call $call (i32.const 32) (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0))", 3),
        ("(call $publish (i32.const 64) (i32.const 10) (i32.const 0) (i32.const 0))", 3),
        ("(call $subscribe (i32.const 48) (i32.const 6))", 3),
        (
            "(call $put_event (i32.const 64) (i32.const 10) (i32.const 0) (i32.const 0)"
            " (i32.const 0) (i32.const 0))",
            3,
        ),
        (
            "(call $take_event (i32.const 48) (i32.const 6) (i32.const 0) (i32.const 0)"
            " (i64.const 0) (i32.const 0))",
            3,
        ),
        ("(call $list (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", 3),
        ("(call $get (i32.const 96) (i32.const 5))", 3),
        ("(call $next (i32.const 0))", 0),
        ("(call $unready (i32.const 80) (i32.const 7))", 0),
    ],
)
async def test_what_is_not_granted_is_refused_by_the_broker(
    bus: Bus, tmp_path: Path, body: str, code: int
) -> None:
    program = await Program.start(tmp_path, bus.plugin("poor"), exiting(body))
    assert (await program.ended())[0] == code
    if code:
        assert bus.faults("poor") == {"refused": 1}


@pytest.mark.usefixtures("stores")
async def test_a_store_is_changed_under_its_revisions(bus: Bus, tmp_path: Path) -> None:
    put = "(call $put (i32.const 96) (i32.const 5) (i32.const 80) (i32.const 7) (i64.const {}))"
    get, revision = "(call $get (i32.const 96) (i32.const 5))", "(i32.wrap_i64 (call $revision))"
    delete = "(call $delete (i32.const 96) (i32.const 5) (i64.const {}))"
    listing = "(call $list (i32.const 96) (i32.const 2) (i32.const 0) (i32.const 0))"
    length = "(call $take (i32.const 0) (i32.const 2048) (i32.const 0))"
    path = bus.plugin("notes", store=10_000)
    for body, code in (
        (get, 12),
        (put.format(0), 0),
        (put.format(0), 11),
        (f"(i32.add {put.format(1)} {revision})", 2),
        (f"(i32.add {get} {revision})", 2),
        (f"(i32.add {get} (call $take (i32.const 0) (i32.const 2048) (i32.const 3)))", 7),
        (f"(i32.add {listing} {length})", len(LISTED)),
        (delete.format(1), 11),
        (delete.format(-1), 0),
    ):
        assert (await (await Program.start(tmp_path, path, exiting(body))).ended())[0] == code, body


async def test_messages_that_find_no_room_are_counted(bus: Bus, tmp_path: Path) -> None:
    # It asks to be told, waits for an answer that comes after 70 messages, and looks at the last of them.
    body = """
      (if (call $subscribe (i32.const 48) (i32.const 6)) (then (call $exit (i32.const 9))))
      (drop (call $call (i32.const 32) (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0)))
      (loop $rest (br_if $rest (call $next (i32.const 0))))
      (drop (call $call (i32.const 32) (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0)))
      (drop (call $next (i32.const -1)))
      (local.set $code (i32.wrap_i64 (call $missed)))
      (call $exit (local.get $code))"""
    program = f'(module {IMPORTS} (func (export "_start") (local $code i32) {body}))'
    running = await Program.start(tmp_path, bus.plugin("idle", **GRANTS), program)
    server = await bus.add("caps", "up", publish=("news.*",))
    for told in (70, 1):
        asked = await server.next()
        server.send(*[Frame(Kind.PUBLISH, 0, "news.today")] * told, Frame(Kind.ANSWER, asked.id))
    assert (await running.ended())[0] == 6


@pytest.mark.parametrize(
    "body",
    [
        "(call $open (i32.const 65530) (i32.const 7) (i32.const 0))",
        "(call $subscribe (i32.const -1) (i32.const -1))",
        "(call $take (i32.const 0) (i32.const 65530) (i32.const 7))",
        "(call $publish (i32.const 64) (i32.const 10) (i32.const 1) (i32.const -1))",
    ],
)
async def test_what_lies_outside_of_the_memory_is_a_trap(bus: Bus, tmp_path: Path, body: str) -> None:
    program = await Program.start(tmp_path, bus.plugin("odd", **GRANTS), exiting(body))
    code, said = await program.ended()
    assert code == 70
    assert "outside of the memory" in said


async def test_without_a_bus_the_functions_say_so(tmp_path: Path) -> None:
    program = await Program.start(
        tmp_path, None, exiting("(call $open (i32.const 16) (i32.const 5) (i32.const 0))")
    )
    assert (await program.ended())[0] == 6


async def test_waiting_for_the_bus_ends_when_the_time_does(bus: Bus, tmp_path: Path) -> None:
    program = await Program.start(
        tmp_path, bus.plugin("idle"), exiting("(call $next (i32.const -1))"), "--time", "0.5"
    )
    assert (await program.ended())[0] == 73


async def test_when_the_broker_cut_it_off_it_connects_anew(bus: Bus, relay: Program) -> None:
    seat = bus.broker.roster.find("here", "relay")
    assert seat is not None
    (before,) = seat.connections
    before.close()
    await until(lambda: any(one is not before and one.subscriptions for one in seat.connections))
    host = await bus.join(bus.host, namespace="here")
    await host.ask(Frame(Kind.SUBSCRIBE, 1, "told.>"))
    host.send(Frame(Kind.PUBLISH, 0, "news.today", b"rain"))
    assert (await host.next()).payload == b"rain"
    assert relay.process.returncode is None
