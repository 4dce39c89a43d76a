"""The wire format of the bus, version 1: frames to bytes and back. ``docs/wire.md`` is its reference.

Pure and quick: nothing here waits, and one frame costs a few microseconds. Whatever a decoder is fed, it
returns frames that keep every rule or raises :class:`BrokenFrame`; it never holds more than one frame's worth
of bytes. Needs nothing but the standard library.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION: Final = 1
NAME_LIMIT: Final = 255
HEADERS_LIMIT: Final = 4096
HEADER_COUNT: Final = 32
PAYLOAD_LIMIT: Final = 1024 * 1024
LONGEST_DEADLINE: Final = 86_400_000
"""Milliseconds: a day."""
LARGEST_CREDIT: Final = 1024
"""Items that may be on their way in one direction of a stream."""

_HEAD: Final = struct.Struct(">IBBBBIIHH")
HEAD_SIZE: Final = _HEAD.size
_LENGTH_SIZE: Final = 4
_SMALLEST: Final = HEAD_SIZE - _LENGTH_SIZE
LENGTH_LIMIT: Final = _SMALLEST + NAME_LIMIT + HEADERS_LIMIT + PAYLOAD_LIMIT
"""The largest value of the length field."""
_KEY: Final = re.compile(rb"[a-z0-9][a-z0-9-]{0,63}")
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1
    WELCOME = 2
    CALL = 3
    ANSWER = 4
    ERROR = 5
    CANCEL = 6
    ITEM = 7
    CREDIT = 8
    PUBLISH = 9
    SUBSCRIBE = 10
    UNSUBSCRIBE = 11
    MESSAGE = 12


class Priority(IntEnum):
    """How urgent a frame is; the smaller the more."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Code(StrEnum):
    """Why something was not done; the name of an ERROR frame."""

    MALFORMED = "Malformed"
    UNSUPPORTED_VERSION = "UnsupportedVersion"
    NOT_PERMITTED = "NotPermitted"
    NO_SUCH_PLUGIN = "NoSuchPlugin"
    NO_SUCH_METHOD = "NoSuchMethod"
    UNAVAILABLE = "Unavailable"
    OVERLOADED = "Overloaded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CANCELLED = "Cancelled"
    TOO_LARGE = "TooLarge"
    CONFLICT = "Conflict"
    NOT_FOUND = "NotFound"
    STORE_FULL = "StoreFull"
    FAILED = "Failed"


STREAM: Final = 1
"""Flag of a CALL: both sides may send items."""
LAST: Final = 2
"""Flag of an ITEM: the caller sends no more of them."""


class BrokenFrame(Exception):
    """Bytes that are no frame of this version; nothing after them can be read.

    Attributes:
        code: ``Malformed`` or ``TooLarge``.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Frame(NamedTuple):
    """One message.

    Attributes:
        kind: a :class:`Kind`.
        id: of the call or subscription; odd where a client chose it, even where the broker did.
        name: method, subject, pattern or error code.
        payload: any bytes; JSON by default.
        headers: lower-case names to text, in the order sent.
        priority: a :class:`Priority`.
        deadline: milliseconds left for a call; 0: the default.
        flags: :data:`STREAM`, :data:`LAST`.
    """

    kind: int
    id: int = 0
    name: str = ""
    payload: bytes = b""
    headers: Mapping[str, str] = _NO_HEADERS
    priority: int = Priority.NORMAL
    deadline: int = 0
    flags: int = 0


class _Shape(NamedTuple):
    """Which fields a kind uses; the others are zero or empty."""

    id: bool = True
    name: bool = False
    payload: bool = False
    deadline: bool = False
    flags: int = 0


_SHAPES: Final[Mapping[int, _Shape]] = {
    Kind.HELLO: _Shape(id=False, payload=True),
    Kind.WELCOME: _Shape(id=False, payload=True),
    Kind.CALL: _Shape(name=True, payload=True, deadline=True, flags=STREAM),
    Kind.ANSWER: _Shape(payload=True),
    Kind.ERROR: _Shape(name=True, payload=True),
    Kind.CANCEL: _Shape(),
    Kind.ITEM: _Shape(payload=True, flags=LAST),
    Kind.CREDIT: _Shape(payload=True),
    Kind.PUBLISH: _Shape(name=True, payload=True),
    Kind.SUBSCRIBE: _Shape(name=True),
    Kind.UNSUBSCRIBE: _Shape(),
    Kind.MESSAGE: _Shape(name=True, payload=True),
}
_ID_MAY_BE_ZERO: Final = frozenset({Kind.ERROR, Kind.PUBLISH})
"""An error of the connection itself, and a message nobody waits to be accepted."""


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        BrokenFrame: it breaks a rule, so that no decoder would take it.
    """
    kind, ident, name, payload, headers, priority, deadline, flags = frame
    try:
        name_bytes = name.encode("ascii")
    except UnicodeEncodeError:
        raise BrokenFrame(Code.MALFORMED, "the name holds more than ASCII") from None
    header_bytes = encode_headers(headers) if headers else b""
    _check(frame)
    if len(name_bytes) > NAME_LIMIT:
        raise BrokenFrame(Code.TOO_LARGE, f"the name is longer than {NAME_LIMIT} bytes")
    if len(payload) > PAYLOAD_LIMIT:
        raise BrokenFrame(Code.TOO_LARGE, f"the payload is larger than {PAYLOAD_LIMIT} bytes")
    length = _SMALLEST + len(name_bytes) + len(header_bytes) + len(payload)
    head = _HEAD.pack(length, kind, priority, flags, 0, ident, deadline, len(name_bytes), len(header_bytes))
    return b"".join((head, name_bytes, header_bytes, payload))


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return headers as they stand in a frame.

    Raises:
        BrokenFrame: too many, too long, or a name that is none.
    """
    parts = []
    for key, value in headers.items():
        key_bytes, value_bytes = key.encode(), value.encode()
        if _KEY.fullmatch(key_bytes) is None:
            raise BrokenFrame(Code.MALFORMED, f"{key[:64]!r} is no name of a header")
        if len(value_bytes) > HEADERS_LIMIT:
            raise BrokenFrame(Code.TOO_LARGE, f"header {key} is longer than {HEADERS_LIMIT} bytes")
        parts += [bytes((len(key_bytes),)), key_bytes, len(value_bytes).to_bytes(2, "big"), value_bytes]
    joined = b"".join(parts)
    if len(headers) > HEADER_COUNT or len(joined) > HEADERS_LIMIT:
        raise BrokenFrame(
            Code.TOO_LARGE, f"more than {HEADER_COUNT} headers, or {HEADERS_LIMIT} bytes of them"
        )
    return joined


def decode_headers(data: bytes) -> Mapping[str, str]:
    """Read headers as they stand in a frame.

    Raises:
        BrokenFrame: they are cut off, named twice, too many, or no text.
    """
    headers: dict[str, str] = {}
    at, end = 0, len(data)
    while at < end:
        key_end = at + 1 + data[at]
        value_at = key_end + 2
        value_end = value_at + int.from_bytes(data[key_end:value_at], "big")
        key = data[at + 1 : key_end]
        if value_at > end or value_end > end or _KEY.fullmatch(key) is None:
            raise BrokenFrame(Code.MALFORMED, "the headers are cut off, or one has a name that is none")
        if key.decode() in headers:
            raise BrokenFrame(Code.MALFORMED, f"header {key.decode()} is there twice")
        try:
            value = data[value_at:value_end].decode()
        except UnicodeDecodeError:
            raise BrokenFrame(Code.MALFORMED, "a header is no UTF-8") from None
        headers[key.decode()] = value
        at = value_end
        if len(headers) > HEADER_COUNT:
            raise BrokenFrame(Code.TOO_LARGE, f"more than {HEADER_COUNT} headers")
    return headers


def _check(frame: Frame) -> None:
    """Refuse a frame whose fields do not go together."""
    kind, ident, name, payload, _, priority, deadline, flags = frame
    shape = _SHAPES.get(kind)
    if shape is None:
        raise BrokenFrame(Code.MALFORMED, f"there is no kind {kind}")
    has_id, has_name, has_payload, has_deadline, known_flags = shape
    if priority > Priority.LOW:
        raise BrokenFrame(Code.MALFORMED, f"there is no priority {priority}")
    if flags & ~known_flags:
        raise BrokenFrame(Code.MALFORMED, f"flags {flags} mean nothing in kind {kind}")
    if (ident != 0) != has_id and not (ident == 0 and kind in _ID_MAY_BE_ZERO):
        raise BrokenFrame(Code.MALFORMED, f"kind {kind} has {'an' if has_id else 'no'} id")
    if bool(name) != has_name:
        raise BrokenFrame(Code.MALFORMED, f"kind {kind} has {'a' if has_name else 'no'} name")
    if not name.isprintable() or " " in name:
        raise BrokenFrame(Code.MALFORMED, "the name holds a space or a control character")
    if payload and not has_payload:
        raise BrokenFrame(Code.MALFORMED, f"kind {kind} has no payload")
    if deadline and not has_deadline:
        raise BrokenFrame(Code.MALFORMED, f"kind {kind} has no deadline")
    if deadline > LONGEST_DEADLINE:
        raise BrokenFrame(Code.MALFORMED, "the deadline is more than a day away")


def _read(data: bytes | bytearray | memoryview, at: int, length: int) -> Frame:
    """Read one whole frame that begins at ``at``."""
    _, kind, priority, flags, reserved, ident, deadline, name_size, headers_size = _HEAD.unpack_from(data, at)
    name_at = at + HEAD_SIZE
    headers_at = name_at + name_size
    payload_at = headers_at + headers_size
    end = at + _LENGTH_SIZE + length
    if name_size > NAME_LIMIT or headers_size > HEADERS_LIMIT or end - payload_at > PAYLOAD_LIMIT:
        raise BrokenFrame(Code.TOO_LARGE, "the name, the headers or the payload is too long")
    if payload_at > end or reserved:
        raise BrokenFrame(Code.MALFORMED, "the fields do not fit the length, or the reserved byte is not 0")
    try:
        name = str(data[name_at:headers_at], "ascii")
    except UnicodeDecodeError:
        raise BrokenFrame(Code.MALFORMED, "the name holds more than ASCII") from None
    headers = decode_headers(bytes(data[headers_at:payload_at])) if headers_size else _NO_HEADERS
    frame = Frame(kind, ident, name, bytes(data[payload_at:end]), headers, priority, deadline, flags)
    _check(frame)
    return frame


def frames_of(data: bytes, most: int = 2**31) -> Iterator[Frame]:
    """Yield the frames that bytes hold which came as one; what is not whole at their end is none.

    Raises:
        BrokenFrame: the bytes are no frame of this version, or more than so many.
    """
    at, size, left = 0, len(data), most
    while size - at >= _LENGTH_SIZE:
        if not left:
            raise BrokenFrame(Code.TOO_LARGE, f"more than {most} frames at once")
        left -= 1
        length = int.from_bytes(data[at : at + _LENGTH_SIZE], "big")
        _check_length(length)
        if size - at < _LENGTH_SIZE + length:
            return
        yield _read(data, at, length)
        at += _LENGTH_SIZE + length


def _check_length(length: int) -> None:
    if length > LENGTH_LIMIT:
        raise BrokenFrame(Code.TOO_LARGE, f"a frame of {length} bytes; at most {LENGTH_LIMIT} are taken")
    if length < _SMALLEST:
        raise BrokenFrame(Code.MALFORMED, f"a frame of {length} bytes is shorter than its own head")


class Decoder:
    """Takes bytes as they come in and yields whole frames.

    After :class:`BrokenFrame` it yields nothing more: where the next frame begins is not known.

    Attributes:
        more: it stopped at a limit; feeding nothing may yield more.
    """

    __slots__ = ("_broken", "_kept", "more")

    def __init__(self) -> None:
        self.more = False
        self._kept = bytearray()
        self._broken = False

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._kept)

    @property
    def held(self) -> int:
        """Bytes of memory that are taken for it; 0 when nothing waits."""
        return self._kept.__alloc__() if self._kept else 0

    def end(self) -> None:
        """Give up what waits, and yield nothing more."""
        self._broken = True
        self._kept = bytearray()

    def feed(self, chunk: bytes | bytearray | memoryview, limit: int = 2**31) -> Iterator[Frame]:
        """Yield the frames that are whole now, up to a limit; take all of them before feeding again.

        Raises:
            BrokenFrame: the bytes are no frame of this version.
        """
        if self._broken:
            return
        kept = self._kept
        if kept:
            kept += chunk
        data = kept or chunk
        at, size = 0, len(data)
        try:
            while limit and size - at >= _LENGTH_SIZE:
                length = int.from_bytes(data[at : at + _LENGTH_SIZE], "big")
                _check_length(length)
                if size - at < _LENGTH_SIZE + length:
                    break
                frame = _read(data, at, length)
                at += _LENGTH_SIZE + length
                limit -= 1
                yield frame
        except BrokenFrame:
            self._broken = True
            self._kept = bytearray()
            raise
        self.more = not limit
        if kept:
            del kept[:at]
        else:
            kept += data[at:]


RESERVED_HEADERS: Final = frozenset({"from", "instance", "missed"})
"""Headers that the broker alone sets."""


def error(ident: int, code: Code, message: str, headers: Mapping[str, str] = _NO_HEADERS) -> Frame:
    """Return the frame that says why something was not done."""
    return Frame(Kind.ERROR, ident, code.value, message.encode(errors="replace")[:PAYLOAD_LIMIT], headers)


def credit(ident: int, items: int) -> Frame:
    """Return the frame that lets the other side send so many more items."""
    return Frame(Kind.CREDIT, ident, payload=items.to_bytes(4, "big"))


def credit_of(frame: Frame) -> int:
    """Return how many items a CREDIT frame grants.

    Raises:
        BrokenFrame: it is no number from 1 to :data:`LARGEST_CREDIT`.
    """
    items = int.from_bytes(frame.payload, "big")
    if len(frame.payload) != _LENGTH_SIZE or not 1 <= items <= LARGEST_CREDIT:
        raise BrokenFrame(Code.MALFORMED, f"a credit is 4 bytes and from 1 to {LARGEST_CREDIT}")
    return items
