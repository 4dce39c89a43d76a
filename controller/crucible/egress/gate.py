"""The way out of a cluster's pods: one port for all, and whoever comes is known by its address."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from crucible.core.egress import Grant
from crucible.egress.account import Account
from crucible.egress.conversation import Conversation, Patience

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from crucible.core.egress import Address
    from crucible.egress.dial import Network

_LOOKS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Guest:
    """Whose connection it is.

    Attributes:
        namespace: of the Plugin.
        plugin: its name.
        plugin_uid: its uid.
        place: the very pod.
    """

    namespace: str
    plugin: str
    plugin_uid: str
    place: str


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections there may be at once: of one plugin, and in all."""

    each: int = 128
    all: int = 1024


class Gate:
    """Serves whoever is known, and nobody else.

    Attributes:
        accounts: what is kept of each plugin, by its uid.
        strangers: how many connections were refused because nobody knew whose they were.
        open: how many there are now.
    """

    def __init__(
        self,
        who: Callable[[Address], Awaitable[Guest | None]],
        tell: Callable[[Mapping[str, Any]], None],
        network: Network,
        patience: Patience | None = None,
        room: Room | None = None,
    ) -> None:
        """Begin with nobody.

        Args:
            who: returns who has an address now; None where that is not sure.
            tell: hears of refusals.
            network: what lies outside.
            patience: how long to wait for what; None for the usual.
            room: how many connections there may be; None for the usual.
        """
        self.accounts: dict[str, Account] = {}
        self.strangers = 0
        self.open = 0
        self._who = who
        self._tell = tell
        self._network = network
        self._patience = patience or Patience()
        self._room = room or Room()
        self._grants: dict[str, Grant] = {}
        self._places: dict[str, set[Conversation]] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def grant(self, plugin_uid: str, grant: Grant) -> None:
        """Hold a plugin to what it may reach from now on; what it may not any more is cut."""
        self._grants[plugin_uid] = grant
        account = self.accounts.get(plugin_uid)
        if account is not None:
            account.change(grant)

    def granted(self, plugin_uid: str) -> Grant:
        """Return what a plugin may reach; one that nothing is known of may reach nothing."""
        return self._grants.get(plugin_uid, Grant())

    def forget(self, plugin_uid: str) -> None:
        """Cut all of a plugin that is gone, and forget it."""
        self._grants.pop(plugin_uid, None)
        account = self.accounts.pop(plugin_uid, None)
        for conversation in tuple(account.conversations) if account is not None else ():
            conversation.cut()

    def leave(self, place: str) -> None:
        """Cut all that came from a pod: its address is not its own any more."""
        for conversation in tuple(self._places.get(place, ())):
            conversation.cut()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do one connection."""
        if self.open >= self._room.all:
            writer.transport.abort()
            return
        self.open += 1
        self._empty.clear()
        try:
            await self._serve(reader, writer)
        except BaseException:
            writer.transport.abort()
            raise
        finally:
            self.open -= 1
            if not self.open:
                self._empty.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None:
            writer.transport.abort()  # it has gone already
            return
        guest = await self._who(ip_address(peer[0].partition("%")[0]))
        if guest is None:
            self.strangers += 1
            writer.transport.abort()
            return
        account = self._account(guest)
        left = self._room.all - self.open + 1  # none may have more than are left, so none takes them all
        if len(account.conversations) >= min(self._room.each, left):
            writer.transport.abort()
            return
        conversation = Conversation(account, self._network, self._patience, (reader, writer))
        here = self._places.setdefault(guest.place, set())
        here.add(conversation)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await conversation.run()
        finally:
            here.discard(conversation)
            if not here:
                self._places.pop(guest.place, None)

    def _account(self, guest: Guest) -> Account:
        account = self.accounts.get(guest.plugin_uid)
        if account is None:
            account = Account(guest.namespace, guest.plugin, guest.plugin_uid, self._tell, time.monotonic)
            account.change(self.granted(guest.plugin_uid))
            self.accounts[guest.plugin_uid] = account
        return account

    async def end_the_idle(self) -> None:
        """Cut what nothing moves on, until cancelled."""
        while True:
            await asyncio.sleep(min(_LOOKS, self._patience.idle / 2))
            for account in tuple(self.accounts.values()):
                account.end_the_idle(self._patience.idle)

    async def empty(self) -> None:
        """Wait until nothing goes on any more."""
        await self._empty.wait()
