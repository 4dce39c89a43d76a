"""HTTP/1.1 over an engine's Unix socket, for requests whose answer is read whole: the few words that takes.

The SDK's own way is made for any server there is. Preparing, sending and reading one request by it takes
several times the processor time of this, and a start is two requests.
"""

from __future__ import annotations

import contextlib
import select
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_AT_ONCE: Final = 1 << 16
_HEAD_MOST: Final = 1 << 16
_BODILESS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine answered.

    Attributes:
        status: of HTTP.
        reason: the words beside it.
        headers: by lower-case name.
        body: all of it.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Connections that threads take turns on: the one that asks has one for itself until it is answered."""

    def __init__(self, path: str) -> None:
        """Connect to nothing yet.

        Args:
            path: of the socket.
        """
        self._path = path
        self._idle: list[socket.socket] = []
        self._closed = False

    def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, patience: float | None
    ) -> Answer:
        """Send one request, and return its answer.

        Args:
            method: the verb.
            target: path and query.
            headers: beside those that say how it is sent.
            body: empty for none.
            patience: seconds to wait for each part of the answer; None: for ever.

        Raises:
            OSError: there is none; ``TimeoutError`` where the engine says nothing for too long.
        """
        words = [f"{method} {target} HTTP/1.1", "Host: localhost"]
        words += [f"{name}: {value}" for name, value in headers.items()]
        if body or method != "GET":
            words.append(f"Content-Length: {len(body)}")
        connection = self._connection(patience)
        try:
            connection.sendall("\r\n".join((*words, "", "")).encode("latin-1") + body)
            answer, goes_on = _Reader(connection).answer(method)
        except BaseException:
            connection.close()
            raise
        if goes_on:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            self.close()
        return answer

    def close(self) -> None:
        """Close what nobody uses now, and each other once it is answered."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _connection(self, patience: float | None) -> socket.socket:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not _readable(connection):
                    connection.settimeout(patience)
                    return connection
                connection.close()  # the engine has ended it, or restarted
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(patience)
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        return connection


class _Reader:
    """Reads one answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = bytearray()

    def answer(self, method: str) -> tuple[Answer, bool]:
        """Return the answer, and whether the connection can be used again.

        Raises:
            OSError: it does not come whole, or is no answer.
        """
        status = 100
        while 100 <= status < 200:  # noqa: PLR2004 - what comes before the answer
            line, *lines = self._head()
            version, _, rest = line.partition(" ")
            code, _, reason = rest.partition(" ")
            if not (version.startswith("HTTP/1.") and code.isdecimal()):
                raise ConnectionAbortedError(f"aborted: what answers speaks no HTTP: {line!r:.80}")
            status = int(code)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
        }
        ends = True
        if method == "HEAD" or status in _BODILESS:
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(_number(headers["content-length"], 10))
        else:
            body, ends = self._rest(), False
        goes_on = ends and not self._read and "close" not in headers.get("connection", "").lower()
        return Answer(status, reason, headers, body), goes_on

    def _head(self) -> list[str]:
        return self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")

    def _chunks(self) -> bytes:
        whole = bytearray()
        while size := _number(self._until(b"\r\n").partition(b";")[0].decode("latin-1"), 16):
            whole += self._exactly(size)
            self._exactly(2)
        while self._until(b"\r\n"):  # trailers, of which nothing is made
            pass
        return bytes(whole)

    def _until(self, mark: bytes) -> bytes:
        while (at := self._read.find(mark)) < 0:
            if len(self._read) > _HEAD_MOST:
                raise ConnectionAbortedError("aborted: the head of an answer has no end")
            self._more()
        found = bytes(self._read[:at])
        del self._read[: at + len(mark)]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        found = bytes(self._read[:size])
        del self._read[:size]
        return found

    def _rest(self) -> bytes:
        while data := self._connection.recv(_AT_ONCE):
            self._read += data
        return bytes(self._read)

    def _more(self) -> None:
        data = self._connection.recv(_AT_ONCE)
        if not data:
            raise ConnectionAbortedError("aborted: the engine ended the connection before its answer")
        self._read += data


def _readable(connection: socket.socket) -> bool:
    """Whether something came, or the end did, though nothing was asked."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _number(word: str, base: int) -> int:
    try:
        number = int(word, base)
    except ValueError:
        number = -1
    if number < 0:
        raise ConnectionAbortedError(f"aborted: {word!r:.40} is no length")
    return number
