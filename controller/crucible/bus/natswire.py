"""What a NATS server and its client say to each other: bytes to messages and back. Pure.

Only what the backbone uses, and strictly: a server that says anything else is no server of ours. There is a
client library for Python; ``make bench ONLY=backbone`` prints what it costs beside this.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LINE_LIMIT: Final = 64 * 1024
"""Bytes of a control line; INFO is the longest."""
PAYLOAD_LIMIT: Final = 8 * 1024 * 1024
PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"
_END: Final = b"\r\n"


class Message(NamedTuple):
    """Something that was published.

    Attributes:
        subject: to which.
        sid: our subscription that it fits.
        payload: what.
        reply: subject of who waits for an answer; empty: nobody.
        status: of a server's own word, as in HTTP; 0 for all else.
    """

    subject: str
    sid: int
    payload: bytes
    reply: str = ""
    status: int = 0


class Info(NamedTuple):
    """How a server introduces itself."""

    fields: Mapping[str, Any]


class Refusal(NamedTuple):
    """The server did not like something; most often it ends the connection after it."""

    why: str


class Asked(NamedTuple):
    """The server wants to know whether we are there."""


class Reached(NamedTuple):
    """The server has done all that we said before we asked whether it is there."""


Said = Message | Info | Refusal | Asked | Reached


class BrokenLine(Exception):
    """Bytes that no NATS server says; nothing after them can be read."""


def connect(name: str) -> bytes:
    """Return the first words of a client; who it is follows from its certificate."""
    words = {
        "verbose": False,
        "pedantic": False,
        "tls_required": True,
        "name": name,
        "lang": "crucible",
        "version": "1",
        "protocol": 1,
        "echo": False,
        "headers": True,
        "no_responders": True,
    }
    return b"CONNECT " + json.dumps(words, separators=(",", ":")).encode() + _END + PING


def publish(subject: str, payload: bytes, reply: str = "") -> bytes:
    """Return the words that publish something."""
    to = f"{subject} {reply}" if reply else subject
    return b"PUB %s %d\r\n%s\r\n" % (to.encode(), len(payload), payload)


def publish_with(subject: str, payload: bytes, reply: str, headers: Mapping[str, str]) -> bytes:
    """Return the words that publish something with headers, which tell a stream how to take it."""
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    head = f"NATS/1.0\r\n{lines}\r\n".encode()
    total = len(head) + len(payload)
    return b"HPUB %s %s %d %d\r\n%s%s\r\n" % (
        subject.encode(),
        reply.encode(),
        len(head),
        total,
        head,
        payload,
    )


def subscribe(subject: str, sid: int) -> bytes:
    """Return the words that subscribe."""
    return f"SUB {subject} {sid}\r\n".encode()


def unsubscribe(sid: int) -> bytes:
    """Return the words that end a subscription."""
    return f"UNSUB {sid}\r\n".encode()


class Parser:
    """Takes bytes as they come in and yields what was said."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, chunk: bytes) -> Iterator[Said]:
        """Yield what is whole now; take all of it before feeding again.

        Raises:
            BrokenLine: no NATS server says this.
        """
        data = self._kept + chunk if self._kept else chunk
        at = 0
        while True:
            end = data.find(_END, at)
            if end < 0:
                if len(data) - at > LINE_LIMIT:
                    raise BrokenLine("a line without an end")
                break
            found = _read(data, at, end)
            if found is None:
                break
            said, at = found
            if said is not None:
                yield said
        self._kept = data[at:]


def _read(data: bytes, at: int, end: int) -> tuple[Said | None, int] | None:
    """Read what begins at ``at`` and whose first line ends at ``end``; None when it is not whole."""
    line = data[at:end]
    verb, _, rest = line.partition(b" ")
    after = end + len(_END)
    match verb:
        case b"MSG" | b"HMSG":
            return _message(data, rest, after, headers=verb == b"HMSG")
        case b"PING":
            return Asked(), after
        case b"PONG":
            return Reached(), after
        case b"INFO":
            return Info(_object(rest)), after
        case b"-ERR":
            return Refusal(rest.decode("ascii", "replace").strip(" '")), after
        case b"+OK":
            return None, after
        case _:
            raise BrokenLine(f"an unknown word {verb[:20]!r}")


def _message(data: bytes, rest: bytes, after: int, *, headers: bool) -> tuple[Message, int] | None:
    try:
        words = rest.decode("ascii").split(" ")
        subject, sid, *reply = words[: -2 if headers else -1]
        size = int(words[-1])
        head = int(words[-2]) if headers else 0
        known = int(sid)
    except (ValueError, IndexError):
        raise BrokenLine(f"a message of a kind that is none: {rest[:80]!r}") from None
    if not 0 <= head <= size <= PAYLOAD_LIMIT or len(reply) > 1:
        raise BrokenLine(f"a message of {size} bytes, or with too many words")
    end = after + size
    if len(data) < end + len(_END):
        return None
    if data[end : end + len(_END)] != _END:
        raise BrokenLine("a message longer than it says")
    status = _status(data[after : after + head]) if headers else 0
    message = Message(subject, known, data[after + head : end], reply[0] if reply else "", status)
    return message, end + len(_END)


def _status(head: bytes) -> int:
    """Return the status in a message's headers; 0: it has none."""
    words = head.partition(_END)[0].split(b" ")
    if words[0] != b"NATS/1.0":
        raise BrokenLine("headers that are none")
    return int(words[1]) if len(words) > 1 and words[1].isdigit() and len(words[1]) == 3 else 0  # noqa: PLR2004


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BrokenLine("an introduction that is no object")
    return found
