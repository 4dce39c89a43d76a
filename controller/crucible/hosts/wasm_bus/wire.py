"""Frames of the bus, as docs/wire.md has them: to bytes and back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HELLO, WELCOME, CALL, ANSWER, ERROR, CANCEL, ITEM, CREDIT, PUBLISH, SUBSCRIBE, _, MESSAGE = range(1, 13)
STREAM, LAST = 1, 2
HIGH, NORMAL = 1, 2
LONGEST_DEADLINE: Final = 86_400_000
PAYLOAD_LIMIT: Final = 1024 * 1024
_NAME_LIMIT: Final = 255
_HEADERS_LIMIT: Final = 4096
_HEAD: Final = struct.Struct(">IBBBBIIHH")
_SMALLEST: Final = _HEAD.size - 4
_LARGEST: Final = _SMALLEST + _NAME_LIMIT + _HEADERS_LIMIT + PAYLOAD_LIMIT


class Frame(NamedTuple):
    """One message."""

    kind: int
    id: int = 0
    name: str = ""
    payload: bytes = b""
    headers: Mapping[str, str] = {}
    priority: int = NORMAL
    deadline: int = 0
    flags: int = 0


class Failure(Exception):
    """Something was not done; the code, and why."""

    def __init__(self, code: str, why: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(why)
        self.code = code
        self.headers = headers


class Away(Failure):
    """The broker cannot be reached now; it may be in a while."""

    def __init__(self, why: str) -> None:
        super().__init__("Unavailable", why)


def failure_of(frame: Frame) -> Failure:
    """Return what an ERROR says."""
    return Failure(frame.name, frame.payload.decode(errors="replace"), frame.headers)


def error(ident: int, code: str, why: str, priority: int = NORMAL) -> Frame:
    """Return the end of a call that could not be done."""
    return Frame(ERROR, ident, code, why.encode(errors="replace"), priority=priority)


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        Failure: a field is larger than its limit, or is not of ASCII where it has to be.
    """
    try:
        pairs = b"".join(_pair(key, value) for key, value in frame.headers.items())
        name = frame.name.encode("ascii")
    except (UnicodeEncodeError, OverflowError, ValueError):
        raise Failure("Malformed", "a name is ASCII; one of a header 64 bytes at most") from None
    sizes = (len(name), len(pairs), len(frame.payload))
    if any(
        size > limit for size, limit in zip(sizes, (_NAME_LIMIT, _HEADERS_LIMIT, PAYLOAD_LIMIT), strict=True)
    ):
        raise Failure("TooLarge", "name, headers and payload: 255, 4096 and 1048576 bytes at most")
    numbers = (_SMALLEST + sum(sizes), frame.kind, frame.priority, frame.flags, 0, frame.id, frame.deadline)
    return _HEAD.pack(*numbers, len(name), len(pairs)) + name + pairs + frame.payload


def _pair(key: str, value: str) -> bytes:
    name, text = key.encode("ascii"), value.encode()
    return bytes((len(name),)) + name + len(text).to_bytes(2, "big") + text


def decode(kept: bytearray) -> Frame | None:
    """Take the first frame from what came in; None while it is not whole.

    Raises:
        Failure: these bytes are no frame.
    """
    if len(kept) < _HEAD.size:
        return None
    length, kind, priority, flags, _, ident, deadline, name_size, headers_size = _HEAD.unpack_from(kept)
    names = _HEAD.size + name_size
    payload = names + headers_size
    if not _SMALLEST <= length <= _LARGEST or payload > 4 + length:
        raise Failure("Unavailable", "what came is no frame of the bus")
    if len(kept) < 4 + length:
        return None
    name, pairs = bytes(kept[_HEAD.size : names]), bytes(kept[names:payload])
    content = bytes(kept[payload : 4 + length])
    del kept[: 4 + length]
    return Frame(
        kind, ident, name.decode(errors="replace"), content, _headers(pairs), priority, deadline, flags
    )


def _headers(pairs: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    while pairs:
        value = 3 + pairs[0]
        end = value + int.from_bytes(pairs[value - 2 : value], "big")
        if end > len(pairs):
            raise Failure("Unavailable", "what came is no frame of the bus")
        found[pairs[1 : value - 2].decode(errors="replace")] = pairs[value:end].decode(errors="replace")
        pairs = pairs[end:]
    return found
