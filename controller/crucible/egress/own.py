"""Whether an address is this host's own: the kernel is asked where it would send a packet to it.

A list of the interfaces' addresses does not tell all: a route can make a whole network local. Nor do the two
ends of a connection alone: of an interface's second address, the kernel answers from the first.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crucible.core.egress import Address

# Of linux/netlink.h and linux/rtnetlink.h.
_HEADER: Final = struct.Struct("=IHHII")
_ROUTE: Final = struct.Struct("=8BI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = struct.Struct("=i")
_REQUEST, _ERROR_MESSAGE, _NEW_ROUTE, _GET_ROUTE = 1, 2, 24, 26
_DESTINATION: Final = 1
_LOCAL, _ANYCAST = 2, 4
_TYPE: Final = 7
_ANSWER_MOST: Final = 1 << 14
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH})


def is_own(address: Address) -> bool:
    """Tell whether what is sent to an address stays on this host.

    Raises:
        OSError: the kernel does not say.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - of the protocol
    body = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _DESTINATION) + address.packed
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as one:
        one.sendto(_HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body, (0, 0))
        return _read(one.recv(_ANSWER_MOST))


def meets_itself(connection: socket.socket) -> bool:
    """Tell whether both ends of a connection have one address."""
    try:
        ours, theirs = connection.getsockname()[0], connection.getpeername()[0]
    except OSError:
        return False  # it has ended
    return ip_address(ours.partition("%")[0]) == ip_address(theirs.partition("%")[0])


def _read(answer: bytes) -> bool:
    """Tell what the kernel's answer says; a destination that it has no way to is nobody's."""
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == _NEW_ROUTE:
        return answer[_HEADER.size + _TYPE] in {_LOCAL, _ANYCAST}
    if kind == _ERROR_MESSAGE:
        number = -_ERROR.unpack_from(answer, _HEADER.size)[0]
        if number in _NO_WAY:
            return False
        raise OSError(number, f"cannot ask for the way: {os.strerror(number)}")
    raise OSError(f"the kernel answered with a message of kind {kind}")
