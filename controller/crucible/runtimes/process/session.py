"""The controller's end of a command that runs in a sandbox: its streams, its exit code, its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.runtimes.base import STDERR, STDOUT
from crucible.runtimes.process.spawn import settle

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

_CHUNK: Final = 1 << 16
# The most that pipes hold: what comes after that is another's, not the ended command's.
_MOST_LEFT: Final = 1 << 20
_KILLED: Final = 137
_LINGER: Final = 0.2
"""Seconds in which the kernel hands over what was written to a terminal whose command has ended."""
_END_OF_INPUT: Final = b"\x04"


@dataclass(frozen=True, slots=True)
class Streams:
    """The controller's ends of a command's streams.

    Attributes:
        stdin: None where it gets none.
        outputs: what is read, and as what; one with a terminal.
        terminal: the terminal's own end; None without one.
    """

    stdin: int | None
    outputs: tuple[tuple[int, int], ...]
    terminal: int | None = None

    @property
    def descriptors(self) -> frozenset[int]:
        """All of them, each once."""
        own = () if self.stdin is None else (self.stdin,)
        return frozenset((*own, *(descriptor for descriptor, _ in self.outputs)))


Given = tuple[int, int, int]
"""The command's own ends: standard input, output, error."""


def open_streams(uid: int | None, *, stdin: bool, tty: bool) -> tuple[Streams, Given]:
    """Make the streams of a command; ``uid`` may open its own again through ``/dev/stdout``."""
    if tty:
        ours, theirs = os.openpty()
        given = (theirs, theirs, theirs)
        streams = Streams(ours if stdin else None, ((ours, STDOUT),), ours)
    else:
        read_in, write_in = os.pipe2(os.O_CLOEXEC)
        (read_out, out), (read_err, err) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        given = (read_in, out, err)
        streams = Streams(write_in if stdin else None, ((read_out, STDOUT), (read_err, STDERR)))
        if not stdin:
            os.close(write_in)
    if uid is not None:
        for descriptor in set(given):
            os.fchown(descriptor, uid, -1)
    for descriptor in streams.descriptors:
        os.set_blocking(descriptor, False)
    return streams, given


class Session:
    """One command; keeps the contract of :class:`crucible.runtimes.base.ExecSession`."""

    def __init__(self, control: socket.socket, streams: Streams) -> None:
        """Take over a socket to the entrance, set not to block, and the streams."""
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._streams = streams
        self._stdin = streams.stdin
        self._heard = bytearray()
        self._code: int | None = None
        self._entered: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.ended = asyncio.Event()
        self._shut: frozenset[int] = frozenset()
        self._closed = False
        self._loop.add_reader(control, self._hear)

    async def begin(self, request: bytes) -> dict[str, Any]:
        """Ask the entrance, and return its first answer: that it entered, or a problem."""
        with contextlib.suppress(OSError):  # it died: that is an answer too, and comes below
            await self._loop.sock_sendall(self._control, request)
        return await asyncio.shield(self._entered)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what the command writes until it has ended, or has closed both streams."""
        left, spare = dict(self._streams.outputs), _MOST_LEFT
        while left and spare > 0 and not self._closed:
            ended = self.ended.is_set()  # before reading: what was written before the end is there by then
            idle = True
            for descriptor, channel in tuple(left.items()):
                chunk = _read(descriptor)
                idle = idle and chunk is None
                if chunk == b"":
                    del left[descriptor]
                elif chunk is not None:
                    spare -= len(chunk) if ended else 0
                    yield channel, chunk
                    if self._closed:
                        return
            if not idle:
                await asyncio.sleep(0)  # one that writes without end leaves others their turn
            elif not await self._more(left, ended=ended):
                return

    async def write(self, data: bytes) -> None:
        """Send bytes to the command's stdin."""
        while data and self._stdin is not None and not self.ended.is_set():
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                await self._writable(self._stdin)
            except OSError:
                return  # it does not read any more

    async def close_stdin(self) -> None:
        """End the command's stdin; on a terminal by what people type for that."""
        if self._streams.terminal is not None:
            await self.write(_END_OF_INPUT)
        elif self._stdin is not None:
            stdin, self._stdin = self._stdin, None
            self._shut = frozenset({stdin})
            self._loop.remove_writer(stdin)
            os.close(stdin)

    async def resize(self, rows: int, columns: int) -> None:
        """Say how large the terminal is."""
        if self._streams.terminal is not None and not self._closed:
            size = struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0)
            fcntl.ioctl(self._streams.terminal, termios.TIOCSWINSZ, size)

    async def wait(self) -> int:
        """Return the exit code once the command has ended."""
        await self.ended.wait()
        return _KILLED if self._code is None else self._code

    async def close(self) -> None:
        """Kill the command and what it started and still holds together with, wait, close all."""
        with contextlib.suppress(OSError):
            self._control.shutdown(1)  # SHUT_WR: the entrance hears that nobody asks any more
        await self.ended.wait()
        if self._closed:
            return
        self._closed = True
        for descriptor in self._streams.descriptors - self._shut:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
            os.close(descriptor)
        self._stdin = None

    def _hear(self) -> None:
        """Take the entrance's answers; its end is the session's."""
        try:
            chunk = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._heard += chunk
        *lines, rest = self._heard.split(b"\n")
        self._heard = bytearray(rest)
        for answer in map(json.loads, lines):
            self._code = answer.get("code", self._code)
            if not self._entered.done():
                self._entered.set_result(answer)
        if not chunk or self._code is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
            self.ended.set()
            if not self._entered.done():
                self._entered.set_result({"problem": "it was killed on the way in", "errno": 0})

    async def _more(self, left: dict[int, int], *, ended: bool) -> bool:
        """Wait for more output; False when there will be none."""
        ready = self._loop.create_future()
        for descriptor in left:
            self._loop.add_reader(descriptor, settle, ready)
        end = self._loop.create_task(self.ended.wait())
        try:
            if not ended:
                await asyncio.wait({ready, end}, return_when=asyncio.FIRST_COMPLETED)
                return True
            if self._streams.terminal is not None:
                await asyncio.wait({ready}, timeout=_LINGER)
            return ready.done()
        finally:
            end.cancel()
            if not self._closed:
                for descriptor in left:
                    self._loop.remove_reader(descriptor)

    async def _writable(self, descriptor: int) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(descriptor, settle, ready)
        end = self._loop.create_task(self.ended.wait())
        try:
            await asyncio.wait({ready, end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
            if not self._closed:
                self._loop.remove_writer(descriptor)


def _read(descriptor: int) -> bytes | None:
    """Read what there is: None when there is nothing yet, nothing when it has ended."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # a terminal whose other end is closed
