"""Resolves names and connects to addresses: the proxy's two ways to touch the network."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from crucible.egress import streams
from crucible.egress.own import is_own, meets_itself

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crucible.core.egress import Address

_ADDRESSES_MOST: Final = 32


class Network(Protocol):
    """What lies outside."""

    async def resolve(self, name: str) -> Sequence[Address]:
        """Return a name's addresses; none where it has none.

        Raises:
            OSError: nobody can say.
        """
        ...

    async def connect(self, address: Address, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to exactly this address.

        Raises:
            OSError: nobody answers there.
        """
        ...

    def leads_here(self, address: Address, connection: asyncio.StreamWriter | None = None) -> bool:
        """Tell whether an address is this host's own.

        Args:
            address: the address.
            connection: one to it that is made already.

        Raises:
            OSError: nobody can say.
        """
        ...


class Internet:
    """The network that this host is on, and the names it knows."""

    def __init__(self, *, absolute: bool = False) -> None:
        """Take the resolver as it is.

        Args:
            absolute: names are whole; the resolver's search list leads to names that others may make.
        """
        self._absolute = absolute

    async def resolve(self, name: str) -> Sequence[Address]:
        """Ask this host's resolver, in a thread."""
        loop = asyncio.get_running_loop()
        try:
            whole = f"{name}." if self._absolute else name
            found = await loop.getaddrinfo(whole.encode(), None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
                return ()
            raise
        return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found[:_ADDRESSES_MOST]]

    async def connect(self, address: Address, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Dial; an address is never resolved again."""
        return await streams.connect(str(address), port)

    def leads_here(self, address: Address, connection: asyncio.StreamWriter | None = None) -> bool:
        """Ask the kernel; of a connection that is made, look at both its ends too."""
        return is_own(address) or (
            connection is not None and meets_itself(connection.get_extra_info("socket"))
        )
