"""A broker in the test's own loop, with real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import uvloop
from raw import DEADLINE, Raw

from crucible.bus.broker import Broker
from crucible.bus.doors import Entrance
from crucible.bus.stores import Stores
from crucible.bus.wire import Frame, Kind
from crucible.model.bus import HOST, Grants, Member
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sandboxless import Program


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run brokers on the loop that their program runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
async def hung_up() -> AsyncIterator[None]:
    yield
    await Raw.hang_up()


class Patron:
    """Whoever asks one thing in the broker's name, and is answered at once."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

    def item(self, *_: object) -> None: ...

    def credit(self, *_: object) -> None: ...

    def ended(self, _: object, frame: Frame) -> None:
        self.answer.set_result(frame)


class Bus:
    """A broker, and who may connect to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Broker(asyncio.get_running_loop())
        self.members: dict[str, Member] = {}
        self.doors: dict[str, Entrance] = {}
        self.clients: list[Raw] = []
        self.host = self.open(Doorway(Door.BUS, "", HOST, HOST, "host"))

    def open(self, doorway: Doorway) -> Path:
        path = self.folder / f"{doorway.plugin_uid}-{doorway.place}.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(128)
        self.doors[doorway.key] = Entrance(self.broker, doorway, listener)
        return path

    def plugin(self, name: str, namespace: str = "here", *, state: str = "", **grants: object) -> Path:
        """Let a plugin with one instance exist; return the instance's socket."""
        member = Member(namespace, name, f"uid-{namespace}-{name}", Grants(**grants), state)  # type: ignore[arg-type]
        self.members[f"{namespace}/{name}"] = member
        self.broker.update(self.members.values())
        return self.open(Doorway(Door.BUS, namespace, name, member.uid, "0-1"))

    def grant(self, name: str, namespace: str = "here", **grants: object) -> None:
        key = f"{namespace}/{name}"
        self.members[key] = replace(self.members[key], grants=Grants(**grants))  # type: ignore[arg-type]
        self.broker.update(self.members.values())

    def drain(self, name: str, *places: str, namespace: str = "here") -> None:
        """Say which instances of a plugin are given nothing new."""
        key = f"{namespace}/{name}"
        self.members[key] = replace(self.members[key], draining=places)
        self.broker.update(self.members.values())

    def remove(self, name: str, namespace: str = "here") -> None:
        del self.members[f"{namespace}/{name}"]
        self.broker.update(self.members.values())

    async def join(self, path: Path, **hello: object) -> Raw:
        client = await Raw.greet(path, **hello)
        self.clients.append(client)
        return client

    async def add(self, name: str, *methods: str, **grants: object) -> Raw:
        """Let a plugin exist and connect."""
        return await self.join(self.plugin(name, **grants), methods=list(methods))  # type: ignore[arg-type]

    def faults(self, name: str, namespace: str = "here") -> dict[str, int]:
        return dict(self.broker.ledger.of(namespace, name).faults)

    async def ready(self, name: str, program: Program | None = None) -> None:
        """Wait until an instance of a plugin is ready; fail at once where its program has ended."""
        seat = self.broker.roster.find("here", name)
        assert seat is not None

        def ended() -> bool:
            return program is not None and program.process.returncode is not None

        await until(lambda: ended() or any(one.ready for one in seat.connections))
        assert not ended(), program and program.errors

    async def ask(self, name: str, method: str, payload: bytes) -> Frame:
        """Ask the instance of a plugin something in the broker's name."""
        connection = self.broker.through(f"uid-here-{name}/0-1/bus")
        assert connection is not None
        assert connection.seat is not None
        patron = Patron()
        self.broker.calls.ask(connection, connection.seat, Frame(Kind.CALL, 1, method, payload), patron)
        return await asyncio.wait_for(patron.answer, DEADLINE)

    @asynccontextmanager
    async def stores(self) -> AsyncIterator[Stores]:
        """Serve stores from a folder of the test's."""
        path = self.folder / "store"
        path.mkdir(exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        stores = Stores(self.broker.calls, self.broker.ledger, folder)
        self.broker.calls.services.update(stores.services())
        try:
            yield stores
        finally:
            await stores.close()
            os.close(folder)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        for entrance in self.doors.values():
            entrance.close()
        await until(lambda: not any(seat.connections for seat in self.broker.roster))
        self.broker.calls.deadlines.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    bus = Bus(tmp_path)
    yield bus
    await bus.close()


@pytest.fixture
async def stores(bus: Bus) -> AsyncIterator[Stores]:
    async with bus.stores() as stores:
        yield stores
