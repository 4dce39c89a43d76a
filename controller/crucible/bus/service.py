"""The broker as a companion: what the controller tells it, and what it answers.

Beside doors and grants, the controller says (each answered with the digest of all Plugins known here, so that
it sees when it has to say everything again)::

    {"know": [member, …], "gone": [uid, …]}     Plugins that are new, have changed, or are no more
    {"all": [member, …], "more": true}          the whole list, in parts; the last has no "more"
    {"backbone": {…} or null}                   how to join other machines, and what to share with them
    {"keep": [uid, …], "more": true}            whose stores to keep, in parts; of all others those that
                                                asked for it are removed

and asks::

    {"figures": 0}                 what was counted, a page from there on
    {"far": 0}                     which other machines are there

and what :mod:`crucible.bus.controller` answers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crucible.bus import controller
from crucible.bus.broker import Broker
from crucible.bus.credentials import serving
from crucible.bus.doors import Entrance
from crucible.bus.members import Members, digest_of
from crucible.bus.stores import Stores
from crucible.companions.link import page_of
from crucible.model.backbone import LINES, Joining
from crucible.model.bus import HOST, Grants, Member

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from crucible.model.door import Doorway


class BusService:
    """Serves the bus to whoever is behind the doors."""

    def __init__(self, tell: Callable[[Mapping[str, Any]], None], data: int | None = None) -> None:
        """Begin with nobody.

        Args:
            tell: tells the controller something.
            data: descriptor of the folder for stores; None: there are none.
        """
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
        self.broker = Broker(asyncio.get_running_loop())
        self.broker.ledger.heard = self._noticed
        self.broker.ledger.refused = self._refused
        self._tell = tell
        self._entrances: dict[str, list[Entrance]] = {}
        self._closed: dict[str, list[socket.socket]] = {}
        self._members = Members()
        self._parts: list[Member] = []
        self._wanted: set[str] = set()
        self._stores: Stores | None = None
        self._backbone = digest_of(None)
        self._lines = ""
        self._joined = asyncio.get_running_loop().create_task(self.broker.far.keep())
        gc.freeze()  # what was imported stays: no collection looks at it again
        if data is not None:
            self._stores = Stores(self.broker.calls, self.broker.ledger, data)
            self.broker.calls.services.update(self._stores.services())

    def admit(self, doorway: Doorway, grant: Mapping[str, Any], listeners: Sequence[socket.socket]) -> None:
        """Serve a door, or hold whoever comes through it to a new grant."""
        if doorway.plugin == LINES:
            if listeners:
                self._lines = doorway.key
                self.broker.far.lines.listen(listeners)
            return
        if doorway.plugin != HOST:
            nothing = Member(doorway.namespace, doorway.plugin, doorway.plugin_uid, Grants()).to_json()
            self._expect(Member.from_json({**nothing, **grant}))
        if listeners:
            self._shut(doorway.key)
        context = _tls(grant) if doorway.tls else None
        closed = [*self._closed.pop(doorway.key, ()), *listeners]
        if doorway.tls and context is None:  # nothing is said there in plain text: who comes waits
            if closed:
                self._closed[doorway.key] = closed
        elif closed:
            self._entrances[doorway.key] = [Entrance(self.broker, doorway, one, context) for one in closed]
        elif context is not None:
            for entrance in self._entrances.get(doorway.key, ()):
                entrance.renew(context)

    def _expect(self, member: Member) -> None:
        """Let in whoever may come; why one does not answer is told apart from what it may do."""
        seat = self.broker.roster.find(*member.key)
        known = seat is not None and seat.member.uid == member.uid
        told = seat.member if known and seat is not None else member
        self.broker.know(replace(member, state=told.state, draining=told.draining))

    def dismiss(self, key: str) -> None:
        """Forget a door, and end what goes on through it."""
        if key == self._lines:
            self._lines = ""
            self.broker.far.lines.listen(())
        self._shut(key)

    def _shut(self, key: str) -> None:
        for entrance in self._entrances.pop(key, ()):
            entrance.close()
        for listener in self._closed.pop(key, ()):
            listener.close()

    async def answer(self, words: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what the controller says."""
        match words:
            case {"know": list(known), "gone": list(gone)}:
                await self._learn([Member.from_json(one) for one in known], {str(uid) for uid in gone})
            case {"all": list(part), **rest}:
                self._parts += [Member.from_json(one) for one in part]
                if not rest.get("more"):
                    self._members = Members(self._parts)
                    self._parts = []
                    self.broker.update(self._members)
                    await self._note(self._members)
            case {"keep": list(uids), **rest}:
                self._wanted.update(map(str, uids))
                if not rest.get("more") and self._stores is not None:
                    wanted, self._wanted = self._wanted, set()
                    await self._stores.keep(wanted)
            case {"figures": int(first)}:
                figures, more = page_of(self.broker.ledger.to_json(), first)
                return {"figures": figures, "more": more}
            case {"backbone": dict() | None as found}:
                self._backbone = digest_of(found)
                self.broker.far.become(None if found is None else Joining.from_json(found))
            case {"far": _}:
                return self.broker.far.to_json()
            case _:
                answer = await controller.answer(self.broker, words)
                if answer:
                    return answer
        return {"digest": self._members.digest, "backbone": self._backbone}

    async def _learn(self, known: list[Member], gone: set[str]) -> None:
        for member in known:
            self._members.put(member)
            self.broker.know(member)
        if gone:
            for uid in gone:
                self._members.drop(uid)
            self.broker.forget(gone)
        await self._note(known)

    async def _note(self, members: Iterable[Member]) -> None:
        if self._stores is not None:
            await self._stores.know(members)

    def _noticed(self, namespace: str, plugin: str) -> None:
        notices = self.broker.ledger.of(namespace, plugin).to_json()["notices"]
        self._tell({"notices": notices, "namespace": namespace, "plugin": plugin})

    def _refused(self, namespace: str, plugin: str, what: str) -> None:
        self._tell({"refused": what, "namespace": namespace, "plugin": plugin})


def _tls(grant: Mapping[str, Any]) -> ssl.SSLContext | None:
    """Return how an encrypted door is spoken through; None while that is not told."""
    match grant.get("tls"):
        case {"certificate": str(certificate), "key": str(key)}:
            return serving(certificate, key)
        case _:
            return None
