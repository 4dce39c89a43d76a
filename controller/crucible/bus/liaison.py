"""The controller's side of the broker: keeps it told of every Plugin, and carries what people hear of it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible.bus.members import Members, digest_of
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from crucible.model.backbone import Joining
    from crucible.model.bus import Member

PAGE: Final = 60
"""Plugins told of in one packet, at most."""
_PAGE_BYTES: Final = 100_000
"""Bytes of one packet, which holds 128 KiB; what a manifest may grant is less than this by itself."""
NEWS: Final = 600.0
"""Seconds for which a notice is worth telling."""
_BEAT: Final = 1.0
"""Seconds between two looks whether the broker knows what it should."""
_MOST_PAGES: Final = 1000

log = logging.getLogger(__name__)


class Asked(Protocol):
    """The companion that is the broker."""

    async def ask(self, words: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask it something.

        Raises:
            Unavailable: it does not run, or does not answer.
        """
        ...


class Liaison:
    """Keeps the broker told. ``keep`` does the work, the other verbs say what there is."""

    def __init__(self, broker: Asked, noticed: Callable[[str], None] = lambda _: None) -> None:
        """Begin with no Plugins.

        Args:
            broker: whom to tell.
            noticed: called with a Plugin's uid when there is something new to say of it.
        """
        self._broker = broker
        self._noticed = noticed
        self._members = Members()
        self._changed: dict[str, None] = {}
        self._notices: dict[str, tuple[float, tuple[str, ...]]] = {}
        self.refused: Callable[[str, str], None] = lambda _uid, _what: None
        """Called with a Plugin's uid and what the broker refused it."""
        self._wake = asyncio.Event()
        self._backbone: Mapping[str, Any] | None = None
        self._awaited: set[str] | None = None

    def join(self, joining: Joining | None) -> None:
        """Say how other machines are reached, and what they may do here; None: not at all."""
        self._backbone = None if joining is None else joining.to_json()
        self._wake.set()

    def know(self, member: Member) -> None:
        """Say that there is a Plugin, what it may do, and why it does not answer if it does not."""
        if self._members.put(member):
            self._tell(member.uid)

    def forget(self, uid: str) -> None:
        """Say that a Plugin is no more."""
        self._notices.pop(uid, None)
        if self._awaited is not None:
            self._awaited.discard(uid)
        if self._members.drop(uid):
            self._tell(uid)

    def expect(self, uids: Collection[str]) -> None:
        """Hear which Plugins there are.

        Until each of them is known once, the broker is told of no others that they are gone: a controller
        that has just begun knows few, and the rest go on with what they do meanwhile.
        """
        if self._awaited is None:
            self._awaited = set(uids)
            self._wake.set()

    def uids(self) -> set[str]:
        """Return the uids of all Plugins that are known."""
        return {member.uid for member in self._members}

    def notices(self, uid: str) -> tuple[str, ...]:
        """Return what a Plugin does too much of on the bus, for people."""
        said_at, lines = self._notices.get(uid, (0.0, ()))
        return lines if asyncio.get_running_loop().time() - said_at < NEWS else ()

    def hear(self, words: Mapping[str, Any]) -> None:
        """Take what the broker tells by itself."""
        match words:
            case {"notices": list(lines), "namespace": str(namespace), "plugin": str(plugin)}:
                loop = asyncio.get_running_loop()
                for member in self._members:
                    if member.key == (namespace, plugin):
                        self._notices[member.uid] = (loop.time(), tuple(map(str, lines)))
                        self._noticed(member.uid)
                        loop.call_later(NEWS, self._noticed, member.uid)
            case {"refused": str(what), "namespace": str(namespace), "plugin": str(plugin)}:
                for member in self._members:
                    if member.key == (namespace, plugin):
                        self.refused(member.uid, what)
            case _:
                log.warning("the broker says what is not understood")

    async def keep(self) -> None:
        """Keep the broker told, for ever."""
        while True:
            changed = list(self._changed)
            self._changed.clear()
            self._wake.clear()
            try:
                await self._say(changed)
            except Unavailable:
                self._changed.update(dict.fromkeys(changed))  # it is told everything once it runs
            try:
                async with asyncio.timeout(_BEAT):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _say(self, changed: list[str]) -> None:
        answer: Mapping[str, Any] = {}
        found = [member for uid in changed if (member := self._members.get(uid)) is not None]
        gone = [uid for uid in changed if self._members.get(uid) is None]
        for first in range(0, len(gone), PAGE):
            answer = await self._broker.ask({"know": [], "gone": gone[first : first + PAGE]})
        for page in _pages(found):
            answer = await self._broker.ask({"know": page, "gone": []} if page else {})
        if answer.get("digest") != self._members.digest:
            await self._say_all()
        if answer.get("backbone") != digest_of(self._backbone):
            await self._broker.ask({"backbone": self._backbone})

    async def _say_all(self) -> None:
        """Say everything that is known, and, once that is all there is, that there is nothing else."""
        if self._awaited is None or self._awaited - self.uids():
            for page in _pages(self._members):
                await self._broker.ask({"know": page, "gone": []})
            return
        *pages, last = _pages(self._members)
        for page in pages:
            await self._broker.ask({"all": page, "more": True})
        await self._broker.ask({"all": last, "more": False})

    async def publish(self, namespace: str, subject: str, event: Mapping[str, Any]) -> None:
        """Publish an event of the controller's.

        Raises:
            Unavailable: the broker does not run, so nobody listens.
        """
        await self._broker.ask({"event": event, "namespace": namespace, "subject": subject})

    async def keep_stores(self, uids: Iterable[str]) -> None:
        """Have the stores of all other Plugins removed that asked for it.

        Raises:
            Unavailable: the broker does not run.
        """
        wanted = sorted(uids)
        step = 2000
        for first in range(0, max(len(wanted), 1), step):
            more = first + step < len(wanted)
            await self._broker.ask({"keep": wanted[first : first + step], "more": more})

    async def call(self, key: str, method: str, payload: str, seconds: float) -> tuple[str, str]:
        """Call a method of the instance behind a door; return the code of an error and the text.

        Raises:
            Unavailable: the broker does not run.
        """
        words = {"call": key, "method": method, "payload": payload, "milliseconds": int(seconds * 1000)}
        answer = await self._broker.ask(words)
        return str(answer.get("code", "")), str(answer.get("text", ""))

    async def far(self) -> Mapping[str, Any]:
        """Return who this machine is on the backbone, why it is not there, and which others are.

        Raises:
            Unavailable: the broker does not run.
        """
        return await self._broker.ask({"far": 0})

    async def open_calls(self, keys: Sequence[str]) -> Mapping[str, int | None]:
        """Return how many calls are open with who is behind doors, by door.

        None: the broker has not heard yet that nothing new goes there.

        Raises:
            Unavailable: the broker does not run.
        """
        found = (await self._broker.ask({"open": list(keys)})).get("open")
        return found if isinstance(found, dict) else {}

    async def figures(self) -> list[Mapping[str, Any]]:
        """Return what was counted, by Plugin.

        Raises:
            Unavailable: the broker does not run.
        """
        found: list[Mapping[str, Any]] = []
        for _ in range(_MOST_PAGES):
            answer = await self._broker.ask({"figures": len(found)})
            found += answer["figures"]
            if not answer["more"]:
                break
        return found

    def _tell(self, uid: str) -> None:
        self._changed[uid] = None
        self._wake.set()


def _pages(members: Iterable[Member]) -> list[list[dict[str, Any]]]:
    """Return members in parts that each fit a packet, however much they are granted; at least one part."""
    pages: list[list[dict[str, Any]]] = [[]]
    size = 0
    for member in members:
        words = member.to_json()
        more = len(json.dumps(words, separators=(",", ":")))
        if pages[-1] and (len(pages[-1]) == PAGE or size + more > _PAGE_BYTES):
            pages.append([])
            size = 0
        pages[-1].append(words)
        size += more
    return pages
