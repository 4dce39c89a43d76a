"""A broker in the test's own loop, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import uvloop
from raw import DEADLINE, Raw

from crucible.bus.broker import Broker
from crucible.bus.doors import Entrance
from crucible.model.bus import HOST, Grants, Member
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run brokers on the loop that their program runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
async def hung_up() -> AsyncIterator[None]:
    yield
    await Raw.hang_up()


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
