"""A copy of one collection of the cluster: listed once, then followed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from crucible.errors import CrucibleError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.runtimes.kubernetes.cluster import Cluster

    Told = Callable[["Object | None", "Object | None"], None]

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""
Object = dict[str, Any]
_WATCH_SECONDS: Final = 240
_PAGE: Final = 500
_RETRY_FIRST: Final = 0.2
_RETRY_LONGEST: Final = 10.0
_PAUSE: Final = 0.05
"""Seconds between two watches, so that a server that ends each at once is not overrun."""
_GONE: Final = 410


class _Forgotten(Exception):
    """The server does not know any more what came after the version we have."""


class Reflector:
    """Follows one collection, across whatever ends a watch.

    Attributes:
        path: of the collection.
        problem: why it does not follow now; empty while it does. What it holds meanwhile was known last.
        listed: set once it knows, or has failed to know, what there is.
    """

    def __init__(self, cluster: Cluster, path: str, selector: str, told: Told) -> None:
        """Follow what a label selector selects; ``told`` hears of every change: before, and after."""
        self.problem = "the cluster has not been listed yet"
        self.listed = asyncio.Event()
        self._cluster = cluster
        self.path = path
        self._selector = selector
        self._told = told
        self._objects: dict[Key, Object] = {}
        self._since = ""
        self._failures = 0

    @property
    def objects(self) -> list[Object]:
        """What there is, as far as is known."""
        return list(self._objects.values())

    def find(self, namespace: str, name: str) -> Object | None:
        """Return one object as it was last seen."""
        return self._objects.get((namespace, name))

    def take(self, found: Object) -> None:
        """Take in an object that the server just answered with, unless a newer one is known.

        An answer may come after the watch has told of all that followed, the object's end among it.
        """
        before = self._objects.get(key_of(found))
        known = before is not None and _uid(before) == _uid(found)
        if known or _version(found) > _number(self._since):
            self._take(found)

    def _take(self, found: Object) -> None:
        key = key_of(found)
        before = self._objects.get(key)
        if before is not None and _version(before) >= _version(found) and _uid(before) == _uid(found):
            return
        found["metadata"].pop("managedFields", None)
        self._objects[key] = found
        self._told(before, found)

    def drop(self, found: Object) -> None:
        """Take in that an object is no more."""
        before = self._objects.get(key_of(found))
        if before is not None and _uid(before) == _uid(found):
            del self._objects[key_of(found)]
            self._told(before, None)

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow until cancelled; ``changed`` is called when :attr:`problem` begins or ends."""
        while True:
            try:
                if not self._since:
                    self._since = await self._list()
                await self._follow(changed)
                await asyncio.sleep(_PAUSE)
            except _Forgotten:
                log.info("%s: listed anew, the server has forgotten version %s", self.path, self._since)
                self._since = ""
            except CrucibleError as error:
                self._failures += 1
                if not error.retry:
                    self._since = ""
                if self._failures > 1 or not self.listed.is_set():  # a watch that is cut goes on at once
                    self._fail(f"{self.path} cannot be followed: {error}", changed)
                await asyncio.sleep(min(_RETRY_FIRST * 2.0 ** (self._failures - 1), _RETRY_LONGEST))

    def _fail(self, problem: str, changed: Callable[[], None]) -> None:
        begins = not self.problem or not self.listed.is_set()
        if begins:
            log.warning("%s", problem)
        self.problem = problem
        self.listed.set()
        if begins:
            changed()

    async def _list(self) -> str:
        """Take in all there is; return the version to go on from."""
        params = {"labelSelector": self._selector, "limit": str(_PAGE)}
        found: list[Object] = []
        while True:
            page = await self._cluster.get(self.path, params)
            found += page.get("items") or ()
            params["continue"] = str(page["metadata"].get("continue") or "")
            if not params["continue"]:
                break
        version = str(page["metadata"].get("resourceVersion", ""))
        keys = {key_of(item) for item in found}
        for item in self.objects:
            # What we made after the server read its list cannot be in it.
            if key_of(item) not in keys and _version(item) <= _number(version):
                self.drop(item)
        for item in found:
            self._take(item)
        return version

    async def _follow(self, changed: Callable[[], None]) -> None:
        """Take in changes until the server ends the watch."""
        params = {
            "labelSelector": self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._since,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        async with self._cluster.watch(self.path, params) as events:
            self._failures = 0
            if self.problem:
                self.problem = ""
                self.listed.set()
                changed()
            async for event in events:
                self._hear(event)
                self._since = str(event["object"]["metadata"]["resourceVersion"])

    def _hear(self, event: Object) -> None:
        found = event["object"]
        match event["type"]:
            case "ADDED" | "MODIFIED":
                self._take(found)
            case "DELETED":
                self.drop(found)
            case "BOOKMARK":
                return
            case "ERROR" if found.get("code") == _GONE:
                raise _Forgotten
            case _:
                raise Unavailable(str(found.get("message") or f"an event of type {event['type']}"))


def key_of(found: Object) -> Key:
    """Return where an object is."""
    meta = found["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _uid(found: Object) -> str:
    return str(found["metadata"].get("uid", ""))


def _version(found: Object) -> int:
    return _number(found["metadata"].get("resourceVersion", ""))


def _number(version: str) -> int:
    """Return a version as a number: API servers promise that they can be compared as such."""
    return int(version) if version.isdecimal() else 0
