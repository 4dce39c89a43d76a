"""The proxy at work, between a client at one of its doors and servers in a network of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from crucible.egress import proxy as proxies
from crucible.egress.conversation import Patience
from crucible.egress.proxy import CONNECTIONS, Proxy
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from crucible.core.egress import Address

SECONDS = 60.0
PUBLIC = "93.184.216.34"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Net:
    """Names and addresses that lead to servers on this host's loopback, and a record of who was asked for."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {"api.example.com": [PUBLIC]}
        self.ports: dict[int, int] = {}
        self.asked: list[str] = []
        self.dialled: list[str] = []
        self.own: set[str] = set()
        self.own_once_made: set[str] = set()

    async def resolve(self, name: str) -> list[Address]:
        self.asked.append(name)
        return [ip_address(address) for address in self.names.get(name, [])]

    async def connect(self, address: Address, port: int) -> Streams:
        self.dialled.append(f"{address}:{port}")
        return await asyncio.open_connection("127.0.0.1", self.ports[port])

    def leads_here(self, address: Address, connection: asyncio.StreamWriter | None = None) -> bool:
        if str(address) == "9.9.9.9":
            raise OSError("nobody can say")
        return str(address) in (self.own if connection is None else self.own | self.own_once_made)


class Scene:
    def __init__(self, **patience: float) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.net = Net()
        self.proxy = Proxy(self.told.append, self.net, Patience(**patience))
        self.servers: list[asyncio.Server] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.addresses: dict[str, str] = {}

    def admit(self, plugin: str, *connect: str, rate: int | None = None, peer: int | None = None) -> None:
        """Give a plugin a door, or another grant."""
        doorway = Doorway(Door.EGRESS, "default", plugin, plugin, "0-1", peer or os.geteuid())
        listeners = []
        if plugin not in self.addresses:
            one = socket.socket(socket.AF_UNIX)
            one.bind("")
            one.listen()
            self.addresses[plugin] = one.getsockname()
            listeners.append(one)
        self.proxy.admit(doorway, {"connect": list(connect), "rate": rate}, listeners)

    async def serve(self, port: int, handle: Callable[..., Any]) -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        self.servers.append(server)
        self.net.ports[port] = server.sockets[0].getsockname()[1]

    async def call(self, plugin: str, data: bytes) -> Streams:
        reader, writer = await asyncio.open_unix_connection(self.addresses[plugin])
        self.writers.append(writer)
        writer.write(data)
        return reader, writer

    async def ask(self, plugin: str, data: bytes) -> bytes:
        """Say something, and return all of the answer."""
        reader, _ = await self.call(plugin, data)
        try:
            return await asyncio.wait_for(reader.read(-1), SECONDS)
        except ConnectionResetError:
            return b""

    async def tunnel(self, plugin: str, where: str) -> Streams:
        reader, writer = await self.call(plugin, f"CONNECT {where} HTTP/1.1\r\n\r\n".encode())
        said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        assert said.startswith(b"HTTP/1.1 200 "), said
        return reader, writer

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
        await self.proxy.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)
        for server in self.servers:
            server.close()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    found = Scene()
    yield found
    await found.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


class Web:
    """Answers one request with what it heard."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") -> None:
        self.answer = answer
        self.heard = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"\r\n\r\n" not in self.heard or (b"chunked" in self.heard and b"0\r\n\r\n" not in self.heard):
            self.heard += await reader.read(1 << 16)
        writer.write(self.answer)
        await writer.drain()
        writer.close()


def socks(host: bytes, port: int) -> bytes:
    return b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(host)]) + host + struct.pack("!H", port)


async def test_a_tunnel_to_where_it_may_go(scene: Scene) -> None:
    await scene.serve(443, echo)
    scene.admit("one", "api.example.com:443")
    reader, writer = await scene.tunnel("one", "api.example.com:443")
    writer.write(b"x" * 1_000_000)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(-1), SECONDS) == b"x" * 1_000_000
    assert scene.net.dialled == [f"{PUBLIC}:443"]
    [counters] = (await scene.proxy.answer({"figures": 0}))["figures"]
    assert counters["uid"] == "one"
    assert (counters["sent"], counters["received"], counters["connections"]) == (1_000_000, 1_000_000, 1)


async def test_plain_http_and_nothing_after_the_request(scene: Scene) -> None:
    web = Web()
    await scene.serve(80, web)
    scene.admit("one", "api.example.com:80")
    head = b"POST http://api.example.com/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    smuggled = b"GET http://other.example.com/ HTTP/1.1\r\nHost: other.example.com\r\n\r\n"
    assert (await scene.ask("one", head + b"2\r\nok\r\n0\r\n\r\n" + smuggled)).endswith(b"hi")
    assert web.heard.endswith(b"Connection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert b"other" not in web.heard


async def test_socks(scene: Scene) -> None:
    await scene.serve(443, echo)
    scene.admit("one", "api.example.com:443")
    reader, writer = await scene.call("one", socks(b"api.example.com", 443) + b"hello")
    assert (
        await asyncio.wait_for(reader.readexactly(17), SECONDS)
        == b"\x05\x00\x05\x00\x00\x01" + bytes(6) + b"hello"
    )
    writer.close()
    assert (await scene.ask("one", socks(b"other.example.com", 443)))[2:4] == b"\x05\x02"
    assert await scene.ask("one", b"\x05\x01\x02") == b"\x05\xff"


async def test_what_is_not_in_the_list_is_neither_asked_for_nor_dialled(scene: Scene) -> None:
    scene.admit("one", "api.example.com:443")
    said = await scene.ask("one", b"CONNECT secret-data.evil.org:443 HTTP/1.1\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 ")
    assert b"to allow it, add 'secret-data.evil.org:443' to capabilities.network.connect" in said
    assert (await scene.ask("one", b"CONNECT api.example.com:22 HTTP/1.1\r\n\r\n")).startswith(
        b"HTTP/1.1 403 "
    )
    assert (await scene.ask("one", f"CONNECT {PUBLIC}:443 HTTP/1.1\r\n\r\n".encode())).startswith(
        b"HTTP/1.1 403 "
    )
    assert (scene.net.asked, scene.net.dialled) == ([], [])
    assert [one["grant"] for one in scene.told] == [
        "secret-data.evil.org:443",
        "api.example.com:22",
        f"{PUBLIC}:443",
    ]


async def test_a_name_that_leads_inside_is_refused_whenever_it_does(scene: Scene) -> None:
    await scene.serve(443, echo)
    scene.admit("one", "*.example.com:443")
    await scene.tunnel("one", "api.example.com:443")
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:192.168.0.1", "fd00:ec2::254"):
        scene.net.names["api.example.com"] = [address]
        said = await scene.ask("one", b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 403 "), address
    assert scene.net.dialled == [f"{PUBLIC}:443"]
    scene.net.names["api.example.com"] = ["10.0.0.1", PUBLIC]
    await scene.tunnel("one", "api.example.com:443")
    assert scene.net.dialled == [f"{PUBLIC}:443"] * 2


async def test_no_name_leads_to_an_address_of_the_host_itself(scene: Scene) -> None:
    web = Web()
    await scene.serve(80, web)
    scene.net.own = {PUBLIC}
    ask = b"GET http://api.example.com/ HTTP/1.1\r\n\r\n"
    for rule in ("api.example.com:80", "*:*"):
        scene.admit("one", rule)
        said = await scene.ask("one", ask)
        assert said.startswith(b"HTTP/1.1 403 "), said
        assert f"{PUBLIC} is this host's own address; to allow it, add '{PUBLIC}:80'".encode() in said
    assert b" 403 " in await scene.ask("one", f"GET http://{PUBLIC}/ HTTP/1.1\r\n\r\n".encode())
    assert scene.net.dialled == []
    scene.admit("one", "api.example.com:80", f"{PUBLIC}:80")
    assert (await scene.ask("one", ask)).endswith(b"hi")


async def test_a_host_that_takes_on_an_address_meanwhile_hears_nothing(scene: Scene) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            heard.append(await reader.read(-1))
        heard.append(b"end")
        writer.close()

    await scene.serve(80, listen)
    scene.net.own_once_made = {PUBLIC}
    scene.admit("one", "api.example.com:80")
    assert b" 403 " in await scene.ask("one", b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(SECONDS):
        while b"end" not in heard:
            await asyncio.sleep(0.01)
    assert b"".join(heard) == b"end"


async def test_an_address_of_which_nobody_can_say_whose_it_is_is_not_dialled(scene: Scene) -> None:
    scene.net.names["api.example.com"] = ["9.9.9.9"]
    scene.admit("one", "api.example.com:80")
    said = await scene.ask("one", b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 502 ")
    assert scene.net.dialled == []


async def test_a_redirect_inside_is_a_request_like_any_other(scene: Scene) -> None:
    web = Web(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n")
    await scene.serve(80, web)
    scene.admit("one", "api.example.com:80")
    assert b" 302 " in await scene.ask("one", b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")
    said = await scene.ask("one", b"GET http://169.254.169.254/latest HTTP/1.1\r\n\r\n")
    assert b"403" in said
    assert b"a metadata address" in said


async def test_a_new_list_cuts_what_it_does_not_hold_and_nothing_else(scene: Scene) -> None:
    await scene.serve(443, echo)
    scene.net.names["b.example.com"] = ["1.1.1.1"]
    scene.admit("one", "api.example.com:443", "b.example.com:443")
    kept, lost = (
        await scene.tunnel("one", "api.example.com:443"),
        await scene.tunnel("one", "b.example.com:443"),
    )
    scene.admit("one", "api.example.com:443", "c.example.com:443")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(lost[0].readexactly(1), SECONDS)
    kept[1].write(b"still here")
    assert await asyncio.wait_for(kept[0].readexactly(10), SECONDS) == b"still here"


async def test_speed_is_held_for_all_connections_of_a_plugin_together(scene: Scene) -> None:
    await scene.serve(443, echo)
    rate, size = 200_000, 100_000
    scene.admit("one", "api.example.com:443", rate=rate)
    scene.admit("other", "api.example.com:443")
    began = time.monotonic()

    async def move() -> None:
        reader, writer = await scene.tunnel("one", "api.example.com:443")
        writer.write(b"x" * size)
        await asyncio.wait_for(reader.readexactly(size), SECONDS)

    await asyncio.gather(move(), move())
    taken = time.monotonic() - began
    at_once = rate * 0.25 + 4 * rate / 10  # the burst, and the last step in each direction
    assert 4 * size <= taken * rate + at_once + 1


async def test_denials_are_told_once_and_not_without_end(scene: Scene) -> None:
    scene.admit("one")
    for _ in range(3):
        await scene.ask("one", b"CONNECT a.org:443 HTTP/1.1\r\n\r\n")
    assert len(scene.told) == 1
    for number in range(60):
        await scene.ask("one", f"CONNECT a{number}.org:443 HTTP/1.1\r\n\r\n".encode())
    assert len(scene.told) == 32
    assert [one["denied"] for one in (await scene.proxy.answer({"figures": 0}))["figures"]] == [63]


async def test_one_plugin_gets_nothing_of_another(scene: Scene) -> None:
    await scene.serve(443, echo)
    scene.admit("one", "api.example.com:443")
    scene.admit("two")
    assert b" 403 " in await scene.ask("two", b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n")
    scene.admit("three", "api.example.com:443", peer=54_321)
    assert await scene.ask("three", b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n") == b""


async def test_who_says_nothing_or_stops_talking_is_let_go() -> None:
    scene = Scene(head=0.2, dial=1.0, idle=0.4)
    try:
        await scene.serve(443, echo)
        scene.admit("one", "api.example.com:443")
        assert await scene.ask("one", b"CONNECT api.exam") == b""
        reader, _ = await scene.tunnel("one", "api.example.com:443")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), SECONDS)
    finally:
        await scene.close()


async def test_connections_are_bounded(scene: Scene) -> None:
    await scene.serve(443, echo)
    scene.admit("one", "api.example.com:443")
    open_ = [await scene.tunnel("one", "api.example.com:443") for _ in range(CONNECTIONS)]
    assert await scene.ask("one", b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n") == b""
    open_[0][1].close()
    async with asyncio.timeout(SECONDS):
        while True:
            reader, writer = await scene.call("one", b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                if (await reader.read(100)).startswith(b"HTTP/1.1 200 "):
                    break
            writer.close()


async def test_plugins_that_take_all_they_can_leave_others_as_much(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "CONNECTIONS_OF_ALL", 40)
    await scene.serve(443, echo)
    for plugin in ("one", "two", "three", "quiet"):
        scene.admit(plugin, "api.example.com:443")
    ask, most = (
        b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n",
        {"one": 20, "two": 10, "three": 5, "quiet": 3},
    )
    for plugin, count in most.items():
        for _ in range(count):
            await scene.tunnel(plugin, "api.example.com:443")
        assert await scene.ask(plugin, ask) == b"", plugin


async def test_a_door_that_is_gone_takes_its_connections_with_it(scene: Scene) -> None:
    await scene.serve(443, echo)
    scene.admit("one", "api.example.com:443")
    reader, _ = await scene.tunnel("one", "api.example.com:443")
    scene.proxy.dismiss("one/0-1/egress")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), SECONDS)
    assert await scene.proxy.answer({"figures": 0}) == {"figures": [], "more": False}
