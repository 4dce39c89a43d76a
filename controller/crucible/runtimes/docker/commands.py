"""Commands run inside containers: their streams, how they end, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from docker import errors

from crucible.errors import Conflict, CrucibleError, Unavailable
from crucible.runtimes.base import NOT_EXECUTABLE, NOT_THERE, STDERR, STDOUT
from crucible.runtimes.docker.engine import shut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import docker

    from crucible.runtimes.docker.engine import Engine

_HEADER: Final = struct.Struct(">BxxxL")
_AT_ONCE: Final = 1 << 16
_POLL: Final = 0.05
_BORN_SECONDS: Final = 10.0
_LOOK: Final = 0.01
_KILLED: Final = 128 + signal.SIGKILL
_ENDED: Final = frozenset({404, 409})
_NOT_RUN: Final = ("executable file", "permission denied", "no such file")


@dataclass(slots=True)
class Stream:
    """A connection that an engine handed over to a command.

    Attributes:
        id: the engine's id of the command.
        opened: what the SDK made of the connection.
        client: whose connection it is; of its own.
        early: what came together with the engine's answer.
        closed: it was closed.
    """

    id: str
    opened: Any
    client: docker.APIClient
    early: bytes = b""
    closed: bool = False

    @property
    def socket(self) -> socket.socket:
        """What is under the stream, which can be waited for without a thread."""
        found: socket.socket = getattr(self.opened, "_sock", self.opened)
        return found

    def take(self) -> None:
        """Make it wait for nothing, and rescue what the SDK has read already and would never hand out."""
        self.socket.setblocking(False)
        buffered = getattr(getattr(self.opened, "_response", None), "raw", None)
        reader = getattr(getattr(buffered, "_fp", None), "fp", None)
        if isinstance(reader, io.BufferedReader):
            with contextlib.suppress(OSError):
                self.early = reader.peek()

    def close(self) -> None:
        """Close all of it."""
        self.closed = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.socket.close()
        with contextlib.suppress(OSError, ValueError):
            self.opened.close()
        shut(self.opened)
        self.client.close()


class DockerExec:
    """A command inside a container; keeps the contract of :class:`crucible.runtimes.base.ExecSession`."""

    def __init__(self, engine: Engine, container: str, stream: Stream, *, tty: bool) -> None:
        """Take over an exec that was started.

        Args:
            engine: runs it.
            container: the engine's id of where it runs.
            stream: its id and the connection that carries its streams.
            tty: it has a terminal.
        """
        self._engine = engine
        self._container = container
        self._id = stream.id
        self._stream = stream
        self._socket = stream.socket
        self._tty = tty
        self._absent = False
        self._first = True

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield chunks with their stream."""
        loop, buffer = asyncio.get_running_loop(), b""
        early, self._stream.early = self._stream.early, b""
        while chunk := early or await self._receive(loop):
            early = b""
            await asyncio.sleep(0)  # one that writes without end leaves others their turn
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
                channel, text = await self._judge(STDERR if stream == STDERR else STDOUT, text)
                if text:
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
            with contextlib.suppress(errors.APIError):  # it has ended
                await self._engine.call(self._engine.client.exec_resize, self._id, height=rows, width=columns)

    async def wait(self) -> int:
        """Return the exit code, as soon as the engine knows it."""
        while True:
            try:
                found = await self._engine.call(self._engine.client.exec_inspect, self._id)
            except errors.NotFound:
                return _KILLED  # it went with its container
            if not found["Running"] and found["ExitCode"] is not None:
                code = int(found["ExitCode"])
                return NOT_THERE if self._absent and code == NOT_EXECUTABLE else code
            await asyncio.sleep(_POLL)

    async def close(self) -> None:
        """Cut its streams, and kill it where the engine is on this host; the engine itself has no way to."""
        if self._stream.closed:
            return
        self._stream.close()
        with contextlib.suppress(CrucibleError, errors.APIError, TimeoutError):
            async with asyncio.timeout(_BORN_SECONDS):
                await self._end()

    async def _end(self) -> None:
        """Kill it; one that is only on its way into the container is waited for."""
        while True:
            found = await self._engine.call(self._engine.client.exec_inspect, self._id)
            if not found["Running"] and found["ExitCode"] is not None:
                return
            if found.get("Pid"):
                await asyncio.to_thread(kill_inside, self._container, int(found["Pid"]))
                return
            await asyncio.sleep(_POLL)

    async def _judge(self, channel: int, text: bytes) -> tuple[int, bytes]:
        """Put the engine's own word that the command cannot be executed where it belongs: on stderr.

        It is all there is then; what comes later is the command's, whatever it looks like.
        """
        first, self._first = self._first, False
        if not first or not text.startswith(b"OCI runtime exec failed"):
            return channel, text
        self._absent = b"not found" in text or b"no such file" in text
        if any(word.encode() in text for word in _NOT_RUN) or await self._runs():
            return STDERR, text
        return STDERR, b""  # its container ended while it was on its way in

    async def _runs(self) -> bool:
        """Whether its container does."""
        try:
            found = await self._engine.call(self._engine.client.inspect_container, self._container)
        except (CrucibleError, errors.APIError):
            return False
        return bool(found["State"]["Running"])

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
        Conflict: the container has ended.
        Unavailable: the engine does not answer, or refuses for a reason of its own.
    """

    def begin() -> Stream:
        client = engine.another()
        try:
            made = client.exec_create(
                container, list(command.words), stdin=command.stdin, tty=command.tty, user=command.user
            )
            stream = Stream(made["Id"], client.exec_start(made["Id"], tty=command.tty, socket=True), client)
        except BaseException:
            client.close()
            raise
        stream.take()
        return stream

    try:
        stream = await engine.call(begin)
    except errors.APIError as error:
        return _refused(error)
    try:
        await _born(engine, stream)
    except BaseException:
        stream.close()
        raise
    return DockerExec(engine, container, stream, tty=command.tty)


async def _born(engine: Engine, stream: Stream) -> None:
    """Wait until a command is inside or has ended; before, its words are the engine's, and it has no pid."""
    with contextlib.suppress(TimeoutError, errors.NotFound):
        async with asyncio.timeout(_BORN_SECONDS):
            while True:
                found = await engine.call(engine.client.exec_inspect, stream.id)
                if found.get("Pid") or found["ExitCode"] is not None:
                    return
                await asyncio.sleep(_LOOK)


def _refused(error: errors.APIError) -> Refused:
    text = str(error.explanation or error)
    if error.status_code in _ENDED:
        raise Conflict(f"no command can run there: {text}") from error
    if "exec" in text and any(word in text for word in _NOT_RUN):
        return Refused(text)
    raise Unavailable(f"the engine cannot run a command there: {text}") from error


def kill_inside(container: str, pid: int) -> None:
    """Kill a command in a container on this host, with all that it started and did not part from.

    Args:
        container: the engine's id of it; only a process in its cgroup is ever killed.
        pid: the command's, as the engine sees it: an engine may be in a pid namespace of its own.
    """
    for found in _processes(container):
        if pid in _pids(found)[:-1]:
            for each in (found, *_below(found)):
                with contextlib.suppress(OSError):
                    _kill(container, each)
            return


def _kill(container: str, pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        # By now the number names what the handle holds, or nothing.
        if container in Path(f"/proc/{pid}/cgroup").read_text():
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def _processes(container: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if container in (entry / "cgroup").read_text():
                    yield int(entry.name)


def _pids(pid: int) -> list[int]:
    """Return a process's number in each pid namespace, from ours to its own."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


def _below(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [one for word in words for one in (int(word), *_below(int(word)))]
    return []
