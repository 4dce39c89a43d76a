"""What strangers on both sides make the proxy hold: the companion itself, its memory as the kernel has it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from onlooker import bearing

from crucible.companions.companion import Companion
from crucible.doorkeeper import end_companions, programs
from crucible.egress.proxy import CONNECTIONS
from crucible.model.door import Door, Doorway
from crucible.runtimes.doors import bind
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 120.0
PLUGINS = 2
MOST = 160 << 20
FLOOD = bytes(1 << 20)


class Instances:
    """Stands for a runtime: instances that have an egress door each."""

    def __init__(self, place: Path) -> None:
        self.held: dict[str, tuple[Doorway, socket.socket, Path]] = {}
        for name in (f"plugin{number}" for number in range(PLUGINS)):
            folder = place / name
            folder.mkdir()
            way = Doorway(Door.EGRESS, "default", name, name, "0-1", os.geteuid())
            self.held[name] = (way, bind(folder, Door.EGRESS), folder / "egress.sock")

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        return tuple(way for uid, (way, _, _) in self.held.items() if plugin_uid in {None, uid})

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        return (self.held[doorway.plugin_uid][1].dup(),)


class Scene:
    def __init__(self, place: Path) -> None:
        self.places = Places(place)
        self.instances = Instances(place)
        self.program = programs(self.places, place.name)[Door.EGRESS]
        self.companion = Companion(self.program, Door.EGRESS, self.instances, lambda _: None)
        self.keeping = asyncio.create_task(self.companion.keep())
        self.mark = place.name
        self.open: list[socket.socket] = []

    async def tunnel(self, plugin: str, port: int) -> socket.socket:
        """Return one that says as much as it can and reads nothing."""
        loop = asyncio.get_running_loop()
        one = socket.socket(socket.AF_UNIX)
        self.open.append(one)
        one.setblocking(False)
        async with asyncio.timeout(SECONDS):
            await loop.sock_connect(one, str(self.instances.held[plugin][2]))
            await loop.sock_sendall(one, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            said = b""
            while b"\r\n\r\n" not in said:
                said += (more := await loop.sock_recv(one, 1))
                assert more, said
        assert said.startswith(b"HTTP/1.1 200 "), said
        pour(one)
        return one

    def resident(self) -> int:
        """Return what the proxy has in memory, in bytes."""
        mark = self.program.mark.encode()
        proxy, *_ = bearing(mark)
        lines = Path(f"/proc/{proxy}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    async def close(self) -> None:
        for one in self.open:
            one.close()
        self.keeping.cancel()
        await asyncio.gather(self.keeping, return_exceptions=True)
        await end_companions(self.places, self.mark, lambda _: None)
        for _, listener, _ in self.instances.held.values():
            listener.close()


def pour(one: socket.socket) -> int:
    """Send until nothing goes in any more."""
    sent = 0
    try:
        while True:
            sent += one.send(FLOOD)
    except BlockingIOError:
        return sent


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    found = Scene(tmp_path)
    yield found
    await found.close()


async def test_who_reads_nothing_makes_the_proxy_hold_little(scene: Scene) -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=4096)
    silent.setblocking(False)
    scene.open.append(silent)
    port = silent.getsockname()[1]
    for plugin in scene.instances.held:
        scene.companion.grant(plugin, {"connect": [f"127.0.0.1:{port}"], "rate": None})
    ends = [await scene.tunnel(plugin, port) for plugin in scene.instances.held for _ in range(CONNECTIONS)]
    for _ in tuple(ends):
        one, _ = await asyncio.get_running_loop().sock_accept(silent)
        one.setblocking(False)
        scene.open.append(one)
        ends.append(one)
    assert len(ends) == 2 * PLUGINS * CONNECTIONS
    quiet, most = time.monotonic(), 0
    deadline = quiet + SECONDS
    while time.monotonic() < quiet + 2.0:  # until nobody takes anything any more
        assert time.monotonic() < deadline
        if sum(pour(one) for one in ends):
            quiet = time.monotonic()
        most = max(most, scene.resident())
        await asyncio.sleep(0.05)
    assert most < MOST, f"{len(ends) // 2} tunnels: {most >> 20} MiB"
