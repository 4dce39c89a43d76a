"""Reads the head of a request to a proxy, and writes the one that goes on. Pure, strict, and bounded.

What two readers could understand in two ways is refused: that is how a request is smuggled past a proxy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from crucible.model.egress import is_name

if TYPE_CHECKING:
    from crucible.core.egress import Address

HEAD_MOST: Final = 1 << 14
"""Bytes of the largest head."""
_HEADERS_MOST: Final = 100
_LENGTH_MOST: Final = 1 << 53
_PORT_MOST: Final = 65535
_HTTP_PORT: Final = 80
_END: Final = b"\r\n\r\n"

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_HEADER: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_ABSOLUTE: Final = re.compile(r"http://([^/?#@\\]+)(/[^#]*|\?[^#]*|)")
_DIGITS: Final = re.compile(rb"[0-9]{1,16}")

_HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"upgrade", b"host"),
    }
)
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})


class Malformed(Exception):
    """What came is no request that can be served: the status to answer with, and why."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection is to go: a name or an address, and a port."""

    host: str | Address
    port: int

    def __str__(self) -> str:
        """``host:port``, as a rule writes it."""
        bare = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        return f"{bare}:{self.port}"


@dataclass(frozen=True, slots=True)
class Head:
    """A request that can be served.

    Attributes:
        target: where it goes.
        onward: what is sent there first; empty for a tunnel.
        length: bytes of the body; None for one in chunks.
    """

    target: Target
    onward: bytes = b""
    length: int | None = 0

    @property
    def tunnel(self) -> bool:
        """Whether all that follows is passed on unread."""
        return not self.onward


def read_head(data: bytes) -> tuple[Head, bytes] | None:
    """Read a head; return it and what came after it, None where more has to come first.

    Raises:
        Malformed: it is none, or too large.
    """
    end = data.find(_END)
    if end < 0:
        if len(data) > HEAD_MOST:
            raise Malformed("the request's head is too large", 431)
        return None
    if end > HEAD_MOST:
        raise Malformed("the request's head is too large", 431)
    first, *lines = data[:end].split(b"\r\n")
    found = _REQUEST.fullmatch(first)
    if found is None:
        raise Malformed("the first line is no request")
    method, words, minor = found.groups()
    headers = _headers(lines)
    rest = data[end + len(_END) :]
    if method == b"CONNECT":
        return _tunnel(words.decode(), headers), rest
    return _forward(method, words.decode(), minor, headers), rest


def read_target(text: str, default_port: int | None = None) -> Target:
    """Read ``host:port``.

    Raises:
        Malformed: it is none.
    """
    host, colon, digits = text.rpartition(":")
    if not colon or text.endswith("]"):
        if default_port is None:
            raise Malformed(f"{text[:300]!r} names no port")
        host, digits = text, str(default_port)
    if not (digits.isascii() and digits.isdecimal()) or not 1 <= int(digits[:6]) <= _PORT_MOST:
        raise Malformed(f"{text[:300]!r} names no port")
    return Target(read_host(host), int(digits))


def read_host(text: str) -> str | Address:
    """Read a name, or an address in its one plain spelling.

    Raises:
        Malformed: it is neither.
    """
    try:
        if text.startswith("[") and text.endswith("]"):
            if "%" in text:
                raise Malformed("an address with a zone leads nowhere from here")
            return IPv6Address(text[1:-1])
        name = text.lower().removesuffix(".")
        if is_name(name):
            return name
        return IPv4Address(text)
    except AddressValueError:
        raise Malformed(f"{text[:300]!r} is neither a host name nor an address") from None


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    if len(lines) > _HEADERS_MOST:
        raise Malformed("too many headers", 431)
    headers = []
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Malformed("a header cannot be read")
        headers.append((found[1].lower(), found[2].strip(b" \t")))
    return headers


def _tunnel(words: str, headers: list[tuple[bytes, bytes]]) -> Head:
    target = read_target(words)
    for name, value in headers:
        if name in {b"content-length", b"transfer-encoding"} and value != b"0":
            raise Malformed("a CONNECT request has no body")
    _agree(target, headers, target.port)
    return Head(target)


def _forward(method: bytes, words: str, minor: bytes, headers: list[tuple[bytes, bytes]]) -> Head:
    found = _ABSOLUTE.fullmatch(words)
    if found is None:
        raise Malformed("this is a proxy: ask for http://host/path, and reach https by CONNECT")
    target = read_target(found[1], _HTTP_PORT)
    _agree(target, headers, _HTTP_PORT)
    length = _length(minor, headers)
    dropped = _HOP_BY_HOP | _named_by_connection(headers)
    host = str(target).removesuffix(f":{_HTTP_PORT}") if target.port == _HTTP_PORT else str(target)
    path = found[2] if found[2].startswith("/") else f"/{found[2]}"
    lines = [
        b"%s %s HTTP/1.%s" % (method, path.encode(), minor),
        b"Host: %s" % host.encode(),
        *(b"%s: %s" % header for header in headers if header[0] not in dropped),
        b"Connection: close",
    ]
    return Head(target, b"\r\n".join(lines) + _END, length)


def _agree(target: Target, headers: list[tuple[bytes, bytes]], default_port: int) -> None:
    """Refuse a Host header that names somebody else: the server would heed it, and the rules the target."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        raise Malformed("there is more than one Host")
    if hosts and read_target(hosts[0].decode("latin-1"), default_port) != target:
        raise Malformed("Host and target are not the same")


def _length(minor: bytes, headers: list[tuple[bytes, bytes]]) -> int | None:
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        if lengths or minor == b"0" or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Malformed("where the body ends can be understood in two ways")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or _DIGITS.fullmatch(lengths[0]) is None or int(lengths[0]) > _LENGTH_MOST:
        raise Malformed("where the body ends can be understood in two ways")
    return int(lengths[0])


def _named_by_connection(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    named = frozenset(
        word.strip().lower()
        for name, value in headers
        if name in {b"connection", b"proxy-connection"}
        for word in value.split(b",")
    )
    if named & _FRAMING:
        raise Malformed("Connection names a header that it may not")
    return named
