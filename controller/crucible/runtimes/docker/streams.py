"""What comes out of containers: kept output line by line, and the streams of commands run inside."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import requests
from docker import errors

from crucible.errors import Unavailable
from crucible.runtimes.base import NOT_EXECUTABLE, NOT_THERE, STDERR, STDOUT, LogLine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

    import docker

    from crucible.runtimes.docker.engine import Engine

_HEADER: Final = struct.Struct(">BxxxL")
_AT_ONCE: Final = 1 << 16
_AHEAD: Final = 256
_POLL: Final = 0.05


def lines_of(frames: Iterable[bytes]) -> Iterator[LogLine]:
    """Join an engine's timed frames into lines; a long line comes in parts, each with a time."""
    at, text = 0.0, b""
    for frame in frames:
        stamp, _, rest = frame.partition(b" ")
        at = at if text else _stamp(stamp)
        text += rest
        if text.endswith(b"\n"):
            yield LogLine(at, text[:-1])
            text = b""
    if text:
        yield LogLine(at, text)


def _stamp(text: bytes) -> float:
    """Return unix seconds for ``2026-01-31T09:30:00.123456789Z``."""
    whole, _, fraction = text.decode(errors="replace").rstrip("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
    except ValueError:
        return 0.0


class LogStream:
    """A container's output, read by a thread of its own that runs at most a few lines ahead."""

    def __init__(self, client: docker.APIClient, container: str, *, tail: int | None, follow: bool) -> None:
        self._client = client
        self._ask = (container, tail, follow)
        self._lines: asyncio.Queue[LogLine | None] = asyncio.Queue(_AHEAD)
        self._loop = asyncio.get_running_loop()
        self._stream: Any = None
        self._closed = threading.Event()

    async def lines(self) -> AsyncGenerator[LogLine, None]:
        """Yield the lines; closing the iterator ends the thread."""
        threading.Thread(target=self._read, name="docker-logs", daemon=True).start()
        try:
            while (line := await self._lines.get()) is not None:
                yield line
        finally:
            self._closed.set()
            if self._stream is not None:
                with contextlib.suppress(errors.DockerException, OSError):
                    self._stream.close()

    def _read(self) -> None:
        container, tail, follow = self._ask
        # A stream that was closed by its reader, or a container that is gone: either way all is said.
        with contextlib.suppress(errors.DockerException, requests.RequestException, OSError, ValueError):
            self._stream = self._client.logs(
                container, stream=True, follow=follow, timestamps=True, tail="all" if tail is None else tail
            )
            for line in lines_of(self._stream):
                if not self._put(line):
                    break
        self._put(None)
        self._client.close()

    def _put(self, line: LogLine | None) -> bool:
        """Hand a line over, waiting while the reader is behind; return False once nobody reads."""
        if self._closed.is_set() or self._loop.is_closed():
            return False
        handed = asyncio.run_coroutine_threadsafe(self._lines.put(line), self._loop)
        while not self._closed.is_set():
            try:
                handed.result(_POLL)
            except TimeoutError:
                continue
            return True
        handed.cancel()
        return False


class DockerExec:
    """A command inside a container; keeps the contract of :class:`crucible.runtimes.base.ExecSession`."""

    def __init__(self, engine: Engine, identifier: str, opened: object, *, tty: bool) -> None:
        """Take over an exec that was started.

        Args:
            engine: runs it.
            identifier: the engine's id of the exec.
            opened: the connection that carries its streams.
            tty: it has a terminal.
        """
        self._engine = engine
        self._id = identifier
        self._opened = opened
        # The SDK hands out the stream of a connection; what is under it can be waited for without a thread.
        self._socket: socket.socket = getattr(opened, "_sock", opened)  # type: ignore[arg-type] # one or the other
        self._socket.setblocking(False)
        self._tty = tty
        self._said = b""

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield chunks with their stream."""
        loop, buffer = asyncio.get_running_loop(), b""
        while chunk := await self._receive(loop):
            if self._tty:
                yield STDOUT, chunk
                continue
            buffer += chunk
            while len(buffer) >= _HEADER.size:
                stream, length = _HEADER.unpack_from(buffer)
                if len(buffer) < _HEADER.size + length:
                    break
                text = buffer[_HEADER.size : _HEADER.size + length]
                buffer = buffer[_HEADER.size + length :]
                channel, text = self._judge(STDERR if stream == STDERR else STDOUT, text)
                yield channel, text

    async def write(self, data: bytes) -> None:
        """Send input."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def close_stdin(self) -> None:
        """End the input."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, rows: int, columns: int) -> None:
        """Say how large the terminal is."""
        if self._tty:
            with contextlib.suppress(errors.APIError):
                await self._engine.call(self._engine.client.exec_resize, self._id, height=rows, width=columns)

    async def wait(self) -> int:
        """Return the exit code, as soon as the engine knows it."""
        while True:
            found = await self._engine.call(self._engine.client.exec_inspect, self._id)
            if not found["Running"] and found["ExitCode"] is not None:
                return int(found["ExitCode"])
            await asyncio.sleep(_POLL)

    async def close(self) -> None:
        """Cut its streams; the engine has no way to end the command itself, which ends with the instance."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _judge(self, channel: int, text: bytes) -> tuple[int, bytes]:
        """Put the engine's own word that the command cannot be executed where it belongs: on stderr."""
        return (STDERR, text) if text.startswith(b"OCI runtime exec failed") else (channel, text)

    async def _receive(self, loop: asyncio.AbstractEventLoop) -> bytes:
        try:
            return await loop.sock_recv(self._socket, _AT_ONCE)
        except OSError:
            return b""


class Refused:
    """A command that could not be executed at all: words on stderr, and the shell's exit code."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield the words."""
        yield STDERR, f"{self._why}\n".encode()

    async def write(self, data: bytes) -> None:
        """Nobody reads."""

    async def close_stdin(self) -> None:
        """Nobody reads."""

    async def resize(self, rows: int, columns: int) -> None:
        """There is no terminal."""

    async def wait(self) -> int:
        """Return what shells return."""
        return NOT_EXECUTABLE if "permission denied" in self._why.lower() else NOT_THERE

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run inside: the words, as whom, and what it is given."""

    words: tuple[str, ...]
    user: str
    stdin: bool
    tty: bool


async def execute(engine: Engine, container: str, command: Command) -> DockerExec | Refused:
    """Run a command inside a running container.

    Raises:
        Unavailable: the engine does not answer, or refuses for a reason of its own.
    """

    def begin() -> tuple[str, object]:
        client = engine.another()
        made = client.exec_create(
            container, list(command.words), stdin=command.stdin, tty=command.tty, user=command.user
        )
        return made["Id"], client.exec_start(made["Id"], tty=command.tty, socket=True)

    try:
        identifier, opened = await engine.call(begin)
    except errors.APIError as error:
        text = str(error.explanation or error)
        if "exec" in text and (
            "executable file" in text or "permission denied" in text or "no such file" in text
        ):
            return Refused(text)
        raise Unavailable(f"the engine cannot run a command there: {text}") from error
    return DockerExec(engine, identifier, opened, tty=command.tty)
