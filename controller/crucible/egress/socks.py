"""Reads SOCKS version 5 (RFC 1928, RFC 1929), and writes its answers. Pure and bounded."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from crucible.egress.heads import Malformed, Target, read_host

VERSION: Final = 5
NO_AUTHENTICATION: Final = 0
NO_METHOD: Final = 0xFF

OK: Final = 0
FAILED: Final = 1
NOT_ALLOWED: Final = 2
UNREACHABLE: Final = 4
REFUSED: Final = 5
NOT_SUPPORTED: Final = 7

_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


@dataclass(frozen=True, slots=True)
class Greeting:
    """The methods of authentication that a client offers."""

    methods: frozenset[int]


def read_greeting(data: bytes) -> tuple[Greeting, bytes] | None:
    """Read a greeting; return it and what came after, None where more has to come first."""
    if len(data) < 2 or len(data) < 2 + data[1]:  # noqa: PLR2004 - of the protocol
        return None
    end = 2 + data[1]
    return Greeting(frozenset(data[2:end])), data[end:]


def read_request(data: bytes) -> tuple[Target, bytes] | None:
    """Read a request to connect; return its target and what came after, None where more has to come first.

    Raises:
        Malformed: it is none; ``status`` is the reply's code.
    """
    if len(data) < 5:  # noqa: PLR2004 - of the protocol
        return None
    version, command, reserved, kind, first = data[:5]
    if version != VERSION or reserved != 0:
        raise Malformed("this is no SOCKS5 request", FAILED)
    if command != _CONNECT:
        raise Malformed("only CONNECT is served", NOT_SUPPORTED)
    start, size = {_IPV4: (4, 4), _IPV6: (4, 16), _NAME: (5, first)}.get(kind, (0, 0))
    if not size:
        raise Malformed("the address is of no kind that is known", 8)
    end = start + size
    if len(data) < end + 2:
        return None
    port = int.from_bytes(data[end : end + 2], "big")
    if port == 0:
        raise Malformed("there is no port 0", FAILED)
    return Target(_host(kind, data[start:end]), port), data[end + 2 :]


def method(chosen: int) -> bytes:
    """Answer a greeting."""
    return bytes((VERSION, chosen))


def reply(code: int) -> bytes:
    """Answer a request."""
    return bytes((VERSION, code, 0, _IPV4, 0, 0, 0, 0, 0, 0))


def _host(kind: int, raw: bytes) -> str | IPv4Address | IPv6Address:
    if kind == _IPV4:
        return IPv4Address(raw)
    if kind == _IPV6:
        return IPv6Address(raw)
    try:
        return read_host(raw.decode("ascii"))
    except (Malformed, UnicodeDecodeError):
        raise Malformed("the name cannot be read", UNREACHABLE) from None
