"""``capabilities.bus.encryptLocal``: what goes through a plugin's door to the bus is read by nobody there.

The test holds the door's socket, as the broker would, and passes on to a real broker what is said there.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, SECONDS

from crucible.backbone.local import Seal
from crucible.bus.broker import Broker
from crucible.bus.credentials import serving
from crucible.bus.doors import Entrance
from crucible.errors import Unsupported
from crucible.model.bus import Grants, Member
from crucible.model.door import Door
from crucible.runtimes.doors import nobody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from harness import ProcessHarness
    from harness_docker import DockerHarness

    from crucible.model.door import Doorway
    from crucible.model.workload import Workload

    Real = ProcessHarness | DockerHarness

SECRET = "words-that-nobody-else-may-read"
PROGRAM = """\
import os, sys
from crucible_plugin import Plugin
print("at", os.environ["CRUCIBLE_BUS"], flush=True)
try:
    open("/run/crucible/bus.crt", "w")
except OSError as error:
    print("bus.crt is not written:", error.errno, flush=True)
while True:
    try:
        with Plugin() as plugin:
            print("heard", plugin.call("$bus.ping", sys.argv[1]), flush=True)
            plugin.wait(1e6)
    except Exception as error:
        print("failed", type(error).__name__, error, flush=True)
"""


@pytest.fixture(params=["process", "docker"])
def real(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


class Between:
    """Whoever holds a door's socket: it passes on what is said, and keeps it."""

    def __init__(self, real: Real, broker: Broker) -> None:
        self.real = real
        self.broker = broker
        self.heard = bytearray()
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets: list[socket.socket] = []
        self._entrances: list[Entrance] = []

    async def stand(self, workload: Workload) -> Doorway:
        """Stand between an instance and the broker, from its next connection on."""
        (doorway,) = self.real.runtime.doorways(workload.plugin_uid)
        self.broker.know(Member(doorway.namespace, doorway.plugin, doorway.plugin_uid, Grants()))
        ours = socket.socket(socket.AF_UNIX)
        ours.bind(f"\0{id(self)}-{len(self._entrances)}-{self.real.control_plane}")
        ours.listen(8)
        context = None
        if doorway.tls:
            context = serving(**Seal(self.real.place / "bus-authority").serving())
        inside = replace(doorway, peer=None)
        self._entrances.append(Entrance(self.broker, inside, ours, context))
        found = await self.real.runtime.listeners(doorway)
        self._sockets += found
        self._tasks.append(asyncio.create_task(self._accept(found[0], ours.getsockname())))
        return doorway

    async def _accept(self, listener: socket.socket, to: bytes) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            caller, _ = await loop.sock_accept(listener)
            there = socket.socket(socket.AF_UNIX)
            there.setblocking(False)
            await loop.sock_connect(there, to)
            self._sockets += [caller, there]
            ways = (caller, there), (there, caller)
            self._tasks += [asyncio.create_task(self._pass_on(*way)) for way in ways]

    async def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await loop.sock_recv(one, 1 << 16):
                self.heard += data
                await loop.sock_sendall(other, data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entrance in self._entrances:
            entrance.close()
        for one in self._sockets:
            one.close()
        async with asyncio.timeout(SECONDS):
            while any(seat.connections for seat in self.broker.roster):
                await asyncio.sleep(0.01)
        self.broker.calls.deadlines.close()


@pytest.fixture
async def between(real: Real) -> AsyncIterator[Between]:
    made = Between(real, Broker(asyncio.get_running_loop()))
    yield made
    await made.close()


async def test_a_plugin_that_asks_for_it_speaks_tls_from_the_first_byte(real: Real, between: Between) -> None:
    workload = real.script(PROGRAM, "sealed", SECRET, doors=(Door.BUS,), sealed=True)
    await real.runtime.start(workload, FIRST)
    assert (await between.stand(workload)).tls
    await real.says(workload, f"heard {SECRET}".encode())
    await real.says(workload, b"at tls:///run/crucible/bus.sock")
    await real.says(workload, b"bus.crt is not written: 30")
    assert between.heard.startswith(b"\x16\x03"), "no TLS"
    for said in (SECRET, '"wire"', "$bus.ping", '"plugin"'):
        assert said.encode() not in between.heard


async def test_a_plugin_that_does_not_is_as_it_was(real: Real, between: Between) -> None:
    workload = real.script(PROGRAM, "plain", SECRET, doors=(Door.BUS,))
    await real.runtime.start(workload, FIRST)
    assert not (await between.stand(workload)).tls
    await real.says(workload, f"heard {SECRET}".encode())
    await real.says(workload, b"at /run/crucible/bus.sock")
    assert SECRET.encode() in between.heard


async def test_a_controller_that_comes_later_knows_which_doors_speak_tls(
    real: Real, between: Between
) -> None:
    workloads = [
        real.script(PROGRAM, name, SECRET, doors=(Door.BUS,), sealed=name == "sealed")
        for name in ("sealed", "plain")
    ]
    for each in workloads:
        await real.runtime.start(each, FIRST)
    await real.reopen()
    for each in workloads:
        assert (await between.stand(each)).tls is each.sealed
        await real.says(each, f"heard {SECRET}".encode())


async def test_where_nobody_vouches_for_a_broker_it_does_not_start(real: Real) -> None:
    await real.runtime.close()
    settings = real.settings(bus_authority=nobody)
    real.runtime = type(real.runtime)(settings, real.sources.joinpath, real.secrets_of)  # type: ignore[assignment]
    await real.runtime.open(real.heard.append)
    workload = real.script(PROGRAM, "sealed", SECRET, doors=(Door.BUS,), sealed=True)
    with pytest.raises(Unsupported, match="encryptLocal"):
        await real.runtime.start(workload, FIRST)
    assert real.runtime.doorways() == ()
    assert real.leftovers() == []
