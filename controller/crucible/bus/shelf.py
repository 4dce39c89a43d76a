"""All stores of this machine as files in one folder, and which of them are open. For the store's thread."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

from crucible.bus.bucket import Bucket
from crucible.bus.records import about_of
from crucible.bus.room import has_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crucible.model.bus import Member

MEMORY: Final = 96 * 1024 * 1024
"""Bytes that the keys of all open stores may take of the broker's memory, which is 512 MiB.

While more are taken, only stores with less than 1.5 MiB of it take further keys, up to twice as much in all:
none that is small is refused because others are large.
"""


class Shelf:
    """Opens each store when it is needed, and remembers in its file whose it is and whether it is kept."""

    def __init__(self, folder: int, memory: int = MEMORY) -> None:
        """Begin with none open.

        Args:
            folder: descriptor of the directory.
            memory: bytes for the keys of all that are open.
        """
        self._folder = folder
        self._limit = memory
        self._open: dict[tuple[str, str], tuple[str, Bucket]] = {}
        self.memory = 0
        """Bytes that the keys of all open stores take."""

    def open(self, member: Member) -> Bucket:
        """Return a plugin's store.

        Raises:
            OSError: it cannot be read or written.
        """
        uid, bucket = self._open.pop(member.key, ("", None))
        if bucket is not None and uid != member.uid:
            self._shut(bucket)
            bucket = None
        if bucket is None:
            name = file_of(member.key)
            before = _read_about(self._folder, name)
            if before.get("uid", member.uid) != member.uid and not before.get("keep"):
                os.unlink(name, dir_fd=self._folder)
            bucket = Bucket(self._folder, name)
            self.memory += bucket.memory
        self._open[member.key] = (member.uid, bucket)  # the one that was used last stands last
        self._make_room()
        bucket.describe(_about(member))
        return bucket

    def put(self, member: Member, key: str, value: bytes, expected: int | None) -> tuple[Bucket, int]:
        """Keep a value in a plugin's store; return that and the revision.

        Raises:
            Changed, Full, OSError: as :meth:`Bucket.put`.
        """
        bucket = self.open(member)
        may_grow = has_room(self._limit, self.memory, bucket.memory)
        size = member.grants.store or 0
        with self._counting(bucket):
            return bucket, bucket.put(key, value, expected, size, may_grow=may_grow)

    def delete(self, member: Member, key: str, expected: int | None) -> tuple[Bucket, int | None]:
        """Delete a key of a plugin's store; return that and the revision.

        Raises:
            Changed, OSError: as :meth:`Bucket.delete`.
        """
        bucket = self.open(member)
        with self._counting(bucket):
            return bucket, bucket.delete(key, expected)

    def note(self, members: Iterable[Member]) -> None:
        """Bring what files say of these Plugins up to date, where there are files: it is all that lasts."""
        for member in members:
            before = _read_about(self._folder, file_of(member.key))
            if before.get("uid") == member.uid and before.get("keep") != member.grants.keep_store:
                with contextlib.suppress(OSError):  # no room: it is written with whatever is written next
                    self.open(member).sync()

    def keep(self, wanted: set[str]) -> None:
        """Remove the data of Plugins that did not want it kept and whose uid is not among these."""
        for name in os.listdir(self._folder):  # noqa: PTH208 - there is a descriptor, not a path
            about = _read_about(self._folder, name)
            if not about or about["keep"] or about["uid"] in wanted:
                continue
            uid, bucket = self._open.get((about["namespace"], about["plugin"]), ("", None))
            if bucket is not None and uid == about["uid"]:
                self._shut(bucket)
                del self._open[about["namespace"], about["plugin"]]
            os.unlink(name, dir_fd=self._folder)

    def close(self) -> None:
        """Let go of all files."""
        for _, bucket in self._open.values():
            self._shut(bucket)
        self._open.clear()

    @contextlib.contextmanager
    def _counting(self, bucket: Bucket) -> Iterator[None]:
        before = bucket.memory
        try:
            yield
        finally:
            self.memory += bucket.memory - before

    def _make_room(self) -> None:
        """Let go of stores that were not used for longest: they are read anew when they are needed again."""
        while self.memory > 2 * self._limit and len(self._open) > 1:
            key, (_, bucket) = next(iter(self._open.items()))
            bucket.sync()
            del self._open[key]
            self._shut(bucket)

    def _shut(self, bucket: Bucket) -> None:
        self.memory -= bucket.memory
        bucket.close()


def file_of(key: tuple[str, str]) -> str:
    """Return the name of the file of a plugin's store, by namespace and name."""
    return hashlib.sha256("/".join(key).encode()).hexdigest()[:40]


def _about(member: Member) -> bytes:
    about = {
        "namespace": member.namespace,
        "plugin": member.plugin,
        "uid": member.uid,
        "keep": member.grants.keep_store,
    }
    return json.dumps(about).encode()


def _read_about(folder: int, name: str) -> dict[str, Any]:
    """Return whose a file is; empty when it is nobody's yet, or not there."""
    try:
        return dict(json.loads(about_of(folder, name) or b"{}"))
    except ValueError:
        return {}
