"""``$store.…``: plugins' key-value data, kept in files by one thread.

Every plugin has a bucket of its own and reaches no other. What waits for the thread is done together and made
safe together; an answer comes once its write outlives a loss of power.
"""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.bus.bucket import Changed, Full, is_key
from crucible.bus.call import Refused
from crucible.bus.ledger import Fault
from crucible.bus.shelf import Shelf
from crucible.bus.watches import Watches
from crucible.bus.wire import Code, Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from crucible.bus.bucket import Bucket
    from crucible.bus.call import Call, Service
    from crucible.bus.calls import Calls
    from crucible.bus.ledger import Ledger
    from crucible.model.bus import Member

WAITING_LIMIT: Final = 64
"""Requests of one plugin that may wait for the thread."""
PAGE: Final = 1000
log = logging.getLogger(__name__)

_LARGEST_REVISION: Final = 2**63
_CHANGES: Final = {"$store.put": "put", "$store.delete": "delete"}


@dataclass(slots=True)
class _Request:
    call: Call
    member: Member
    key: str
    expected: int | None = None


class Stores:
    """All buckets of this machine. What begins with ``_do`` runs in the thread, all else in the loop."""

    def __init__(self, calls: Calls, ledger: Ledger, folder: int) -> None:
        """Serve from a folder.

        Args:
            calls: where requests come from.
            ledger: where faults are counted.
            folder: its descriptor.
        """
        self._calls = calls
        self._ledger = ledger
        self._shelf = Shelf(folder)
        self._told: dict[tuple[str, str], Member] = {}
        self._watches = Watches(calls, self._owner_of)
        self._thread = ThreadPoolExecutor(1, "store")
        self._queue: list[_Request] = []
        self._waiting: dict[tuple[str, str], int] = {}
        self._work: asyncio.Task[None] | None = None

    def services(self) -> dict[str, Service]:
        """Return what is answered."""
        verbs = {f"$store.{verb}": self for verb in ("get", "put", "delete", "list")}
        return {**verbs, "$store.watch": self._watches}

    async def know(self, members: Iterable[Member]) -> None:
        """Learn of Plugins that are new or have changed; note at once whether their data is to be kept."""
        news = [member for member in members if self._is_news(member)]
        if news:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._shelf.note, news)

    def _is_news(self, member: Member) -> bool:
        before = self._told.get(member.key)
        self._told[member.key] = member
        return (
            before is None or before.uid != member.uid or before.grants.keep_store != member.grants.keep_store
        )

    async def keep(self, wanted: Iterable[str]) -> None:
        """Remove the data of Plugins that did not want it kept and whose uid is not among these."""
        uids = set(wanted)
        self._told = {key: member for key, member in self._told.items() if member.uid in uids}
        await asyncio.get_running_loop().run_in_executor(self._thread, self._shelf.keep, uids)

    async def close(self) -> None:
        """Finish what is under way."""
        if self._work is not None:
            await asyncio.wait({self._work})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._shelf.close)
        self._thread.shutdown()

    # A service, as calls see it.

    def begin(self, call: Call) -> None:
        """Let a request wait for the thread, or refuse it."""
        try:
            request = self._read(call)
        except Refused as refusal:
            self._fault(call, refusal)
            self._calls.fail(call, refusal.code, str(refusal))
            return
        key = request.member.key
        if self._waiting.get(key, 0) >= WAITING_LIMIT:
            self._ledger.fault(*key, Fault.OVERLOADED, call.method)
            self._calls.fail(call, Code.OVERLOADED, f"{WAITING_LIMIT} requests wait already")
            return
        self._waiting[key] = self._waiting.get(key, 0) + 1
        self._queue.append(request)
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._run())

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:
        """Nothing is sent in items."""

    def cancelled(self, call: Call) -> None:
        """What is written is written."""

    def permits(self, call: Call) -> bool:  # noqa: ARG002 - it was granted when it was asked for
        """Yes: it was granted when it was asked for, and is as good as done."""
        return True

    def _read(self, call: Call) -> _Request:
        """Check a request.

        Raises:
            Refused: it may not be, or makes no sense.
        """
        headers = call.frame.headers
        member = self._owner_of(call)
        key = headers.get("key", "")
        if call.method in ("$store.get", "$store.put", "$store.delete") and not is_key(key):
            raise Refused(Code.MALFORMED, "header key: 1 to 255 characters of A-Z a-z 0-9 . _ - / =")
        revision = headers.get("revision")
        if revision is None:
            return _Request(call, member, key)
        if not (revision.isascii() and revision.isdecimal() and int(revision[:20]) < _LARGEST_REVISION):
            raise Refused(Code.MALFORMED, "header revision: a number")
        return _Request(call, member, key, int(revision))

    def _owner_of(self, call: Call) -> Member:
        """Return whose store is meant: the caller's own; the host application says whose."""
        member = call.seat.member
        if call.seat.is_host:
            name = call.frame.headers.get("plugin", "")
            seat = self._calls.roster.find(member.namespace, name)
            if seat is None:
                raise Refused(Code.NO_SUCH_PLUGIN, f"header plugin: there is no plugin {name!r}")
            member = seat.member
        if member.grants.store is None:
            raise Refused(Code.NOT_PERMITTED, "the manifest lacks spec.capabilities.store: {size: …}")
        return member

    async def _run(self) -> None:
        """Have the thread do all that waits, until nothing does."""
        loop = asyncio.get_running_loop()
        while self._queue:
            requests, self._queue = self._queue, []
            answers = await loop.run_in_executor(self._thread, self._do, requests)
            for request, answer in zip(requests, answers, strict=True):
                self._finish(request, answer)
        self._work = None

    def _finish(self, request: _Request, answer: Frame | Refused) -> None:
        key = request.member.key
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
        call = request.call
        if isinstance(answer, Frame):
            self._calls.end(call, answer, told=True)
            if call.method in _CHANGES:
                headers = {**answer.headers, "op": _CHANGES[call.method]}
                self._watches.tell(key, request.key, headers, call.frame.payload)
        else:
            self._fault(call, answer)
            self._calls.fail(call, answer.code, str(answer), answer.headers)

    def _fault(self, call: Call, refusal: Refused) -> None:
        fault = {Code.NOT_PERMITTED: Fault.REFUSED, Code.STORE_FULL: Fault.STORE_FULL}.get(refusal.code)
        if fault is not None:
            self._ledger.fault(call.seat.member.namespace, call.seat.name, fault, call.method)

    # In the thread.

    def _do(self, requests: list[_Request]) -> list[Frame | Refused]:
        answers: list[Frame | Refused] = []
        touched: set[Bucket] = set()
        for request in requests:
            answer = self._guarded(lambda request=request: self._do_one(request, touched))  # type: ignore[misc]
            answers.append(answer)
        for bucket in touched:
            failure = self._guarded(lambda bucket=bucket: bucket.sync())  # type: ignore[misc]
            if isinstance(failure, Refused):
                return [failure for _ in answers]
        return answers

    @staticmethod
    def _guarded(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the work returns
        try:
            return work()
        except Refused as refusal:
            return refusal
        except Changed as change:
            return Refused(Code.CONFLICT, str(change), {"revision": str(change.revision)})
        except Full as full:
            return Refused(Code.STORE_FULL, str(full))
        except OSError as error:
            return Refused(Code.UNAVAILABLE, f"the store cannot be used now: {error.strerror}")
        except MemoryError:
            return Refused(Code.UNAVAILABLE, "the store cannot be used now: there is no memory left")
        except Exception:
            log.exception("a request to a store failed as nobody foresaw")  # and is no end of all others
            return Refused(Code.UNAVAILABLE, "the store cannot be used now: the broker's log says why")

    def _do_one(self, request: _Request, touched: set[Bucket]) -> Frame:
        member, frame = request.member, request.call.frame
        headers = frame.headers
        match request.call.method:
            case "$store.get":
                found = self._shelf.open(member).get(request.key)
                if found is None:
                    raise Refused(Code.NOT_FOUND, f"there is no {request.key}")
                return Frame(Kind.ANSWER, payload=found[1], headers={"revision": str(found[0])})
            case "$store.put":
                revision: int | None
                bucket, revision = self._shelf.put(member, request.key, frame.payload, request.expected)
            case "$store.delete":
                bucket, revision = self._shelf.delete(member, request.key, request.expected)
            case _:
                prefix, after = headers.get("prefix", ""), headers.get("after", "")
                page = self._shelf.open(member).list(prefix, after, PAGE)
                keys = [{"key": key, "revision": at, "size": size} for key, at, size in page.entries]
                told = {
                    "keys": keys,
                    "more": page.more,
                    "used": page.used,
                    "size": request.member.grants.store,
                }
                return Frame(Kind.ANSWER, payload=json.dumps(told, separators=(",", ":")).encode())
        if revision is None:
            raise Refused(Code.NOT_FOUND, f"there is no {request.key}")
        touched.add(bucket)
        return Frame(Kind.ANSWER, headers={"revision": str(revision)})
