"""An end of the bus that is no plugin's, for asyncio: calls, messages, plugins' stores."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from crucible.bus import wire
from crucible.bus.wire import BrokenFrame, Code, Decoder, Frame, Kind
from crucible.errors import Conflict, CrucibleError, InvalidInput, NotFound, Unavailable
from crucible.model.door import Door, socket_name
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

PATIENCE: Final = 10.0
"""Seconds for the broker to greet."""
WAITING_LIMIT: Final = 1024
"""Messages of one subscription that may wait to be looked at."""
_GRACE: Final = 1.0
"""Seconds by which the broker may be late with its word that a call is."""
_CHUNK: Final = 65536
_LARGEST_ID: Final = 2**32


class CallFailed(CrucibleError):
    """A plugin was called, and did not do it.

    Attributes:
        code: as the wire names it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.retry = code in {Code.UNAVAILABLE, Code.OVERLOADED, Code.DEADLINE_EXCEEDED}


def error_of(frame: Frame) -> CrucibleError:
    """Return the exception for an ERROR frame."""
    why = frame.payload.decode(errors="replace")
    match frame.name:
        case Code.NO_SUCH_PLUGIN | Code.NO_SUCH_METHOD | Code.NOT_FOUND:
            return NotFound(why)
        case Code.NOT_PERMITTED | Code.MALFORMED | Code.TOO_LARGE | Code.UNSUPPORTED_VERSION:
            return InvalidInput(why)
        case Code.CONFLICT:
            return Conflict(why)
        case code:
            return CallFailed(code, why)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """One connection. Use as an async context manager."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]], namespace: str) -> None:
        """Prepare.

        Args:
            connect: connects; raises Unavailable where nobody is there.
            namespace: where to act; empty: whoever this is acts in none.
        """
        self._connect = connect
        self._namespace = namespace
        self._decoder = Decoder()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._calls: dict[int, asyncio.Future[Frame]] = {}
        self._listening: dict[int, asyncio.Queue[Frame | None]] = {}
        self._missed: dict[int, int] = {}
        self._last_id = -1

    async def __aenter__(self) -> Self:
        reader, self._writer = await self._connect()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._greet(reader)
        except (OSError, TimeoutError, CrucibleError) as error:
            self._writer.close()
            if isinstance(error, CrucibleError):
                raise
            raise Unavailable(f"the broker does not greet: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            with contextlib.suppress(OSError):  # the broker went first
                await self._writer.wait_closed()

    @property
    def connected(self) -> bool:
        """The broker is there, as far as is known."""
        return self._reading is not None and not self._reading.done()

    async def call(
        self,
        name: str,
        payload: bytes = b"",
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - it is the call's deadline, which the broker keeps
        priority: int = wire.Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
    ) -> Frame:
        """Call ``plugin.method`` and return its ANSWER.

        Args:
            name: whom and what.
            payload: any bytes; JSON by default.
            timeout: seconds.
            priority: of :class:`crucible.bus.wire.Priority`.
            headers: go with it.

        Raises:
            NotFound: there is no such plugin or method.
            InvalidInput: it is not allowed, or too large.
            CallFailed: it was tried.
            Unavailable: the bus went away.
        """
        left = min(max(int(timeout * 1000), 1), wire.LONGEST_DEADLINE)
        frame = Frame(Kind.CALL, self._id(), name, payload, headers or {}, priority, left)
        try:
            async with asyncio.timeout(timeout + _GRACE):
                return await self._ask(frame)
        except TimeoutError:
            raise CallFailed(Code.DEADLINE_EXCEEDED, "the broker does not answer") from None
        except asyncio.CancelledError:
            self._send(Frame(Kind.CANCEL, frame.id))
            raise

    async def publish(self, subject: str, payload: bytes = b"") -> int:
        """Tell whoever listens; return how many subscriptions it reached."""
        answer = await self._ask(Frame(Kind.PUBLISH, self._id(), subject, payload))
        return int(answer.headers.get("reached", "0"))

    async def subscribe(self, pattern: str) -> AsyncIterator[Frame]:
        """Listen from now on; iterate over what this returns.

        Messages that nobody takes in time are missed; the next one has the header ``missed``.
        """
        ident = self._id()
        waiting = self._listening[ident] = asyncio.Queue(WAITING_LIMIT)
        try:
            await self._ask(Frame(Kind.SUBSCRIBE, ident, pattern))
        except BaseException:
            del self._listening[ident]
            raise
        return self._heard(ident, waiting)

    async def _heard(self, ident: int, waiting: asyncio.Queue[Frame | None]) -> AsyncIterator[Frame]:
        try:
            while (frame := await waiting.get()) is not None:
                missed = self._missed.pop(ident, 0) + int(frame.headers.get("missed", "0"))
                yield frame._replace(headers={**frame.headers, "missed": str(missed)}) if missed else frame
            raise Unavailable("the bus went away")
        finally:
            del self._listening[ident]
            self._send(Frame(Kind.UNSUBSCRIBE, ident))

    def _id(self) -> int:
        self._last_id = (self._last_id + 2) % _LARGEST_ID
        return self._last_id

    def _send(self, frame: Frame) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(frame))

    async def _ask(self, frame: Frame) -> Frame:
        """Send a frame and return the ANSWER to it."""
        if self._writer is None or not self.connected:
            raise Unavailable("the bus went away")
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._calls[frame.id] = answer
        try:
            self._writer.write(_encoded(frame))
            await self._writer.drain()
            got = await answer
        except OSError as error:  # also that there is no way to its host any more
            raise Unavailable(f"the bus went away: {error}") from error
        finally:
            del self._calls[frame.id]
        if got.kind == Kind.ERROR:
            raise error_of(got)
        return got

    async def _greet(self, reader: asyncio.StreamReader) -> None:
        said = {"wire": [wire.VERSION], "client": "crucible", "namespace": self._namespace}
        self._send(Frame(Kind.HELLO, payload=json.dumps(said).encode()))
        frames: list[Frame] = []
        while not frames:
            frames = list(self._decoder.feed(await _chunk(reader)))
        if frames[0].kind == Kind.ERROR:
            raise error_of(frames[0])
        self._reading = asyncio.get_running_loop().create_task(self._read(reader, frames[1:]))

    async def _read(self, reader: asyncio.StreamReader, first: list[Frame]) -> None:
        try:
            for frame in first:
                self._receive(frame)
            while True:
                for frame in self._decoder.feed(await _chunk(reader)):
                    self._receive(frame)
        except (OSError, BrokenFrame, Unavailable) as error:
            why = Frame(Kind.ERROR, 0, Code.UNAVAILABLE, f"the bus went away: {error}".encode())
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_result(why)
            for waiting in self._listening.values():
                if waiting.full():
                    waiting.get_nowait()
                waiting.put_nowait(None)

    def _receive(self, frame: Frame) -> None:
        if frame.kind == Kind.MESSAGE:
            waiting = self._listening.get(frame.id)
            if waiting is None:
                return
            if waiting.full():
                self._missed[frame.id] = self._missed.get(frame.id, 0) + 1
            else:
                waiting.put_nowait(frame)
        elif frame.kind in (Kind.ANSWER, Kind.ERROR):
            answer = self._calls.get(frame.id)
            if answer is not None and not answer.done():
                answer.set_result(frame)


def door_beside(kubeconfig: Path) -> Path | None:
    """Return the host application's door to the bus of a local control plane; None: it is no such."""
    places = Places(kubeconfig.absolute().parent.parent)
    return places.host / socket_name(Door.BUS) if kubeconfig.absolute() == places.kubeconfig else None


class HostBus(Client):
    """The host application's connection, for one namespace.

    Only the user who runs the controller may connect, and may do everything there.
    """

    def __init__(self, door: Path, namespace: str) -> None:
        """Prepare.

        Args:
            door: the host application's socket, ``STATE/host/bus.sock``.
            namespace: where to act.
        """
        super().__init__(partial(_through, door), namespace)


async def _through(door: Path) -> Streams:
    try:
        return await asyncio.open_unix_connection(str(door))
    except OSError as error:
        raise Unavailable(
            f"the bus is not there ({error.strerror}): it runs while a plugin with spec.capabilities.bus "
            "(even if that is {}) does"
        ) from error


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_CHUNK)
    if not data:
        raise Unavailable("the broker closed the connection")
    return data


def _encoded(frame: Frame) -> bytes:
    try:
        return wire.encode(frame)
    except BrokenFrame as error:
        raise InvalidInput(str(error)) from error
