"""``$store.…``: plugins' key-value data, kept in files by one thread.

Every plugin has a bucket of its own and reaches no other. What waits for the thread is done together and made
safe together; an answer comes once its write outlives a loss of power.
"""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from crucible.bus.bucket import Changed, Full
from crucible.bus.call import Refused
from crucible.bus.shelf import Shelf
from crucible.bus.verbs import CHANGES, PAGE, Request, Verbs
from crucible.bus.wire import Code, Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from crucible.bus.bucket import Bucket
    from crucible.bus.calls import Calls
    from crucible.bus.ledger import Ledger
    from crucible.model.bus import Member

log = logging.getLogger(__name__)


class Stores(Verbs):
    """All buckets of this machine. What begins with ``_do`` runs in the thread, all else in the loop."""

    def __init__(self, calls: Calls, ledger: Ledger, folder: int) -> None:
        """Serve from a folder.

        Args:
            calls: where requests come from.
            ledger: where faults are counted.
            folder: its descriptor.
        """
        super().__init__(calls, ledger)
        self._shelf = Shelf(folder)
        self._told: dict[tuple[str, str], Member] = {}
        self._thread = ThreadPoolExecutor(1, "store")
        self._queue: list[Request] = []
        self._work: asyncio.Task[None] | None = None

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

    def _take(self, request: Request) -> None:
        self._queue.append(request)
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Have the thread do all that waits, until nothing does."""
        loop = asyncio.get_running_loop()
        while self._queue:
            requests, self._queue = self._queue, []
            answers = await loop.run_in_executor(self._thread, self._do, requests)
            for request, answer in zip(requests, answers, strict=True):
                self._finish(request, answer)
                if isinstance(answer, Frame) and request.call.method in CHANGES:
                    headers = {**answer.headers, "op": CHANGES[request.call.method]}
                    self._watches.tell(request.member.key, request.key, headers, request.call.frame.payload)
        self._work = None

    # In the thread.

    def _do(self, requests: list[Request]) -> list[Frame | Refused]:
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

    def _do_one(self, request: Request, touched: set[Bucket]) -> Frame:
        member, frame = request.member, request.call.frame
        headers = frame.headers
        match request.call.method:
            case "$store.get":
                found = self._shelf.open(member).get(request.key)
                if found is None:
                    raise Refused(Code.NOT_FOUND, f"there is no key {request.key}")
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
            raise Refused(Code.NOT_FOUND, f"there is no key {request.key}")
        touched.add(bucket)
        return Frame(Kind.ANSWER, headers={"revision": str(revision)})
