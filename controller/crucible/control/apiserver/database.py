"""The SQLite file: objects, the log of changes, and the newest revision.

Every method blocks and belongs on the store's writer thread. One transaction holds a whole batch of
writes; it is on disk (WAL, ``synchronous=FULL``) when ``write`` returns. The file follows what is in it, down
as well as up: ``give_back`` returns free pages to the system, a few at a time.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from crucible.errors import InvalidInput, Unavailable

from .keys import Event, EventType, Key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA_VERSION = 1
FIRST_REVISION = 1000
PRUNE_EVERY = 1000
PRUNE_BYTES = 16 * 2**20
"""The log is cleared after so many writes, or so many bytes of them."""
INCREMENTAL = 2
"""SQLite's number for ``auto_vacuum=INCREMENTAL``."""
SPARE_PAGES = 256
"""Free pages kept for the writes to come: 1 MiB, or a quarter of a larger file."""
PAGES_AT_ONCE = 64
WAL_BYTES = 4 * 2**20
_LOG = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    collection TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    revision INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (collection, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
    revision INTEGER PRIMARY KEY, type TEXT NOT NULL,
    collection TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    body BLOB NOT NULL, previous BLOB);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


class Seal(Protocol):
    """How object bytes are kept on disk; the plain one keeps them as they are."""

    def close(self, key: Key, raw: bytes) -> bytes:
        """The bytes to store."""

    def open(self, key: Key, stored: bytes) -> bytes:
        """The bytes that were given to ``close``.

        Raises:
            InvalidInput: The key file does not fit what is stored.
        """


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a database file held when it was opened."""

    objects: list[tuple[Key, int, bytes]]
    log: list[Event]
    revision: int


class Database:
    """One open database file."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self._path = path
        self._seal = seal
        self._bytes_since_prune = 0
        self._writes_since_prune = PRUNE_EVERY  # the first write clears what an earlier process left
        try:
            self._link = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
            self._prepare()
        except sqlite3.Error as error:
            raise _explained(path, error) from error

    def _prepare(self) -> None:
        link = self._link
        link.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")  # heeded where there is no table yet
        link.execute("PRAGMA journal_mode=WAL")
        link.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
        link.execute("PRAGMA synchronous=FULL")
        link.execute("PRAGMA cache_size=-2000")
        (verdict,) = link.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        (version,) = link.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise InvalidInput(f"{self._path} was written by a newer release (format {version})")
        self._convert()
        link.executescript(_SCHEMA)
        link.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._path.chmod(0o600)

    def _convert(self) -> None:
        """Rewrite a file from before pages were given back; without room for that, it stays as it is."""
        link = self._link
        if link.execute("PRAGMA auto_vacuum").fetchone()[0] == INCREMENTAL:
            return
        try:
            link.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
            link.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            _LOG.warning("%s is not compacted: %s", self._path, error)

    def load(self) -> Contents:
        """Everything stored, the log oldest first."""
        try:
            rows = self._link.execute("SELECT collection, namespace, name, revision, body FROM objects")
            objects = [
                (key := Key(*row[:3]), int(row[3]), self._seal.open(key, row[4])) for row in rows.fetchall()
            ]
            rows = self._link.execute(
                "SELECT revision, type, collection, namespace, name, body, previous FROM log "
                "ORDER BY revision"
            )
            log = [self._event(row) for row in rows.fetchall()]
            row = self._link.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        except sqlite3.Error as error:
            raise _explained(self._path, error) from error
        return Contents(objects, log, int(row[0]) if row else FIRST_REVISION)

    def _event(self, row: tuple[int, str, str, str, str, bytes, bytes | None]) -> Event:
        key = Key(row[2], row[3], row[4])
        previous = None if row[6] is None else self._seal.open(key, row[6])
        return Event(cast("EventType", row[1]), row[0], key, self._seal.open(key, row[5]), previous)

    def write(self, events: Sequence[Event], floor: int) -> None:
        """Apply ``events`` in one durable transaction; log rows up to ``floor`` may be dropped.

        Raises:
            Unavailable: Nothing of the batch was written.
        """
        link = self._link
        try:
            link.execute("BEGIN IMMEDIATE")
            try:
                for event in events:
                    self._apply(event)
                link.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (events[-1].revision,))
                self._prune(len(events), floor)
                link.execute("COMMIT")
            except BaseException:
                if link.in_transaction:
                    link.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise Unavailable(f"cannot write {self._path}: {error}") from error

    def _apply(self, event: Event) -> None:
        link, key = self._link, event.key
        raw = self._seal.close(key, event.raw)
        previous = None if event.previous is None else self._seal.close(key, event.previous)
        if event.type == "DELETED":
            link.execute("DELETE FROM objects WHERE collection=? AND namespace=? AND name=?", key)
        else:
            link.execute("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?)", (*key, event.revision, raw))
        self._bytes_since_prune += len(raw) + len(previous or b"")
        link.execute(
            "INSERT INTO log VALUES (?,?,?,?,?,?,?)", (event.revision, event.type, *key, raw, previous)
        )

    def _prune(self, written: int, floor: int) -> None:
        self._writes_since_prune += written
        if self._writes_since_prune >= PRUNE_EVERY or self._bytes_since_prune >= PRUNE_BYTES:
            self._writes_since_prune = self._bytes_since_prune = 0
            self._link.execute("DELETE FROM log WHERE revision <= ?", (floor,))

    def give_back(self) -> bool:
        """Return a few free pages to the system; True if there are more to return.

        Raises:
            Unavailable: The file cannot be written; nothing is lost.
        """
        link = self._link
        try:
            (free,) = link.execute("PRAGMA freelist_count").fetchone()
            (pages,) = link.execute("PRAGMA page_count").fetchone()
            if free <= max(SPARE_PAGES, pages // 4):
                return False
            link.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
            if free - PAGES_AT_ONCE > max(SPARE_PAGES, (pages - PAGES_AT_ONCE) // 4):
                return True
            link.execute("PRAGMA busy_timeout=0")  # a reader's moment is kept for it; the next time will do
            link.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            link.execute("PRAGMA busy_timeout=2000")
        except sqlite3.Error as error:
            raise Unavailable(f"cannot compact {self._path}: {error}") from error
        return False

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        try:
            self._link.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._link.close()

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy of the whole database to ``target``."""
        with sqlite3.connect(target) as copy:
            self._link.backup(copy)
        copy.close()
        target.chmod(0o600)


class PlainSeal:
    """Keeps bytes as they are."""

    def close(self, _key: Key, raw: bytes) -> bytes:
        """The bytes themselves."""
        return raw

    def open(self, _key: Key, stored: bytes) -> bytes:
        """The bytes themselves."""
        return stored


def _explained(path: Path, error: sqlite3.Error) -> InvalidInput | Unavailable:
    text = str(error)
    if "locked" in text or "busy" in text:
        return Unavailable(f"{path} is in use by another program; close it and start again")
    return InvalidInput(
        f"{path} is damaged ({text}). Restore a backup with `crucible restore`, "
        "or move the file away to start empty"
    )
