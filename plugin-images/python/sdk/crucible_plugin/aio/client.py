"""What a program says on the bus, for asyncio; over a connection that is made anew whenever it breaks."""

from __future__ import annotations

import asyncio
import time

from crucible_plugin import trace, wire
from crucible_plugin.aio.events import Events
from crucible_plugin.aio.flow import Flow, Stream
from crucible_plugin.aio.store import Store
from crucible_plugin.errors import BusError, DeadlineExceeded, Unavailable, error_of
from crucible_plugin.payloads import from_bytes, to_bytes
from crucible_plugin.speaker import DEFAULT_TIME, GRACE, Speaker, gone, traced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLIENT = "crucible-plugin-python-asyncio/1"
_HANDSHAKE = 10.0
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_CHUNK = 65536


class Client(Speaker):
    """One end of the bus.

    Attributes:
        log: lines of JSON.
        store: the plugin's own key-value store.
        surroundings: names that the sandbox told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(self._ask, self._watch)
        self._flows: dict[int, Flow] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting: asyncio.Lock | None = None
        self._closed = False

    @property
    def events(self) -> Events:
        """Durable events, kept on the backbone until they were taken."""
        return Events(self.exchange)

    @property
    def connected(self) -> bool:
        """There is a connection."""
        return self._writer is not None

    async def call(  # noqa: PLR0913 - each is named
        self,
        name: str,
        payload: object = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the call's deadline, which the broker keeps
        priority: str | None = None,
        headers: dict[str, str] | None = None,
        raw: bool = False,
    ) -> Any:  # noqa: ANN401 - what the other plugin answers
        """Call ``plugin.method`` and return what it answers; see ``crucible_plugin.Plugin.call``."""
        frame = await self.exchange(name, to_bytes(payload), headers, timeout=timeout, priority=priority)
        return frame.payload if raw else from_bytes(frame.payload)

    async def stream(
        self,
        name: str,
        payload: object = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same
        priority: str | None = None,
        raw: bool = False,
    ) -> Stream:
        """Call a method that answers with many items: ``async with await plugin.stream(…) as items:``."""
        await self._ensure()
        flow = self._open(
            self._call_frame(name, to_bytes(payload), {}, left=timeout, priority=priority, flags=wire.STREAM)
        )
        return Stream(flow, timeout, self._forget, raw=raw)

    async def publish(self, subject: str, payload: object = None, *, confirm: bool = False) -> int:
        """Tell whoever listens to a subject; see ``crucible_plugin.Plugin.publish``."""
        await self._ensure()
        ident = self._id() if confirm else 0
        frame = wire.Frame(wire.PUBLISH, ident, subject, to_bytes(payload), traced({}))
        if not confirm:
            self.send(frame)
            return 0
        answer = await self.finished(self._open(frame), DEFAULT_TIME)
        return int(answer.headers.get("reached", "0"))

    async def exchange(
        self,
        name: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same
        priority: str | None = None,
    ) -> wire.Frame:
        """Call a method and return the ANSWER as it came; else as ``call``."""
        await self._ensure()
        left = DEFAULT_TIME if timeout is None else timeout
        request = trace.serving.get()
        if request is not None and request.due is not None:
            left = min(left, request.due - time.monotonic())
        frame = self._call_frame(name, payload, headers or {}, left=left, priority=priority)
        return await self.finished(self._open(frame), left)

    async def finished(self, flow: Flow, seconds: float) -> wire.Frame:
        """Wait for the end of a call; return its answer or raise its error."""
        try:
            async with asyncio.timeout(max(seconds, 0) + GRACE):
                frame = await flow.ended()
        except TimeoutError:
            raise DeadlineExceeded("no answer came in time, nor the broker's word that none does") from None
        finally:
            flow.cancel()
            self._forget(flow.id)
        if frame.kind == wire.ERROR:
            raise error_of(frame.name, frame.payload, frame.headers)
        return frame

    def send(self, frame: wire.Frame) -> None:
        """Send a frame.

        Raises:
            Unavailable: there is no connection.
            TooLarge, Malformed: it is no frame.
        """
        data = wire.encode(frame)
        if self._writer is None or self._writer.is_closing():
            raise Unavailable("the bus is not there just now")
        self._writer.write(data)

    def _open(self, frame: wire.Frame) -> Flow:
        flow = Flow(self.send, frame.id, frame.priority)
        self.send(frame)
        self._flows[frame.id] = flow
        return flow

    def _forget(self, ident: int) -> None:
        self._flows.pop(ident, None)

    async def _ask(self, name: str, headers: dict[str, str], payload: bytes) -> wire.Frame:
        return await self.exchange(name, payload, headers)

    async def _watch(self, name: str, headers: dict[str, str]) -> Stream:
        await self._ensure()
        flow = self._open(self._call_frame(name, b"", headers, left=None, flags=wire.STREAM))
        return Stream(flow, None, self._forget, raw=False)

    # The connection.

    async def _ensure(self) -> None:
        patience = self._patience()
        if not self.connected:
            await self.connect(patience)

    async def connect(self, patience: float) -> None:
        """Connect unless that is done, trying for so many seconds.

        Raises:
            Unavailable: nobody listens.
            BusError: the broker does not take us.
        """
        until = time.monotonic() + patience
        self._connecting = self._connecting or asyncio.Lock()
        attempt = 0
        while True:
            async with self._connecting:
                try:
                    if not self.connected:
                        await self._connect()
                except Unavailable:
                    if self._closed or time.monotonic() >= until:
                        raise
                else:
                    return
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def _connect(self) -> None:
        decoder = wire.Decoder()
        try:
            async with asyncio.timeout(_HANDSHAKE):
                reader, writer = await _reach(self.surroundings.bus, self.surroundings.bus_authority)
                writer.write(wire.encode(wire.Frame(wire.HELLO, payload=self.hello())))
                frames: list[wire.Frame] = []
                while not frames:
                    frames = list(decoder.feed(await _chunk(reader)))
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"the bus is not there: {error}") from None
        welcome = frames[0]
        if welcome.kind == wire.ERROR:
            writer.close()
            raise error_of(welcome.name, welcome.payload, welcome.headers)
        self._writer = writer
        self.welcomed()
        self._reading = asyncio.create_task(self._read(reader, decoder, frames[1:]))

    async def _read(
        self, reader: asyncio.StreamReader, decoder: wire.Decoder, first: list[wire.Frame]
    ) -> None:
        try:
            for frame in first:
                self.receive(frame)
            while True:
                for frame in decoder.feed(await _chunk(reader)):
                    self.receive(frame)
        except (OSError, BusError):
            if self._writer is not None:
                self._writer.close()
            self._writer = None
            self.lost()
        if not self._closed:
            await self.connect(float("inf"))

    def close(self) -> None:
        """Leave the bus."""
        self._closed = True
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()

    # What a plugin does beyond a client.

    def hello(self) -> bytes:
        """Return what to introduce oneself with."""
        return to_bytes({"wire": [1], "client": CLIENT})

    def welcomed(self) -> None:
        """Begin anew."""

    def lost(self) -> None:
        """End what was open."""
        for flow in list(self._flows.values()):
            flow.receive(gone(flow.id))

    def receive(self, frame: wire.Frame) -> None:
        """Take a frame: part of a call of ours, or an error that no call waits for."""
        flow = self._flows.get(frame.id)
        if flow is not None:
            flow.receive(frame)
        else:
            self._told(frame)


async def _reach(address: str, authority: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a Unix socket, or by TLS to whom the authority's certificate vouches for."""
    if "://" not in address:
        return await asyncio.open_unix_connection(address)
    from crucible_plugin import tls  # noqa: PLC0415 - costs memory, and most have no use for it

    place, context = tls.place_of(address), tls.context_of(authority)
    if place.path:
        return await asyncio.open_unix_connection(place.path, ssl=context, server_hostname=place.name)
    return await asyncio.open_connection(place.host, place.port, ssl=context, server_hostname=place.name)


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_CHUNK)
    if not data:
        raise ConnectionResetError("the broker closed it")
    return data
