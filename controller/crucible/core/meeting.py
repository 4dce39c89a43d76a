"""Where and as whom a machine can be met without the server: what it says of itself, judged. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, Final

from crucible.model.backbone import Meeting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_IDENTITY: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PORTS: Final = 65536


def is_of(identity: str, machine: str) -> bool:
    """Say whether a certificate made out to this can be a machine's: its first word is the machine's name."""
    return _IDENTITY.fullmatch(identity) is not None and identity.partition(".")[0] == machine


def meeting_of(words: object, machine: str) -> Meeting | None:
    """Read what a machine, whose name is proven, says of how it can be met; None: not at all."""
    match words:
        case {"identity": str(identity), "host": str(host), "port": int(port)} if is_of(identity, machine):
            known = type(port) is int and 0 <= port < _PORTS and (not host or _address(host) is not None)
            return Meeting(identity, host, port) if known else None
        case _:
            return None


def address_of(meeting: Meeting, server: str, listen: str = "") -> str | None:
    """Return where a machine can be dialled; None: nowhere that may be.

    Another machine must not have us knock at what only we can see: at this machine itself, or at addresses
    that lead nowhere beyond the link (where clouds keep their metadata). Where we reach the server by this
    machine's loopback, and nobody comes to us from beyond it, all machines of the backbone are this one.

    Args:
        meeting: what it said.
        server: by which name or address we reach the server.
        listen: at which address we let other machines in; empty: at none.
    """
    if not meeting.port:
        return None
    host, ours, open_at = meeting.host or server, _address(server), _address(listen)
    address = _address(host)
    alone = ours is not None and ours.is_loopback and (open_at is None or open_at.is_loopback)
    if address is not None and address.is_loopback and not alone:
        return None
    if not meeting.host:
        return server
    if address is None or address.is_unspecified or address.is_multicast or address.is_link_local:
        return None
    return host


def shows(certificate: Mapping[str, Any] | None, identity: str) -> bool:
    """Say whether a certificate, as TLS verified it, is made out to exactly this name.

    Args:
        certificate: as :meth:`ssl.SSLSocket.getpeercert` returns it.
        identity: the name.
    """
    names: Iterable[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
    return bool(identity) and ("DNS", identity) in tuple(names)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address; one of IPv4 that is written as one of IPv6 counts as what it leads to."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return None if found.scope_id else found.ipv4_mapped or found
    return found
