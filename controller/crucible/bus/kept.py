"""``$store.…`` on a cluster: plugins' key-value data, kept by the backbone's stream for all replicas.

Each replica follows the stores that are used there. It decides by what it has read, and appends on the
condition that nobody appended since: so sizes are exact and revisions guard, whichever replicas a plugin's
instances are connected to. Before it refuses anything, and before it lists, it reads all there is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import mirror
from crucible.bus.bucket import Changed, Full
from crucible.bus.call import Refused
from crucible.bus.follower import Follower
from crucible.bus.mirror import DELETED, OWNER, PUT, Owner
from crucible.bus.room import has_room
from crucible.bus.shelf import MEMORY
from crucible.bus.verbs import PAGE, Request, Verbs
from crucible.bus.wire import Code, Frame, Kind
from crucible.core import natsconfig
from crucible.errors import CrucibleError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from crucible.bus.call import Call, Service
    from crucible.bus.calls import Calls
    from crucible.bus.far import Far
    from crucible.bus.ledger import Ledger
    from crucible.bus.nats import Nats
    from crucible.model.bus import Member

SWEEP: Final = 30.0
"""Seconds between two looks for stores of Plugins that are gone."""
_SECONDS: Final = 10.0
_TRIES: Final = 256
"""Times that others may be faster; who loses tries again as soon as who won goes on."""
_LAST: Final = re.compile(r"wrong last sequence: ([0-9]+)")
_WRONG_LAST: Final = frozenset({10071, 10164})
_EXISTS: Final = 10058
_NOT_FOUND: Final = 404
_FULL: Final = frozenset({10023, 10047, 10076, 10077, 10167})

log = logging.getLogger(__name__)


class KeptStores(Verbs):
    """All stores of a cluster, as far as they are used here."""

    def __init__(self, calls: Calls, ledger: Ledger, far: Far, copies: int) -> None:
        """Begin with none open.

        Args:
            calls: where requests come from.
            ledger: where faults are counted.
            far: the way to the stream.
            copies: servers that keep it.
        """
        super().__init__(calls, ledger)
        self.born: dict[str, str] = {}
        """When Plugins were created, by uid: told before they may ask for anything."""
        self._far = far
        self._copies = copies
        self._made = False
        self._followers: dict[tuple[str, str], Follower] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[Follower]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._noted: dict[str, bool] = {}
        far.onlookers.append(self._left)

    def services(self) -> dict[str, Service]:
        """Return what is answered; who watches a store has it followed."""
        return {**super().services(), "$store.watch": _Watching(self)}

    def _left(self) -> None:
        """The connection is gone: what changes meanwhile is missed."""
        self._made = False
        for follower in self._followers.values():
            follower.end()
        self._followers.clear()
        self._opening.clear()

    def _take(self, request: Request) -> None:
        self._start(self._do(request))

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, request: Request) -> None:
        answer: Frame | Refused
        try:
            answer = await self._one(request)
        except Refused as refusal:
            answer = refusal
        except Changed as change:
            answer = Refused(Code.CONFLICT, str(change), {"revision": str(change.revision)})
        except Full as full:
            answer = Refused(Code.STORE_FULL, str(full))
        except Unavailable as error:
            answer = Refused(Code.UNAVAILABLE, f"the store cannot be used now: {error}")
        except Exception:
            log.exception("a request to a store failed as nobody foresaw")  # and is no end of all others
            answer = Refused(Code.UNAVAILABLE, "the store cannot be used now: the broker's log says why")
        self._finish(request, answer)

    async def _one(self, request: Request) -> Frame:
        member, frame = request.member, request.call.frame
        follower = await self._open(member.key)
        async with follower.lock:
            await self._claim(follower, member)
            match request.call.method:
                case "$store.get":
                    return await self._get(follower, request)
                case "$store.put":
                    return await self._change(follower, request, PUT + frame.payload)
                case "$store.delete":
                    return await self._change(follower, request, DELETED)
                case _:
                    return await self._list(follower, request)

    async def _get(self, follower: Follower, request: Request) -> Frame:
        found = await self._last(mirror.subject(*follower.key, mirror.token_of(request.key)))
        if found is not None:
            await follower.until(found[0])
            await self._claim(follower, request.member)  # who wrote it may be a later plugin of the name
        owner = follower.mirror.owner
        if found is None or found[1][:1] != PUT or (owner is not None and found[0] < owner.since):
            raise Refused(Code.NOT_FOUND, f"there is no key {request.key}")
        return Frame(Kind.ANSWER, payload=found[1][1:], headers={"revision": str(found[0])})

    async def _list(self, follower: Follower, request: Request) -> Frame:
        await self._catch_up(follower)
        headers = request.call.frame.headers
        page = follower.mirror.list(headers.get("prefix", ""), headers.get("after", ""), PAGE)
        keys = [{"key": key, "revision": at, "size": size} for key, at, size in page.entries]
        told = {"keys": keys, "more": page.more, "used": page.used, "size": request.member.grants.store}
        return Frame(Kind.ANSWER, payload=json.dumps(told, separators=(",", ":")).encode())

    async def _change(self, follower: Follower, request: Request, payload: bytes) -> Frame:
        """Append a change, as soon as what is known is all there is."""
        token, fresh = mirror.token_of(request.key), False
        for _ in range(_TRIES):
            try:
                self._check(follower, request, payload)
            except (Changed, Full, Refused):
                if fresh:
                    raise
                await self._catch_up(follower)
                await self._claim(follower, request.member)
                fresh = True
                continue
            number = await self._append(follower, token, payload)
            if number:
                await self._tidy(follower, but=number)
                return Frame(Kind.ANSWER, headers={"revision": str(number)})
            await self._claim(follower, request.member)
            fresh = True
        raise Unavailable("others change it all the time")

    def _check(self, follower: Follower, request: Request, payload: bytes) -> None:
        """Say whether a change may be made, by what is known.

        Raises:
            Changed, Full, Refused: it may not.
        """
        known = follower.mirror
        if payload[:1] == DELETED:
            if not known.check_delete(request.key, request.expected):
                raise Refused(Code.NOT_FOUND, f"there is no key {request.key}")
            return
        total = sum(each.mirror.memory for each in self._followers.values())
        known.check_put(
            request.key,
            len(payload) - 1,
            request.expected,
            request.member.grants.store or 0,
            may_grow=has_room(MEMORY, total, known.memory),
        )

    async def _claim(self, follower: Follower, member: Member) -> None:
        """See to it that a store is this Plugin's: what another of its name left is kept, or is nobody's now.

        Raises:
            Refused: it is a later Plugin's of that name by now.
        """
        for _ in range(_TRIES):
            owner, born = follower.mirror.owner, self.born.get(member.uid, "")
            same = owner is not None and owner.uid == member.uid
            if same and owner is not None and owner.keep == member.grants.keep_store:
                self._noted[member.uid] = owner.keep
                return
            if owner is not None and owner.uid and not same and born < owner.born:
                raise Refused(Code.UNAVAILABLE, "the store is a later plugin's of this name")
            since = 0 if owner is None else owner.since
            if owner is not None and not same and not owner.keep:
                since = follower.mirror.last + 1
            claimed = Owner(member.uid, born, member.grants.keep_store, since)
            if await self._own(follower, claimed):
                self._noted[member.uid] = claimed.keep
                return
        raise Unavailable("others change it all the time")

    async def _own(self, follower: Follower, owner: Owner) -> bool:
        """Write down whose a store is; what is nobody's any more is removed. False: somebody was faster."""
        before = follower.mirror.owner
        number = await self._append(follower, OWNER, owner.encode())
        if number and owner.since > (0 if before is None else before.since):
            await self._purge(mirror.subject(*follower.key), number)
        return bool(number)

    # What is asked of the stream.

    def _connection(self) -> Nats:
        connection = self._far.nats
        if connection is None:
            raise Unavailable(self._far.problem or "the backbone is not reached")
        return connection

    async def _open(self, key: tuple[str, str]) -> Follower:
        """Return a store that is followed, once all that it holds was read."""
        follower = self._followers.get(key)
        if follower is not None and not follower.broken:
            return follower
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.ensure_future(self._begin(key))
            task.add_done_callback(lambda done: self._opened(key, done))
        return await asyncio.shield(task)

    def _opened(self, key: tuple[str, str], done: asyncio.Task[Follower]) -> None:
        if self._opening.get(key) is done:
            del self._opening[key]
        if not done.cancelled():
            done.exception()  # whoever waited was told

    async def _begin(self, key: tuple[str, str]) -> Follower:
        connection = self._connection()
        if not self._made:
            settings = natsconfig.stores_settings(self._copies)
            words = await self._ask(f"$JS.API.STREAM.CREATE.{natsconfig.STORES}", settings)
            if "config" not in words and _error_of(words) != _EXISTS:
                raise _refusal(words)
            self._made = True
        follower = Follower(key, connection, self._watches.tell, self._lost)
        try:
            await follower.open(self._ask)
            await self._catch_up(follower)
        except BaseException:
            follower.end()
            raise
        if connection.lost.done() or follower.broken:
            follower.end()
            raise Unavailable("the backbone is gone")
        follower.live = True
        self._followers[key] = follower
        owner = follower.mirror.owner
        if follower.mirror.void and owner is not None:  # a replica that ended before it had removed it
            await self._purge(mirror.subject(*key), owner.since)
        return follower

    def _lost(self, key: tuple[str, str]) -> None:
        self._watches.end(key, "the store is not followed any more: watch again")

    async def _ask(self, subject: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = await self._connection().request(subject, json.dumps(body).encode(), _SECONDS)
        if answer.status:
            raise Unavailable("the backbone keeps no stores: it has no JetStream")
        found = json.loads(answer.payload)
        return found if isinstance(found, dict) else {}

    async def _append(self, follower: Follower, token: str, payload: bytes) -> int:
        """Append a message, on the condition that all before it is known; return its number, or 0."""
        connection, known = self._connection(), follower.mirror
        if len(payload) > connection.payload_limit:
            raise Refused(Code.TOO_LARGE, f"the backbone takes {connection.payload_limit} bytes at once")
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(known.last),
            "Nats-Expected-Last-Subject-Sequence-Subject": mirror.subject(*follower.key),
        }
        to = mirror.subject(*follower.key, token)
        answer = await connection.request(to, payload, _SECONDS, headers)
        words = json.loads(answer.payload or b"{}")
        if "error" not in words and "seq" in words:
            await follower.until(int(words["seq"]))
            return int(words["seq"])
        if _error_of(words) not in _WRONG_LAST:
            self._made = False
            raise _refusal(words)
        told = _LAST.search(str(words["error"].get("description", "")))
        if told is None or int(told[1]) <= known.last:
            await self._catch_up(follower)
        else:
            await follower.until(int(told[1]))
        return 0

    async def _catch_up(self, follower: Follower) -> None:
        """Read all there is by now."""
        known = follower.mirror.last
        found = await self._last(mirror.subject(*follower.key))
        number = 0 if found is None else found[0]
        if number < known:
            follower.end()
            raise Unavailable("somebody removed what was in it")
        await follower.until(number)

    async def _last(self, subject: str) -> tuple[int, bytes] | None:
        """Return the last message of a subject with its number; None where there is none."""
        words = await self._ask(f"$JS.API.STREAM.MSG.GET.{natsconfig.STORES}", {"last_by_subj": subject})
        message = words.get("message")
        if isinstance(message, dict):
            return int(message["seq"]), b64decode(message.get("data", ""))
        error = words.get("error")
        if isinstance(error, dict) and error.get("code") == _NOT_FOUND and _error_of(words) != _NO_STREAM:
            return None
        raise _refusal(words)

    async def _purge(self, subject: str, before: int = 0) -> None:
        body = {"filter": subject, "seq": before} if before else {"filter": subject}
        await self._ask(f"$JS.API.STREAM.PURGE.{natsconfig.STORES}", body)

    async def _tidy(self, follower: Follower, but: int) -> None:
        """Remove what says of keys that they were deleted; never the last message, by which others append."""
        past = follower.mirror.past
        for token, number in [each for each in past.items() if each[1] < but]:
            del past[token]
            await self._purge(mirror.subject(*follower.key, token), number + 1)

    # Whether a store is kept.

    def know(self, member: Member, born: str) -> None:
        """Learn of a Plugin; whether its data is to be kept is noted at once, for it may be deleted next."""
        self.born[member.uid] = born
        before = self._noted.get(member.uid)
        if before is not None and before != member.grants.keep_store:
            self._start(self._try_note(member))

    def forget(self, uid: str) -> None:
        """Learn that a Plugin is no more."""
        self.born.pop(uid, None)
        self._noted.pop(uid, None)

    async def _try_note(self, member: Member) -> None:
        try:
            await self._note(member)
        except (CrucibleError, ValueError) as error:
            log.warning("%s/%s: not noted yet whether its store is kept: %s", *member.key, error)

    async def _note(self, member: Member) -> None:
        """Bring what the stream says of a Plugin up to date, where it says something of it."""
        found = await self._last(mirror.subject(*member.key, OWNER))
        owner = None if found is None else Owner.decode(found[1])
        if owner is not None and owner.uid == member.uid and owner.keep != member.grants.keep_store:
            follower = await self._open(member.key)
            async with follower.lock:
                await self._claim(follower, member)
        self._noted[member.uid] = member.grants.keep_store

    # Stores of Plugins that are gone.

    async def sweep(self, gone: Callable[[str, str, str], Awaitable[bool]]) -> None:
        """Remove, again and again, what Plugins left that did not want it kept; until cancelled.

        Args:
            gone: says of a namespace, name and uid that no such Plugin is any more.
        """
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await self.sweep_once(gone)
            except (CrucibleError, ValueError) as error:
                log.info("stores are not looked through now: %s", error)

    async def sweep_once(self, gone: Callable[[str, str, str], Awaitable[bool]]) -> None:
        """Look once.

        Raises:
            CrucibleError, ValueError: the stream cannot be asked, or answers what no stream does.
        """
        if self._far.nats is None:
            return
        words = await self._ask(
            f"$JS.API.STREAM.INFO.{natsconfig.STORES}", {"subjects_filter": mirror.subject("*", "*", OWNER)}
        )
        if "state" not in words:
            return  # no store was ever used
        for seat in list(self._calls.roster):
            member = seat.member
            known = self._noted.get(member.uid)
            if known is not member.grants.keep_store and (
                known is not None or member.grants.store is not None
            ):
                await self._note(member)
        for subject in words["state"].get("subjects") or {}:
            _, _, namespace, plugin, _ = str(subject).split(".")
            if self._calls.roster.find(namespace, plugin) is None:
                await self._remove(namespace, plugin, gone)

    async def _remove(
        self, namespace: str, plugin: str, gone: Callable[[str, str, str], Awaitable[bool]]
    ) -> None:
        found = await self._last(mirror.subject(namespace, plugin, OWNER))
        owner = None if found is None else Owner.decode(found[1])
        if owner is None or owner.keep or not owner.uid or not await gone(namespace, plugin, owner.uid):
            return
        follower = await self._open((namespace, plugin))
        async with follower.lock:
            await self._catch_up(follower)
            if follower.mirror.owner == owner:
                void = Owner("", owner.born, keep=False, since=follower.mirror.last + 1)
                await self._own(follower, void)
                log.info("%s/%s: the store of a plugin that is gone was removed", namespace, plugin)
        if self._followers.get((namespace, plugin)) is follower:
            del self._followers[namespace, plugin]
        follower.end()


class _Watching:
    """Watches, of stores that are followed for them."""

    def __init__(self, stores: KeptStores) -> None:
        self._stores = stores
        self._watches = stores._watches  # noqa: SLF001 - its own part

    def begin(self, call: Call) -> None:
        """Follow the store, and tell what changes from then on."""
        self._stores._start(self._begin(call))  # noqa: SLF001 - the same

    async def _begin(self, call: Call) -> None:
        try:
            member = self._stores._owner_of(call)  # noqa: SLF001 - the same
            follower = await self._stores._open(member.key)  # noqa: SLF001 - the same
            async with follower.lock:
                await self._stores._claim(follower, member)  # noqa: SLF001 - the same
        except Refused as refusal:
            self._stores._calls.fail(call, refusal.code, str(refusal), refusal.headers)  # noqa: SLF001
            return
        except Unavailable as error:
            self._stores._calls.fail(call, Code.UNAVAILABLE, str(error))  # noqa: SLF001 - the same
            return
        if call.open:
            self._watches.begin(call)

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:
        """Send what waited."""
        self._watches.credit(call, items)

    def cancelled(self, call: Call) -> None:
        """Somebody watches no more."""
        self._watches.cancelled(call)

    def permits(self, call: Call) -> bool:
        """Say whether the watcher may still look into that store."""
        return self._watches.permits(call)


_NO_STREAM: Final = 10059


def _error_of(words: Mapping[str, Any]) -> int:
    error = words.get("error")
    return int(error.get("err_code", 0)) if isinstance(error, dict) else 0


def _refusal(words: Mapping[str, Any]) -> Exception:
    error = words.get("error")
    said = str(error.get("description", ""))[:200] if isinstance(error, dict) else "it does not say why"
    if _error_of(words) in _FULL:
        return Refused(Code.STORE_FULL, f"the backbone has no room for more: {said}")
    return Unavailable(said)
