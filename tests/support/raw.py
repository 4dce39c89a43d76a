"""A client that speaks the wire and nothing else: it says whatever a test wants said."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from crucible.bus import wire
from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    import socket
    from pathlib import Path

DEADLINE = 60.0


class Gone(Exception):
    """The broker closed the connection."""


class Raw:
    """One connection."""

    made: ClassVar[list[Raw]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.made.append(self)
        self._reader = reader
        self._decoder = wire.Decoder()
        self._got: deque[Frame] = deque()

    @classmethod
    async def hang_up(cls) -> None:
        """Close every connection that a test left open: its loop ends before they are collected."""
        for client in cls.made:
            client.writer.transport.abort()  # unsent words of a deaf one would be waited for
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
        cls.made.clear()

    @classmethod
    async def connect(cls, path: Path | str) -> Raw:
        return cls(*await asyncio.open_unix_connection(path))

    @classmethod
    async def greet(cls, path: Path | str, **hello: Any) -> Raw:
        return await (await cls.connect(path)).greeted(**hello)

    async def greeted(self, **hello: Any) -> Raw:
        """Introduce oneself."""
        client = self
        client.send(Frame(Kind.HELLO, payload=json.dumps({"wire": [1], **hello}).encode()))
        answer = await client.next()
        assert answer.kind == Kind.WELCOME, answer
        return client

    def send(self, *frames: Frame) -> None:
        self.writer.write(b"".join(map(wire.encode, frames)))

    async def next(self) -> Frame:
        """Return the next frame; raise Gone when there is none."""
        async with asyncio.timeout(DEADLINE):
            while not self._got:
                try:
                    data = await self._reader.read(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    raise Gone
                self._got.extend(self._decoder.feed(data))
        return self._got.popleft()

    async def ask(self, frame: Frame) -> Frame:
        self.send(frame)
        return await self.next()

    async def call(self, ident: int, name: str, payload: bytes = b"", **fields: Any) -> Frame:
        return await self.ask(Frame(Kind.CALL, ident, name, payload, **fields))

    async def gone(self) -> list[Frame]:
        """Return all that comes until the broker closes."""
        frames = []
        try:
            while True:
                frames.append(await self.next())
        except Gone:
            return frames

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


def words(frame: Frame) -> tuple[str, int, str]:
    """Kind, id and name: what most tests ask of a frame."""
    return Kind(frame.kind).name, frame.id, frame.name


async def turn_away(listener: socket.socket, times: int) -> None:
    """Hang up at once on so many who come, as who knows none of them does."""
    listener.setblocking(False)
    async with asyncio.timeout(DEADLINE):
        for _ in range(times):
            there, _ = await asyncio.get_running_loop().sock_accept(listener)
            there.close()
