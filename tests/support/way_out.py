"""The egress proxy of a cluster without nodes: the program, and clients that speak from pods' addresses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from beside import Beside, serve
from ground import DEADLINE

from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ground import LocalGround

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SERVICE = "crucible-egress"
WAIT = 3.0
"""Seconds that the proxy waits until it knows whose a connection is."""


class WayOut(Beside):
    """One ``crucible egress``, and servers on this host's loopback that plugins may be let out to."""

    def __init__(self, local: LocalGround) -> None:
        super().__init__(local.place / "egress.log")
        self.local = local
        self._servers: list[asyncio.Server] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, *arguments: str) -> None:
        """Make the Service, and start the proxy."""
        await serve(self.local, SERVICE, 3128, "egress")
        self.run(self.local, "egress", "--wait", str(WAIT), *arguments)
        self.local.start("one", "--egress", f"{self.local.namespace}/{SERVICE}")
        await self.local.until(lambda: self.port("proxy"), self.log)

    async def close(self) -> None:
        self.kill()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        for server in self._servers:
            server.close()

    async def echo(self) -> int:
        """Start a server that says what it hears; return its port."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            while data := await reader.read(1 << 12):
                writer.write(data)
            writer.close()

        return await self.serve(handle)

    async def serve(self, handle: Callable[..., Any]) -> int:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def plugin(self, name: str, *connect: str) -> dict[str, Any]:
        """Apply a plugin that may connect to these, and return its pod once it runs."""
        capabilities = {"network": {"connect": list(connect)}} if connect else {}
        await self.local.apply(name, capabilities=capabilities)
        await self.local.until_ready(name)
        (pod,) = await self.local.running(name)
        return dict(pod)

    async def call(self, address: str, where: str) -> tuple[str, Streams]:
        """Ask the proxy for a tunnel from a pod's address; return its answer, which nobody gets none of."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port("proxy"), local_addr=(address, 0)
        )
        self._writers.append(writer)
        writer.write(f"CONNECT {where} HTTP/1.1\r\n\r\n".encode())
        try:
            async with asyncio.timeout(DEADLINE):
                said = await reader.readuntil(b"\r\n\r\n")
                if not said.startswith(b"HTTP/1.1 200 "):
                    said += await reader.read(-1)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return "", (reader, writer)
        return said.decode(), (reader, writer)

    async def tunnel(self, address: str, where: str) -> Streams:
        """Return a tunnel that works."""
        said, streams = await self.call(address, where)
        assert said.startswith("HTTP/1.1 200 "), f"{said}\n{self.log()}"
        assert await said_back(streams, b"hello")
        return streams


async def said_back(streams: Streams, words: bytes) -> bool:
    """Whether the other side says what it hears; one that was cut says nothing."""
    reader, writer = streams
    try:
        writer.write(words)
        async with asyncio.timeout(DEADLINE):
            return await reader.readexactly(len(words)) == words
    except (asyncio.IncompleteReadError, ConnectionError):
        return False


async def is_cut(streams: Streams) -> bool:
    """Wait until the other side has ended it."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await streams[0].read(-1) == b""
    except ConnectionError:
        return True


def address_of(pod: dict[str, Any]) -> str:
    """Return a pod's address."""
    return str(pod["status"]["podIP"])


def has_way_out(pod: dict[str, Any]) -> bool:
    """Whether rules and the proxy's own look both take a pod for one that may go out."""
    labels = pod["metadata"]["labels"]
    return Door.EGRESS in marks.doors_of(pod) and labels.get(marks.DOOR_LABELS[Door.EGRESS]) == "true"
