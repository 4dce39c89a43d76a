"""The bus as a Rune script has it: functions of ``crucible``, against the real broker."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from imagelib import rune
from raw import DEADLINE, Gone, words
from sandboxless import until

from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from raw import Raw

    from conftest import Bus

    Start = Callable[[Path | None, str], Awaitable["Program"]]

EXAMPLE = rune.REPOSITORY / "plugin-images/rune/example-bus/src/main.rn"
RELAY = """
pub fn main() {
    crucible::open(["relay", "slow", "$config"])?;
    crucible::subscribe("news.*")?;
    crucible::ready()?;
    loop {
        let event = match crucible::next(60.0)? { Some(event) => event, None => continue };
        match event.kind {
            "call" if event.name == "slow" => match crucible::call_within("caps.never", (), 0.2) {
                Ok(value) => crucible::answer(value)?,
                Err(why) => crucible::fail(why)?,
            },
            "call" => match crucible::call("caps.up", event.payload) {
                Ok(value) => crucible::answer(#{ value, "from": event.from })?,
                Err(why) => crucible::fail(why)?,
            },
            "message" => { crucible::publish("told.again", event)?; }
            "config" => if event.payload.good { crucible::answer(())? } else { crucible::fail("no luck")? },
            "stop" => return Ok(7),
            _ => (),
        }
    }
}
"""
GRANTS = {"call": ("caps.*",), "publish": ("told.*",), "subscribe": ("news.*",)}


@pytest.fixture(scope="session")
def host() -> Path:
    return rune.build(print)


class Program:
    """A script that runs in the host, outside of any sandbox."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, host: Path, folder: Path, bus: Path | None, text: str) -> Program:
        for name in ("plugin", "config", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "plugin/main.rn").write_text(text)
        process = await asyncio.create_subprocess_exec(
            *(host, "--root", folder, "--fuel", "1000000", "--memory", str(32 << 20), "/plugin/main.rn"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={} if bus is None else {"CRUCIBLE_BUS": str(bus)},
        )
        return cls(process)

    async def ended(self) -> tuple[int, str, str]:
        out, said = await asyncio.wait_for(self.process.communicate(), DEADLINE)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), said.decode()

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@pytest.fixture
async def start(bus: Bus, tmp_path: Path, host: Path) -> AsyncIterator[Start]:
    """Starts scripts, and ends each before its broker, whatever becomes of the test."""
    del bus
    begun: list[Program] = []

    async def begin(place: Path | None, text: str) -> Program:
        begun.append(await Program.start(host, tmp_path, place, text))
        return begun[-1]

    yield begin
    for program in begun:
        await program.close()


@pytest.fixture
async def relay(bus: Bus, start: Start) -> Program:
    program = await start(bus.plugin("relay", **GRANTS), RELAY)
    await bus.ready("relay")
    return program


async def capitals(client: Raw) -> None:
    """Answer every call of ``up`` in capitals, and none of ``never``."""
    try:
        while True:
            frame = await client.next()
            if frame.kind == Kind.CALL and frame.name == "up":
                client.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload.upper()))
    except Gone:
        return


@pytest.mark.usefixtures("relay")
async def test_it_is_called_and_calls_others(bus: Bus) -> None:
    server = await bus.add("caps", "up", "never")
    serving = asyncio.create_task(capitals(server))
    host = await bus.join(bus.host, namespace="here")
    answered = await host.call(1, "relay.relay", b'"to be"')
    assert json.loads(answered.payload) == {"value": "TO BE", "from": "$host"}
    late = await host.call(3, "relay.slow")
    assert (words(late), late.headers) == (("ERROR", 3, "DeadlineExceeded"), {"from": "relay"})
    bus.grant("relay", subscribe=("news.*",))
    denied = await host.call(5, "relay.relay", b'"to be"')
    assert words(denied) == ("ERROR", 5, "NotPermitted"), "what it fails with is its caller's error"
    assert denied.payload.startswith(b"the manifest lacks spec.capabilities.bus.call: [caps.up]")
    await server.close()
    await serving


async def test_it_hears_and_tells_takes_its_configuration_and_ends_when_asked(
    bus: Bus, relay: Program
) -> None:
    host = await bus.join(bus.host, namespace="here")
    await host.ask(Frame(Kind.SUBSCRIBE, 1, "told.>"))
    host.send(Frame(Kind.PUBLISH, 0, "news.today", b'{"rain":true}'))
    told: dict[str, Any] = json.loads((await host.next()).payload)
    assert told == {
        "kind": "message",
        "name": "news.today",
        "from": "$host",
        "payload": {"rain": True},
        "headers": {"from": "$host", "missed": "0"},
        "missed": 0,
    }
    for payload, kind in ((b'{"good":true}', Kind.ANSWER), (b'{"good":false}', Kind.ERROR)):
        assert (await bus.ask("relay", "$config", payload)).kind == kind
    assert (await bus.ask("relay", "$ping", b"there?")).payload == b"there?"
    assert (await bus.ask("relay", "$unknown", b"")).name == "NoSuchMethod"
    relay.process.send_signal(signal.SIGTERM)
    assert (await relay.ended())[0] == 7


async def test_when_the_broker_cut_it_off_it_connects_anew(bus: Bus, relay: Program) -> None:
    seat = bus.broker.roster.find("here", "relay")
    assert seat is not None
    (before,) = seat.connections
    before.close()
    await until(lambda: any(one is not before and one.subscriptions for one in seat.connections))
    host = await bus.join(bus.host, namespace="here")
    await host.ask(Frame(Kind.SUBSCRIBE, 1, "told.>"))
    host.send(Frame(Kind.PUBLISH, 0, "news.today", b'"rain"'))
    assert json.loads((await host.next()).payload)["payload"] == "rain"
    assert relay.process.returncode is None


@pytest.mark.usefixtures("stores")
async def test_the_example_counts_in_its_store(bus: Bus, start: Start) -> None:
    grants: dict[str, Any] = {"publish": ("summaries.made",), "store": 10_000}
    await start(bus.plugin("summarizer", **grants), EXAMPLE.read_text())
    await bus.ready("summarizer")
    client = await bus.join(bus.host, namespace="here")
    await client.ask(Frame(Kind.SUBSCRIBE, 1, "summaries.*"))
    for total in (1, 2):
        client.send(
            Frame(Kind.CALL, 2 * total + 1, "summarizer.summary", b'{"text":"It rains. We stay in."}')
        )
        frames = {frame.kind: frame for frame in [await client.next() for _ in range(2)]}
        expected = {"first": "It rains", "sentences": 2, "total": total}
        assert json.loads(frames[Kind.ANSWER].payload) == expected
        assert json.loads(frames[Kind.MESSAGE].payload) == {"sentences": 2, "total": total}
    wrong = await client.call(9, "summarizer.summary", b"[]")
    assert (words(wrong), b"say which text" in wrong.payload) == (("ERROR", 9, "Failed"), True)
    bus.grant("summarizer", store=10_000)
    denied = await client.call(11, "summarizer.summary", b'{"text":""}')
    assert denied.name == "NotPermitted"


@pytest.mark.usefixtures("stores")
async def test_a_store_is_changed_under_its_revisions(bus: Bus, start: Start) -> None:
    script = """
        pub fn main() {
            println!("{:?}", crucible::get("a"));
            println!("{:?}", crucible::put("a", [1, 2], Some(0)));
            println!("{:?}", crucible::put("a", 3, Some(0)));
            println!("{:?}", crucible::put("a", 4, None));
            println!("{}", crucible::get("a")?.map(|kept| kept.value).unwrap());
            println!("{}", crucible::keys("", "")?.keys[0].key);
            println!("{:?}", crucible::delete("a", Some(1)));
            println!("{:?}", crucible::delete("a", None));
            println!("{:?}", crucible::get("a b"));
            println!("{:?}", crucible::next(0.0));
        }"""
    program = await start(bus.plugin("notes", store=10_000), script)
    code, out, said = await program.ended()
    assert code == 0, said
    lines = out.splitlines()
    assert [lines[at] for at in (0, 1, 3, 4, 5, 7, 9)] == [
        "Ok(None)",
        "Ok(1)",
        "Ok(2)",
        "4",
        "a",
        "Ok(())",
        "Ok(None)",
    ]
    assert lines[2].startswith('Err("Conflict: is at revision 1')
    assert lines[6].startswith('Err("Conflict: is at revision 2')
    assert lines[8].startswith('Err("Malformed: header key')


async def test_messages_that_find_no_room_are_counted(bus: Bus, start: Start) -> None:
    script = """
        pub fn main() {
            crucible::open(["none"])?;
            crucible::subscribe("news.*")?;
            crucible::call("caps.up", ())?;
            while let Some(event) = crucible::next(0.0)? { if event.missed != 0 { return 9; } }
            crucible::call("caps.up", ())?;
            Ok(crucible::next(60.0)?.unwrap().missed)
        }"""
    running = await start(bus.plugin("idle", **GRANTS), script)
    server = await bus.add("caps", "up", publish=("news.*",))
    for told in (70, 1):
        asked = await server.next()
        server.send(*[Frame(Kind.PUBLISH, 0, "news.today")] * told, Frame(Kind.ANSWER, asked.id))
    assert (await running.ended())[0] == 6


async def test_what_is_not_granted_or_not_there_is_an_error_to_the_script(bus: Bus, start: Start) -> None:
    script = """
        pub fn main() {
            println!("{:?}", crucible::call("caps.up", ()));
            println!("{:?}", crucible::publish("told.x", ()));
            println!("{:?}", crucible::subscribe("news.*"));
            println!("{:?}", crucible::put("a", 1, None));
            println!("{:?}", crucible::keys("", ""));
            println!("{:?}", crucible::put_event("told.x", (), None));
            println!("{:?}", crucible::take_event("news.*", "main", None, 1.0));
        }"""
    _, out, _ = await (await start(bus.plugin("poor"), script)).ended()
    assert [line[:18] for line in out.splitlines()] == ['Err("NotPermitted:'] * 7
    assert bus.faults("poor") == {"refused": 7}
    _, out, _ = await (await start(None, script)).ended()
    assert out.startswith('Err("Unavailable: this plugin has no bus')
