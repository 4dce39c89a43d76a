"""All plugins' doors and conversations."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from crucible.companions.link import page_of
from crucible.companions.program import peer_of
from crucible.core.egress import Grant, read_grant
from crucible.egress import streams
from crucible.egress.account import Account
from crucible.egress.conversation import Conversation, Patience
from crucible.egress.dial import Internet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crucible.egress.dial import Network
    from crucible.model.door import Doorway

CONNECTIONS: Final = 128
"""How many connections one plugin may have at once."""
CONNECTIONS_OF_ALL: Final = 1024
"""How many all plugins together may have; each may have as many as are left."""
_THREADS: Final = 32
_LOOKS: Final = 5.0


@dataclass(slots=True)
class _Door:
    doorway: Doorway
    servers: list[asyncio.AbstractServer] = field(default_factory=list)


class Proxy:
    """Keeps the contract of :class:`crucible.companions.program.Service`."""

    def __init__(
        self,
        tell: Callable[[Mapping[str, Any]], None],
        network: Network | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Begin without doors.

        Args:
            tell: tells the controller something.
            network: what lies outside; None for what this host is on.
            patience: how long to wait for what; None for the usual.
        """
        self._tell = tell
        self._network = network or Internet()
        self._patience = patience or Patience()
        self._accounts: dict[str, Account] = {}
        self._doors: dict[str, _Door] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS))
        self._watch = loop.create_task(self._end_the_idle())

    def admit(self, doorway: Doorway, grant: Mapping[str, Any], listeners: Sequence[socket.socket]) -> None:
        """Serve a door, or hold its plugin to a new grant; one that cannot be read grants nothing."""
        account = self._accounts.get(doorway.plugin_uid)
        if account is None:
            account = Account(
                doorway.namespace, doorway.plugin, doorway.plugin_uid, self._tell, time.monotonic
            )
            self._accounts[doorway.plugin_uid] = account
        account.doors.add(doorway.key)
        try:
            account.change(read_grant(grant))
        except (ValueError, TypeError) as error:
            print(f"{doorway.key}: {error}", file=sys.stderr)  # noqa: T201 - its log
            account.change(Grant())
        if listeners:
            self._close_door(doorway.key)
            door = self._doors[doorway.key] = _Door(doorway)
            for listener in listeners:
                self._spawn(self._listen(door, account, listener))

    def dismiss(self, key: str) -> None:
        """Forget a door; what goes on through the plugin's other doors goes on."""
        door = self._close_door(key)
        account = self._accounts.get(door.doorway.plugin_uid) if door is not None else None
        if account is None:
            return
        account.doors.discard(key)
        if not account.doors:
            del self._accounts[account.plugin_uid]
            for conversation in tuple(account.conversations):
                conversation.cut()

    async def answer(self, words: Mapping[str, Any]) -> Mapping[str, Any]:
        """Tell the counters of plugins, a page from ``figures`` on; anything else is only a sign of life."""
        match words:
            case {"figures": int(first)}:
                counted = [{"uid": uid, **account.summary()} for uid, account in self._accounts.items()]
                page, more = page_of(counted, first)
                return {"figures": page, "more": more}
            case _:
                return {}

    async def close(self) -> None:
        """End everything."""
        for key in tuple(self._doors):
            self.dismiss(key)
        for task in (self._watch, *self._tasks):
            task.cancel()
        await asyncio.gather(self._watch, *self._tasks, return_exceptions=True)

    async def _listen(self, door: _Door, account: Account, listener: socket.socket) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not _is_who_it_should_be(door.doorway, writer) or not self._has_room_for(account):
                writer.transport.abort()
                return
            with contextlib.suppress(asyncio.CancelledError):
                await Conversation(account, self._network, self._patience, (reader, writer)).run()

        server = await streams.serve(serve, listener)
        door.servers.append(server)
        if self._doors.get(door.doorway.key) is not door:
            server.close()

    def _has_room_for(self, account: Account) -> bool:
        """Tell whether one more connection of a plugin fits.

        None may have more than are left, so however many plugins take what they can, the next one that comes
        finds as many as each of them has.
        """
        left = CONNECTIONS_OF_ALL - sum(len(one.conversations) for one in self._accounts.values())
        return len(account.conversations) < min(CONNECTIONS, left)

    def _close_door(self, key: str) -> _Door | None:
        door = self._doors.pop(key, None)
        for server in door.servers if door is not None else ():
            server.close()
        return door

    async def _end_the_idle(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOKS, self._patience.idle / 2))
            for account in self._accounts.values():
                account.end_the_idle(self._patience.idle)

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_who_it_should_be(doorway: Doorway, writer: asyncio.StreamWriter) -> bool:
    """Tell whether the kernel says that it is the instance; through a TCP socket nobody else can come."""
    one = writer.get_extra_info("socket")
    if doorway.peer is None or one.family != socket.AF_UNIX:
        return True
    return peer_of(one) == doorway.peer
