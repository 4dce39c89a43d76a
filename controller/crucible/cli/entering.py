"""Runs a command inside an instance over a WebSocket, in the protocol that kubectl speaks (v5)."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import signal
import sys
import termios
import threading
import tty as terminals
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import aiohttp

from crucible.cli.terminal import harmless
from crucible.control.websocket import websocket
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.control.kubeconfig import Endpoint

_PROTOCOL: Final = "v5.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK: Final = 1 << 15


@dataclass(frozen=True, slots=True)
class Entry:
    """A command to run.

    Attributes:
        path: of the instance's ``exec`` in the API.
        command: the program and its arguments.
        stdin: send it what comes on standard input.
        tty: give it a terminal, and this one to it.
    """

    path: str
    command: tuple[str, ...]
    stdin: bool
    tty: bool

    @property
    def query(self) -> str:
        """What to ask of the API."""
        flags = {"stdin": self.stdin, "stdout": True, "stderr": not self.tty, "tty": self.tty}
        words = [("command", word) for word in self.command]
        return urlencode([*words, *((name, "true") for name, holds in flags.items() if holds)])


def enter(endpoint: Endpoint, entry: Entry) -> int:
    """Run a command, its streams joined to this program's; return its exit code.

    Raises:
        CrucibleError: as the server says; ``Unavailable`` where nothing answers or it hangs up.
    """
    with _raw() if entry.tty else nullcontext():
        return asyncio.run(_enter(endpoint, entry))


async def _enter(endpoint: Endpoint, entry: Entry) -> int:
    async with websocket(endpoint, f"{entry.path}?{entry.query}", _PROTOCOL) as link:
        return await _converse(link, entry, endpoint.server)


async def _converse(link: aiohttp.ClientWebSocketResponse, entry: Entry, server: str) -> int:
    loop = asyncio.get_running_loop()
    if entry.tty:
        await _send_size(link)
        loop.add_signal_handler(signal.SIGWINCH, lambda: loop.create_task(_send_size(link)))
    if entry.stdin:
        threading.Thread(target=_read_input, args=(loop, link), daemon=True).start()
    writers = {_STDOUT: _Writer(sys.stdout.fileno(), raw=entry.tty), _STDERR: _Writer(2, raw=entry.tty)}
    async for message in link:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STATUS:
            return _code_of(json.loads(data))
        if channel in writers:
            writers[channel].write(data)
    raise Unavailable(f"{server} hung up before the command had ended")


class _Writer:
    """Writes to a stream: as it is, unless that is a terminal which is not the command's own."""

    def __init__(self, descriptor: int, *, raw: bool) -> None:
        self._descriptor = descriptor
        self._raw = raw or not os.isatty(descriptor)
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace").decode

    def write(self, data: bytes) -> None:
        """Write all of it."""
        left = data if self._raw else harmless(self._decode(data)).encode()
        while left:
            left = left[os.write(self._descriptor, left) :]


def _read_input(loop: asyncio.AbstractEventLoop, link: aiohttp.ClientWebSocketResponse) -> None:
    """Send standard input until it ends; each piece is taken before the next is read."""
    while True:
        chunk = os.read(0, _CHUNK)
        frame = bytes([_STDIN]) + chunk if chunk else bytes([_CLOSE, _STDIN])
        try:
            asyncio.run_coroutine_threadsafe(link.send_bytes(frame), loop).result()
        except (RuntimeError, ConnectionError, asyncio.CancelledError):
            return  # the command has ended
        if not chunk:
            return


async def _send_size(link: aiohttp.ClientWebSocketResponse) -> None:
    size = os.get_terminal_size(0)
    with suppress(ConnectionError):
        told = json.dumps({"Width": size.columns, "Height": size.lines}).encode()
        await link.send_bytes(bytes([_RESIZE]) + told)


def _code_of(status: dict[str, Any]) -> int:
    """Read how the command ended.

    Raises:
        Unavailable: it did not end by itself.
    """
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise Unavailable(str(status.get("message") or "the command was not run to its end"))


@contextmanager
def _raw() -> Iterator[None]:
    """Hand every key through, and put the terminal back afterwards."""
    before = termios.tcgetattr(0)
    terminals.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
