"""The host of Rune scripts speaks TLS to a broker: to the right one, in no older version, however much."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from imagelib import rune
from raw import DEADLINE, Gone, turn_away
from sandboxless import until

from crucible.backbone.authority import Authority, fresh_authority, utc_now
from crucible.bus.credentials import serving
from crucible.bus.doors import Entrance
from crucible.bus.wire import Frame, Kind
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from raw import Raw

    from conftest import Bus

SCRIPT = """
pub fn main() {
    crucible::open(["say"])?;
    crucible::ready()?;
    let heard = crucible::call("caps.up", "x")?;
    println!("{}", heard);
    loop {
        let event = match crucible::next(60.0)? { Some(event) => event, None => continue };
        match event.kind {
            "call" => crucible::answer(event.payload)?,
            "stop" => return Ok(0),
            _ => (),
        }
    }
}
"""
LARGE = b'"%s"' % (b"a" * 700_000)


class Hall:
    """A broker's doors that speak TLS, and the authority that vouches for them."""

    def __init__(self, bus: Bus, folder: Path, host: Path) -> None:
        self.bus, self.folder, self.host = bus, folder, host
        self.authority = fresh_authority("crucible-bus-ca", utc_now())
        self.ca = folder / "ca.crt"
        self.ca.write_text(self.authority.certificate)
        self.processes: list[asyncio.subprocess.Process] = []

    def open(self, listener: socket.socket, *names: str, old: bool = False) -> None:
        issued = self.authority.server(names, utc_now())
        context = serving(issued.certificate, issued.key)
        if old:
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        doorway = Doorway(Door.BUS, "here", "script", "uid-here-script", f"0-{len(self.bus.doors)}")
        self.bus.doors[doorway.key] = Entrance(self.bus.broker, doorway, listener, context)

    def by_tcp(self, *names: str, old: bool = False) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        self.open(listener, *names, old=old)
        return f"tls://127.0.0.1:{listener.getsockname()[1]}"

    def by_path(self, *names: str) -> str:
        path = self.folder / "tls.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        self.open(listener, *names)
        return f"tls://{path}"

    async def run(self, address: str, authority: str | None = None) -> asyncio.subprocess.Process:
        (self.folder / "plugin").mkdir(exist_ok=True)
        (self.folder / "plugin/main.rn").write_text(SCRIPT)
        believed = str(self.ca) if authority is None else authority
        process = await asyncio.create_subprocess_exec(
            *(self.host, "--root", self.folder, "--memory", str(32 << 20), "/plugin/main.rn"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"CRUCIBLE_BUS": address, **({"CRUCIBLE_BUS_CA": believed} if believed else {})},
        )
        self.processes.append(process)
        return process

    async def refusal(self, address: str, authority: str | None = None) -> str:
        """Run it where it should not be content, and return what it says."""
        process = await self.run(address, authority)
        out, said = await asyncio.wait_for(process.communicate(), DEADLINE)
        assert process.returncode != 0
        return (out + said).decode()

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture(scope="session")
def host() -> Path:
    return rune.build(print)


@pytest.fixture
async def hall(bus: Bus, tmp_path: Path, host: Path) -> AsyncIterator[Hall]:
    bus.plugin("script", call=("caps.*",))
    found = Hall(bus, tmp_path, host)
    yield found
    await found.close()


async def capitals(client: Raw) -> None:
    with suppress(Gone):
        while True:
            frame = await client.next()
            client.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload.upper()))


@pytest.mark.parametrize("way", ["tcp", "path"])
async def test_a_script_calls_and_is_called_through_it_however_much_is_said(
    hall: Hall, bus: Bus, way: str
) -> None:
    answering = asyncio.create_task(capitals(await bus.add("caps", "up")))
    address = hall.by_tcp("127.0.0.1") if way == "tcp" else hall.by_path("crucible-bus")
    process = await hall.run(address)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), DEADLINE) == b"X\n"
    caller = await bus.add("caller", call=("script.say",))
    for ident in (1, 3, 5):
        answer = await caller.call(ident, "script.say", LARGE, deadline=30_000)
        assert (answer.kind, answer.payload) == (Kind.ANSWER, LARGE)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), DEADLINE) == 0
    answering.cancel()


async def test_a_script_that_is_let_to_the_broker_late_is_served_as_if_it_had_been_at_once(
    hall: Hall, bus: Bus
) -> None:
    answering = asyncio.create_task(capitals(await bus.add("caps", "up")))
    listener = socket.create_server(("127.0.0.1", 0))
    process = await hall.run(f"tls://127.0.0.1:{listener.getsockname()[1]}")
    await turn_away(listener, 2)
    hall.open(listener, "127.0.0.1")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), DEADLINE) == b"X\n"
    answering.cancel()


async def test_whoever_is_not_vouched_for_under_that_name_in_this_version_is_told_nothing(
    hall: Hall, tmp_path: Path
) -> None:
    others: Authority = fresh_authority("crucible-bus-ca", utc_now())
    (tmp_path / "others.crt").write_text(others.certificate)
    right = hall.by_tcp("127.0.0.1")
    assert "invalid peer certificate" in await hall.refusal(right, str(tmp_path / "others.crt"))
    assert "CRUCIBLE_BUS_CA is not set" in await hall.refusal(right, "")
    assert "No such file" in await hall.refusal(right, str(tmp_path / "nowhere.crt"))
    assert "not valid for name" in await hall.refusal(hall.by_tcp("bus"))
    assert "not valid for name" in await hall.refusal(hall.by_path("bus"))
    assert "names no nobody" in await hall.refusal("tls://nobody:1")
    assert "it should be a path" in await hall.refusal("tls://127.0.0.1")
    seat = hall.bus.broker.roster.find("here", "script")
    assert seat is not None
    await until(lambda: not seat.connections)

    def faults() -> int:
        counted = [each for each in hall.bus.broker.ledger.to_json() if each["plugin"] == "script"]
        return sum(sum(each["faults"].values()) for each in counted)

    before = faults()
    await hall.run(hall.by_tcp("127.0.0.1", old=True))
    await until(lambda: faults() > before + 1)  # it comes again, as who was turned away, and is not content
    assert not seat.connections
