"""What comes out of containers, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

import requests
from docker import errors

from crucible.runtimes.base import LogLine
from crucible.runtimes.docker.engine import shut
from crucible.runtimes.docker.held import unix_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    import docker

LONGEST: Final = 16 * 1024
"""Bytes of a line that are passed on."""
CUT: Final = b" [cut: the line is longer than is kept]"
_AHEAD: Final = 256
_POLL: Final = 0.05


def lines_of(frames: Iterable[bytes]) -> Iterator[LogLine]:
    """Join an engine's timed frames into lines.

    A long line comes in parts, each with a time; what goes beyond ``LONGEST`` is cut, and the line says so.
    """
    at, text, parts = 0.0, b"", 0
    for frame in frames:
        stamp, _, rest = frame.partition(b" ")
        at = at if parts else (unix_time(stamp.decode(errors="replace")) or 0.0)
        parts += 1
        text += rest[: LONGEST + 2 - len(text)]
        if rest.endswith(b"\n"):
            yield LogLine(at, _whole(text))
            text, parts = b"", 0
    if parts:
        yield LogLine(at, _whole(text))


def _whole(text: bytes) -> bytes:
    text = text.removesuffix(b"\n")
    return text if len(text) <= LONGEST else text[:LONGEST] + CUT


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
            self._cancel()

    def _read(self) -> None:
        container, tail, follow = self._ask
        # A stream that was closed by its reader, or a container that is gone: either way all is said.
        with contextlib.suppress(errors.DockerException, requests.RequestException, OSError, ValueError):
            self._stream = self._client.logs(
                container, stream=True, follow=follow, timestamps=True, tail="all" if tail is None else tail
            )
            if self._closed.is_set():
                self._cancel()  # closed while it was asked for: nobody else ends this stream
            for line in lines_of(self._stream):
                if not self._put(line):
                    break
        self._put(None)
        shut(self._stream)
        self._client.close()

    def _cancel(self) -> None:
        """Wake the thread that waits for the engine."""
        if self._stream is not None:
            with contextlib.suppress(errors.DockerException, OSError, AttributeError):
                self._stream.close()

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
