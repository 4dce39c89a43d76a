"""One plugin's key-value data: a file that only grows, read from its end back to what is still true.

A record is a checksum, a revision, an operation, a key and a value. Whatever was written before a crash is
there afterwards; a record that was cut off by one is dropped, and everything before it kept. Once most of a
file is past, it is written anew beside and takes the old one's place. Blocking: for a thread
of its own.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import re
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from crucible.bus.records import ABOUT, DELETE, PUT, open_file, record_of, records, write
from crucible.errors import CrucibleError

_ENTRY: Final = struct.Struct(">QQI")
_KEY: Final = re.compile(r"[A-Za-z0-9._/=-]{1,255}")
OVERHEAD: Final = 256
"""Bytes that an entry counts beside its key and value: what it takes of the broker's memory, measured."""
KEYS: Final = 65_536
"""Keys of one bucket, however small they are."""
SLACK: Final = 1024 * 1024
"""Bytes of the past that a file may hold beside as many as are still true."""


class Changed(CrucibleError):
    """Another revision is there than was expected.

    Attributes:
        revision: that one; 0: none is.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"is at revision {revision}" if revision else "is not there")
        self.revision = revision


class Full(CrucibleError):
    """It would hold more than it may."""


class Entry(NamedTuple):
    """One key that is there: its revision, where in the file its value begins, and how long that is.

    Kept packed: that takes a third of the memory, and gives the garbage collector nothing to walk through.
    """

    revision: int
    at: int
    size: int

    def pack(self) -> bytes:
        """Return it as bytes."""
        return _ENTRY.pack(*self)

    @classmethod
    def unpack(cls, packed: bytes) -> Entry:
        """Read what :meth:`pack` wrote."""
        return cls(*_ENTRY.unpack(packed))


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of keys.

    Attributes:
        entries: key, revision, bytes of the value; in the order of keys.
        more: there are further ones.
        used: bytes that count against the size.
    """

    entries: tuple[tuple[str, int, int], ...]
    more: bool
    used: int


def is_key(text: str) -> bool:
    """Say whether something can be kept under this name."""
    return _KEY.fullmatch(text) is not None


def weight(key: str, size: int) -> int:
    """Return what an entry counts against a store's size."""
    return len(key) + size + OVERHEAD


def footprint(key: str) -> int:
    """Return the bytes of memory that an entry takes; its value stays in the file."""
    return len(key) + OVERHEAD


class Bucket:
    """The data of one plugin, open."""

    def __init__(self, folder: int, name: str) -> None:
        """Open it, or begin it.

        Args:
            folder: descriptor of the directory.
            name: of the file in it.

        Raises:
            OSError: it cannot be read or written.
        """
        self._folder = folder
        self._name = name
        self._file = open_file(folder, name)
        self._entries: dict[str, bytes] = {}
        self._keys: list[str] = []
        self._about = b""
        self._revision = 0
        self._end = 0
        self.used = 0
        self.memory = 0
        """Bytes of memory that its entries take."""
        self._unsynced = True
        self._load()

    def describe(self, about: bytes) -> None:
        """Say whose it is; written when that is new.

        Raises:
            OSError: it could not be.
        """
        if about == self._about:
            return
        before, self._about = self._about, about
        try:
            if before:
                self._rewrite()  # what it says stands first in the file, where about_of looks for it
            else:
                self._append(ABOUT, self._revision, "", about)
        except OSError:
            self._about = before
            raise

    def get(self, key: str) -> tuple[int, bytes] | None:
        """Return a key's revision and value; None when it is not there."""
        entry = self._entry(key)
        return None if entry is None else (entry.revision, os.pread(self._file, entry.size, entry.at))

    def put(self, key: str, value: bytes, expected: int | None, size: int, *, may_grow: bool = True) -> int:
        """Keep a value; return its revision.

        Args:
            key: where.
            value: what.
            expected: the revision it must replace; 0: none may be there; None: any.
            size: bytes the bucket may hold.
            may_grow: there is memory for one more key.

        Raises:
            Changed: another revision is there.
            Full: the size, the number of keys or the memory for them is used up.
            OSError: it could not be written; what was there is still there.
        """
        before = self._expect(key, expected)
        used = self.used + weight(key, len(value)) - (0 if before is None else weight(key, before.size))
        if used > size and used > self.used:
            raise Full(f"{self.used} of {size} bytes are used, and this needs {used - self.used} more")
        if before is None and len(self._entries) >= KEYS:
            raise Full(f"it holds {KEYS} keys, which is as many as a store may: put more into each")
        if before is None and not may_grow:
            raise Full("all stores of this machine together hold as many keys as fit the broker's memory")
        revision = self._revision + 1
        at = self._append(PUT, revision, key, value)
        if before is None:
            bisect.insort(self._keys, key)
            self.memory += footprint(key)
        self._entries[key] = Entry(revision, at, len(value)).pack()
        self._revision, self.used = revision, used
        return revision

    def delete(self, key: str, expected: int | None) -> int | None:
        """Delete a key; return the revision of that, None when it was not there.

        Raises:
            Changed: another revision is there.
            OSError: it could not be written.
        """
        before = self._expect(key, expected)
        if before is None:
            return None
        self._revision += 1
        self._append(DELETE, self._revision, key, b"")
        del self._entries[key]
        del self._keys[bisect.bisect_left(self._keys, key)]
        self.used -= weight(key, before.size)
        self.memory -= footprint(key)
        return self._revision

    def list(self, prefix: str, after: str, limit: int) -> Listed:
        """Return the keys that begin with a prefix and come after another."""
        first = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, after))
        page = list(
            itertools.takewhile(lambda key: key.startswith(prefix), self._keys[first : first + limit + 1])
        )
        found = ((key, Entry.unpack(self._entries[key])) for key in page[:limit])
        entries = tuple((key, entry.revision, entry.size) for key, entry in found)
        return Listed(entries, len(page) > limit, self.used)

    def sync(self) -> None:
        """Return once all that was written outlives a loss of power."""
        if self._unsynced and self._file >= 0:
            if self._end > 2 * self.used + SLACK:
                with contextlib.suppress(OSError):  # no room to tidy up: what there is stays as it is
                    self._rewrite()
            os.fdatasync(self._file)
            self._unsynced = False

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
        self._file = -1

    def _entry(self, key: str) -> Entry | None:
        packed = self._entries.get(key)
        return None if packed is None else Entry.unpack(packed)

    def _expect(self, key: str, expected: int | None) -> Entry | None:
        before = self._entry(key)
        if expected is not None and expected != (0 if before is None else before.revision):
            raise Changed(0 if before is None else before.revision)
        return before

    def _append(self, operation: int, revision: int, key: str, value: bytes) -> int:
        """Write a record at the end; return where its value begins."""
        record = record_of(operation, revision, key, value)
        try:
            write(self._file, record, self._end)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(record)
        self._unsynced = True
        return self._end - len(value)

    def _load(self) -> None:
        for operation, revision, key, value, at in records(self._file):
            before = self._entries.pop(key, None)
            if before is not None:
                self.used -= weight(key, Entry.unpack(before).size)
            if operation == PUT:
                self._entries[key] = Entry(revision, at, len(value)).pack()
                self.used += weight(key, len(value))
            elif operation == ABOUT:
                self._about = value
            self._revision = max(self._revision, revision)
            self._end = at + len(value)
        self._keys = sorted(self._entries)
        self.memory = sum(map(footprint, self._keys))
        os.ftruncate(self._file, self._end)

    def _rewrite(self) -> None:
        """Write what is still true to a new file, which takes this one's place."""
        fresh_name = f"{self._name}.new"
        fresh = open_file(self._folder, fresh_name, os.O_TRUNC)
        entries: dict[str, bytes] = {}
        try:
            end = write(fresh, record_of(ABOUT, self._revision, "", self._about), 0)
            for key, packed in self._entries.items():
                revision, at, size = Entry.unpack(packed)
                end += write(fresh, record_of(PUT, revision, key, os.pread(self._file, size, at)), end)
                entries[key] = Entry(revision, end - size, size).pack()
            os.fdatasync(fresh)
            os.rename(fresh_name, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError:
            os.close(fresh)
            raise
        os.close(self._file)
        self._file, self._entries, self._end = fresh, entries, end
