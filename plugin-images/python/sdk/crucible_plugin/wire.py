"""The wire of the bus, version 1, as a client speaks it: frames to bytes and back.

The broker checks what is sent; what it sends is taken at its word.
"""

from __future__ import annotations

import struct

from crucible_plugin.errors import Malformed, TooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

(HELLO, WELCOME, CALL, ANSWER, ERROR, CANCEL, ITEM, CREDIT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, MESSAGE) = range(
    1, 13
)
CRITICAL, HIGH, NORMAL, LOW = range(4)
STREAM, LAST = 1, 2
PAYLOAD_LIMIT = 1024 * 1024
LONGEST_DEADLINE = 86_400_000

_HEAD = struct.Struct(">IBBBBIIHH")
_LENGTH = 4
_SMALLEST = _HEAD.size - _LENGTH
_LARGEST = _SMALLEST + 255 + 4096 + PAYLOAD_LIMIT
_NAME_LIMIT = 255
_HEADERS_LIMIT = 4096


class Frame:
    """One message."""

    __slots__ = ("deadline", "flags", "headers", "id", "kind", "name", "payload", "priority")

    def __init__(  # noqa: PLR0913, PLR0917 - a frame has so many fields
        self,
        kind: int,
        id: int = 0,  # noqa: A002 - the wire's name
        name: str = "",
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        priority: int = NORMAL,
        deadline: int = 0,
        flags: int = 0,
    ) -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.payload = payload
        self.headers = headers or {}
        self.priority = priority
        self.deadline = deadline
        self.flags = flags


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        TooLarge: a field is larger than its limit.
        Malformed: the name holds more than ASCII.
    """
    try:
        name = frame.name.encode("ascii")
    except UnicodeEncodeError:
        raise Malformed(f"{frame.name!r} holds more than ASCII") from None
    headers = _encode_headers(frame.headers) if frame.headers else b""
    payload = frame.payload
    if len(name) > _NAME_LIMIT or len(headers) > _HEADERS_LIMIT or len(payload) > PAYLOAD_LIMIT:
        raise TooLarge(
            f"name, headers and payload: {_NAME_LIMIT}, {_HEADERS_LIMIT} and {PAYLOAD_LIMIT} bytes at most"
        )
    head = _HEAD.pack(
        _SMALLEST + len(name) + len(headers) + len(payload),
        *(frame.kind, frame.priority, frame.flags, 0, frame.id, frame.deadline, len(name), len(headers)),
    )
    return b"".join((head, name, headers, payload))


def _encode_headers(headers: Mapping[str, str]) -> bytes:
    parts = []
    for key, value in headers.items():
        name, text = key.encode(), value.encode()
        if not 0 < len(name) <= 64 or len(text) > _HEADERS_LIMIT:  # noqa: PLR2004 - the wire's figure
            raise TooLarge(f"header {key}: its name or its value is too long")
        parts += [bytes((len(name),)), name, len(text).to_bytes(2, "big"), text]
    return b"".join(parts)


def _decode_headers(data: bytes) -> dict[str, str]:
    headers = {}
    at = 0
    while at < len(data):
        value_at = at + 3 + data[at]
        key = data[at + 1 : value_at - 2].decode()
        end = value_at + int.from_bytes(data[value_at - 2 : value_at], "big")
        headers[key] = data[value_at:end].decode()
        at = end
    return headers


class Decoder:
    """Takes bytes as they come in and yields whole frames."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole now.

        Raises:
            Malformed: this is not a broker.
        """
        kept = self._kept
        data: bytes | bytearray = chunk
        if kept:
            kept += chunk
            data = kept
        at, size = 0, len(data)
        while size - at >= _HEAD.size:
            head = _HEAD.unpack_from(data, at)
            length, kind, priority, flags, _, ident, deadline, name_size, headers_size = head
            if not _SMALLEST <= length <= _LARGEST:
                raise Malformed(f"a frame of {length} bytes")
            end = at + _LENGTH + length
            if size < end:
                break
            name_at = at + _HEAD.size
            headers_at = name_at + name_size
            payload_at = headers_at + headers_size
            headers = _decode_headers(bytes(data[headers_at:payload_at])) if headers_size else None
            name = data[name_at:headers_at].decode()
            at = end
            payload = bytes(data[payload_at:end])
            yield Frame(kind, ident, name, payload, headers, priority, deadline, flags)
        if kept:
            del kept[:at]
        else:
            kept += data[at:]


def error(ident: int, code: str, message: str, priority: int = NORMAL) -> Frame:
    """Return the frame that says why something was not done."""
    return Frame(ERROR, ident, code, message.encode()[:PAYLOAD_LIMIT], priority=priority)
