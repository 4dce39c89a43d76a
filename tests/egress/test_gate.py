"""The way out of a cluster's pods: room for each and for all, and what is cut when somebody goes."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from crucible.core.egress import Grant
from crucible.egress.dial import Internet
from crucible.egress.gate import Gate, Guest, Room
from crucible.model.egress import parse_rule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crucible.core.egress import Address

SECONDS = 60.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Scene:
    """A gate that knows the pods of two plugins, and a server that both may reach."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.known = {
            ip_address("127.7.0.1"): Guest("default", "one", "uid-1", "pod-1"),
            ip_address("127.7.0.2"): Guest("default", "one", "uid-1", "pod-2"),
            ip_address("127.7.0.3"): Guest("default", "two", "uid-2", "pod-3"),
        }
        self.gate = Gate(self.who, self.told.append, Internet(), room=Room(each=2, all=3))
        self.writers: list[asyncio.StreamWriter] = []

    async def who(self, address: Address) -> Guest | None:
        return self.known.get(address)

    async def open(self) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.append(writer)
            while data := await reader.read(1 << 12):
                writer.write(data)
            writer.close()

        self.far = await asyncio.start_server(echo, "127.0.0.1", 0)
        self.near = await asyncio.start_server(self.gate.accept, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self.far.sockets[0].getsockname()[1]}"
        for uid in ("uid-1", "uid-2"):
            self.gate.grant(uid, Grant((parse_rule(self.target),)))

    async def close(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.wait_for(self.gate.empty(), SECONDS)
        await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)
        self.near.close()
        self.far.close()

    async def call(self, pod: int) -> tuple[bytes, Streams]:
        port = self.near.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.7.0.{pod}", 0))
        self.writers.append(writer)
        writer.write(f"CONNECT {self.target} HTTP/1.1\r\n\r\n".encode())
        try:
            said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        except (asyncio.IncompleteReadError, ConnectionError):
            said = b""
        return said, (reader, writer)

    async def is_cut(self, streams: Streams) -> bool:
        try:
            return await asyncio.wait_for(streams[0].read(-1), SECONDS) == b""
        except ConnectionError:
            return True

    async def works(self, streams: Streams) -> bool:
        streams[1].write(b"hello")
        return await asyncio.wait_for(streams[0].readexactly(5), SECONDS) == b"hello"


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    found = Scene()
    await found.open()
    yield found
    await found.close()


async def test_there_is_room_for_so_many_of_each_and_for_so_many_of_all(scene: Scene) -> None:
    first, kept = await scene.call(1)
    second, _ = await scene.call(2)
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert (await scene.call(1))[0] == b"", "a third of the same plugin"
    assert (await scene.call(3))[0].startswith(b"HTTP/1.1 200 ")
    assert (await scene.call(3))[0] == b"", "a fourth in all"
    assert await scene.works(kept)


async def test_a_pod_that_goes_takes_its_own_connections_along_and_no_others(scene: Scene) -> None:
    _, first = await scene.call(1)
    _, second = await scene.call(2)
    scene.gate.leave("pod-1")
    assert await scene.is_cut(first)
    assert await scene.works(second)


async def test_a_plugin_that_goes_takes_all_of_its_connections_along(scene: Scene) -> None:
    _, first = await scene.call(1)
    _, other = await scene.call(3)
    scene.gate.forget("uid-1")
    assert await scene.is_cut(first)
    assert await scene.works(other)
    assert set(scene.gate.accounts) == {"uid-2"}
    said, _ = await scene.call(2)
    assert said.startswith(b"HTTP/1.1 403 "), "what nothing is known of may reach nothing"


async def test_it_is_empty_once_everybody_has_gone(scene: Scene) -> None:
    _, (_, writer) = await scene.call(1)
    waiting = asyncio.create_task(scene.gate.empty())
    await asyncio.sleep(0)
    assert not waiting.done()
    writer.close()
    await asyncio.wait_for(waiting, SECONDS)
    assert scene.gate.open == 0


async def test_a_stranger_is_counted_and_hears_nothing(scene: Scene) -> None:
    assert (await scene.call(9))[0] == b""
    assert scene.gate.strangers == 1
    assert scene.gate.accounts == {}
