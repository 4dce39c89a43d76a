"""One plugin's key-value data: a file that only grows, read from its end back to what is still true.

A record is a checksum, a revision, an operation, a key and a value. Whatever was written before a crash is
there afterwards; a record that was cut off by one is dropped, and everything before it kept. Once most of a
file is past, it is written anew beside and takes the old one's place. Files are reached by a descriptor of
their folder alone, because the broker may walk nowhere else. Blocking: for a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECORD: Final = struct.Struct(">IQBHI")
_PUT, _DELETE, _ABOUT = 1, 2, 3
_KEY: Final = re.compile(r"[A-Za-z0-9._/=-]{1,255}")
OVERHEAD: Final = 32
"""Bytes that an entry counts beside its key and value."""
SLACK: Final = 1024 * 1024
"""Bytes of the past that a file may hold beside as many as are still true."""
_READ: Final = 1024 * 1024
_LONGEST: Final = 4 * 1024 * 1024


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
    """One key that is there: its revision, where in the file its value begins, and how long that is."""

    revision: int
    at: int
    size: int


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
        self._file = _open(folder, name)
        self._entries: dict[str, Entry] = {}
        self._about = b""
        self._revision = 0
        self._end = 0
        self.used = 0
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
                self._append(_ABOUT, self._revision, "", about)
        except OSError:
            self._about = before
            raise

    def get(self, key: str) -> tuple[int, bytes] | None:
        """Return a key's revision and value; None when it is not there."""
        entry = self._entries.get(key)
        return None if entry is None else (entry.revision, os.pread(self._file, entry.size, entry.at))

    def put(self, key: str, value: bytes, expected: int | None, size: int) -> int:
        """Keep a value; return its revision.

        Args:
            key: where.
            value: what.
            expected: the revision it must replace; 0: none may be there; None: any.
            size: bytes the bucket may hold.

        Raises:
            Changed: another revision is there.
            Full: the size is used up.
            OSError: it could not be written; what was there is still there.
        """
        before = self._expect(key, expected)
        used = self.used + weight(key, len(value)) - (0 if before is None else weight(key, before.size))
        if used > size and used > self.used:
            raise Full(f"{self.used} of {size} bytes are used, and this needs {used - self.used} more")
        revision = self._revision + 1
        at = self._append(_PUT, revision, key, value)
        self._entries[key] = Entry(revision, at, len(value))
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
        self._append(_DELETE, self._revision, key, b"")
        del self._entries[key]
        self.used -= weight(key, before.size)
        return self._revision

    def list(self, prefix: str, after: str, limit: int) -> Listed:
        """Return the keys that begin with a prefix and come after another."""
        keys = sorted(key for key in self._entries if key.startswith(prefix) and key > after)
        page = keys[:limit]
        found = tuple((key, self._entries[key].revision, self._entries[key].size) for key in page)
        return Listed(found, len(keys) > limit, self.used)

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

    def _expect(self, key: str, expected: int | None) -> Entry | None:
        before = self._entries.get(key)
        if expected is not None and expected != (0 if before is None else before.revision):
            raise Changed(0 if before is None else before.revision)
        return before

    def _append(self, operation: int, revision: int, key: str, value: bytes) -> int:
        """Write a record at the end; return where its value begins."""
        record = _record(operation, revision, key, value)
        try:
            _write(self._file, record, self._end)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(record)
        self._unsynced = True
        return self._end - len(value)

    def _load(self) -> None:
        for operation, revision, key, value, at in _records(self._file):
            before = self._entries.pop(key, None)
            if before is not None:
                self.used -= weight(key, before.size)
            if operation == _PUT:
                self._entries[key] = Entry(revision, at, len(value))
                self.used += weight(key, len(value))
            elif operation == _ABOUT:
                self._about = value
            self._revision = max(self._revision, revision)
            self._end = at + len(value)
        os.ftruncate(self._file, self._end)

    def _rewrite(self) -> None:
        """Write what is still true to a new file, which takes this one's place."""
        fresh_name = f"{self._name}.new"
        fresh = _open(self._folder, fresh_name, os.O_TRUNC)
        entries: dict[str, Entry] = {}
        try:
            end = _write(fresh, _record(_ABOUT, self._revision, "", self._about), 0)
            for key, entry in self._entries.items():
                value = os.pread(self._file, entry.size, entry.at)
                end += _write(fresh, _record(_PUT, entry.revision, key, value), end)
                entries[key] = Entry(entry.revision, end - entry.size, entry.size)
            os.fdatasync(fresh)
            os.rename(fresh_name, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError:
            os.close(fresh)
            raise
        os.close(self._file)
        self._file, self._entries, self._end = fresh, entries, end


def about_of(folder: int, name: str) -> bytes:
    """Return whose a bucket is, as it was last told; empty when that cannot be read."""
    file = _open(folder, name)
    try:
        return next((value for operation, _, _, value, _ in _records(file) if operation == _ABOUT), b"")
    finally:
        os.close(file)


def _open(folder: int, name: str, more: int = 0) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | more
    return os.open(name, flags, 0o600, dir_fd=folder)


def _record(operation: int, revision: int, key: str, value: bytes) -> bytes:
    key_bytes = key.encode()
    body = _RECORD.pack(0, revision, operation, len(key_bytes), len(value))[4:] + key_bytes + value
    return zlib.crc32(body).to_bytes(4, "big") + body


def _write(file: int, data: bytes, at: int) -> int:
    written = 0
    while written < len(data):
        written += os.pwrite(file, memoryview(data)[written:], at + written)
    return written


def _records(file: int) -> Iterator[tuple[int, int, str, bytes, int]]:
    """Yield operation, revision, key, value and where the value begins, of every record that is whole."""
    at, kept = 0, b""
    while True:
        chunk = os.pread(file, _READ, at + len(kept))
        kept += chunk
        read = 0
        while len(kept) - read >= _RECORD.size:
            crc, revision, operation, key_size, value_size = _RECORD.unpack_from(kept, read)
            size = _RECORD.size + key_size + value_size
            if value_size > _LONGEST:
                return
            if len(kept) - read < size:
                break
            body = kept[read + 4 : read + size]
            if zlib.crc32(body) != crc:
                return
            value_at = _RECORD.size - 4 + key_size
            key = body[_RECORD.size - 4 : value_at].decode()
            yield operation, revision, key, body[value_at:], at + read + 4 + value_at
            read += size
        at, kept = at + read, kept[read:]
        if not chunk:
            return
