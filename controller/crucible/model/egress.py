"""What a plugin may connect to: the rules of ``capabilities.network.connect``, read and written.

===========================  =======================================================================
``api.example.com:443``      this host
``*.example.com:443``        any host below it, however many labels; not ``example.com`` itself
``*:443``                    any host and any public address
``192.0.2.7:443``            this address
``10.0.0.0/8:5432``          any address of this network
``[2001:db8::1]:443``        this address; ``[2001:db8::/32]:443`` any of this network
``api.example.com:*``        any port
===========================  =======================================================================

A rule by name never reaches a private, loopback, link-local or otherwise special address; a rule by address
does, where it names that address or a network that is special as a whole (see ``core/egress.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

ANY_PORT: Final = 0
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAME_MOST: Final = 253
_PORT_MOST: Final = 65535


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the list.

    Attributes:
        host: a name, ``*.`` and a name, or ``*``; empty for a rule by address.
        network: the addresses of a rule by address; None for one by name.
        port: the port; ``ANY_PORT`` for any.
    """

    host: str
    network: Network | None
    port: int


def parse_rule(text: str) -> Rule:
    """Read one rule.

    Raises:
        ValueError: it is none; says what is wrong, and how to write it.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} names no port: write host:port, like api.example.com:443")
    if host.startswith("[") and host.endswith("]"):
        network = _network(text, host[1:-1], version=6)
        return Rule("", network, _port(text, port))
    if ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, like [2001:db8::1]:443")
    if "/" in host or is_number(host):
        return Rule("", _network(text, host, version=4), _port(text, port))
    name = host.lower().removesuffix(".")
    if name != "*" and not is_name(name.removeprefix("*.")):
        raise ValueError(f"{text!r}: {host!r} is no host name, and only its first label can be '*'")
    return Rule(name, None, _port(text, port))


def is_name(name: str) -> bool:
    """Tell whether lower-case text is a host name, and not an address in some spelling."""
    return len(name) <= _NAME_MOST and _NAME.fullmatch(name) is not None and not is_number(name)


def is_number(host: str) -> bool:
    """Tell whether a resolver may take text for an IPv4 address: its last label is a number, in any base."""
    return _NUMBER.fullmatch(host.lower().removesuffix(".").rpartition(".")[2]) is not None


def _network(text: str, words: str, version: int) -> Network:
    try:
        found = ip_network(words)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    if "%" in words:
        raise ValueError(f"{text!r}: an address with a zone, {words}, leads nowhere from the proxy")
    if found.version != version:
        raise ValueError(f"{text!r}: brackets are for IPv6 addresses")
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped is not None:
        raise ValueError(f"{text!r}: write the IPv4 address itself")
    return found


def _port(text: str, port: str) -> int:
    if port == "*":
        return ANY_PORT
    if not (port.isascii() and port.isdecimal()) or not 1 <= int(port[:6]) <= _PORT_MOST:
        raise ValueError(f"{text!r}: {port!r} is no port: write a number from 1 to {_PORT_MOST}, or *")
    return int(port)
