"""How an engine's answers are read, in whatever pieces they come."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from crucible.runtimes.docker.transport import Answer, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\n"


class Peer:
    """Answers what is asked with these bytes, one connection's after the other's; keeps what was asked."""

    def __init__(self, path: Path, connections: Sequence[Sequence[bytes]]) -> None:
        self.asked: list[bytes] = []
        self._connections = connections
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(60)
        self._listener.bind(str(path))
        self._listener.listen()
        self.ended = threading.Event()

    def serve(self) -> None:
        with self._listener:
            for answers in self._connections:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(60)
                    for answer in answers:
                        self.asked.append(connection.recv(1 << 16))
                        with suppress(OSError):  # whoever asked has heard enough
                            for byte in range(0, len(answer), 7):  # in pieces
                                connection.sendall(answer[byte : byte + 7])
                self.ended.set()


@contextmanager
def peer(place: Path, *connections: Sequence[bytes]) -> Iterator[tuple[Peer, Transport]]:
    path = place / "engine.sock"
    made = Peer(path, connections)
    thread = threading.Thread(target=made.serve)
    thread.start()
    transport = Transport(str(path))
    try:
        yield made, transport
    finally:
        transport.close()
        thread.join()


def ask(transport: Transport, method: str = "GET", body: bytes = b"", patience: float | None = 60) -> Answer:
    return transport.ask(method, "/x?y=1", {"X-Own": "z"}, body, patience)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(b"Content-Length: 5\r\n\r\nhello", b"hello", id="of a known length"),
        pytest.param(b"content-LENGTH: 0\r\n\r\n", b"", id="empty"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nC\r\n and \r\n more\r\n0\r\n\r\n",
            b"hello and \r\n more",
            id="in chunks",
        ),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: 1\r\n\r\n", b"a", id="with trailers"
        ),
    ],
)
def test_answers_are_read_whole_and_their_connection_asked_again(
    tmp_path: Path, answer: bytes, body: bytes
) -> None:
    with peer(tmp_path, [HEAD + answer] * 3) as (_, transport):
        for _ in range(3):
            assert ask(transport).body == body


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HEAD + b"\r\nall of it", id="to the end of the connection"),
        pytest.param(HEAD + b"Connection: close\r\nContent-Length: 9\r\n\r\nall of it", id="the last one"),
    ],
)
def test_a_connection_that_ends_is_not_asked_again(tmp_path: Path, answer: bytes) -> None:
    with peer(tmp_path, [answer], [answer]) as (_, transport):
        for _ in range(2):
            assert ask(transport).body == b"all of it"


def test_a_connection_that_the_engine_ended_meanwhile_is_made_anew(tmp_path: Path) -> None:
    answer = HEAD + b"Content-Length: 2\r\n\r\nok"
    with peer(tmp_path, [answer], [answer]) as (made, transport):
        assert ask(transport).body == b"ok"
        assert made.ended.wait(60)
        assert ask(transport).body == b"ok"


def test_a_connection_that_is_answered_after_the_close_is_closed(tmp_path: Path) -> None:
    answer = HEAD + b"Content-Length: 2\r\n\r\nok"
    with peer(tmp_path, [answer], [answer]) as (_, transport):
        transport.close()
        for _ in range(2):  # each on a connection of its own
            assert ask(transport).body == b"ok"


def test_what_is_asked_is_sent_as_it_is(tmp_path: Path) -> None:
    nothing = b"HTTP/1.1 204 No Content\r\n\r\n"
    with peer(tmp_path, [nothing, nothing, b"HTTP/1.1 100 Continue\r\n\r\n" + nothing]) as (made, transport):
        answers = [ask(transport), ask(transport, "POST"), ask(transport, "POST", b"\xc3\xa4")]
    assert [(each.status, each.reason, each.body) for each in answers] == [(204, "No Content", b"")] * 3
    head = b" /x?y=1 HTTP/1.1\r\nHost: localhost\r\nX-Own: z\r\n"
    assert made.asked == [
        b"GET" + head + b"\r\n",
        b"POST" + head + b"Content-Length: 0\r\n\r\n",
        b"POST" + head + b"Content-Length: 2\r\n\r\n\xc3\xa4",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD + b"Content-Len", id="half a head"),
        pytest.param(HEAD + b"Content-Length: 9\r\n\r\nhalf", id="half a body"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf", id="half a chunk"),
        pytest.param(HEAD + b"Content-Length: many\r\n\r\n", id="no length"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", id="a length below nothing"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", id="no length of a chunk"),
        pytest.param(b"SSH-2.0-dropbear\r\n\r\n", id="another protocol"),
        pytest.param(HEAD + b"X: " + b"x" * (1 << 17), id="a head without an end"),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_the_connection(tmp_path: Path, answer: bytes) -> None:
    with peer(tmp_path, [answer]) as (_, transport), pytest.raises(ConnectionAbortedError, match="aborted"):
        ask(transport)


def test_an_engine_that_says_nothing_is_waited_for_only_so_long(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "engine.sock"))
        listener.listen()
        with pytest.raises(TimeoutError):
            ask(Transport(str(tmp_path / "engine.sock")), patience=0.01)


def test_an_engine_that_is_not_there_is_said_by_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ask(Transport(str(tmp_path / "engine.sock")))
