"""A copy of a local control plane's database, taken by a reader beside its one owner, or while it is stopped.

SQLite's write-ahead log lets another process read one consistent moment while the owner writes on. Every
write the API server answered is in the log before it answers, so a copy holds all of them.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from crucible.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = "control.db"


def write_backup(control: Path, target: Path) -> int:
    """Copy the database of a state folder to one file, mode 0600, whole or not at all; return its objects.

    Raises:
        NotFound: the folder has no database.
        InvalidInput: it is damaged, or the target cannot be written.
    """
    source = control / DATABASE
    if not source.is_file():
        raise NotFound(f"there is no control plane's database at {source}: name its folder with --state")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written: {error.strerror}") from None
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as link:
            link.execute("PRAGMA query_only=1")
            with closing(sqlite3.connect(draft)) as copy:
                link.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        count = objects_in(draft)
        draft.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise InvalidInput(f"{source}: cannot be copied to {target}: {error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return count


def objects_in(path: Path) -> int:
    """Return how many objects a backup holds.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is no backup, or a damaged one.
    """
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as link:
            (verdict,) = link.execute("PRAGMA quick_check(1)").fetchone()
            ((count,),) = link.execute("SELECT count(*) FROM objects").fetchall()
            revision = link.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
    except sqlite3.Error as error:
        raise InvalidInput(f"{path} is not a backup of a control plane: {error}") from None
    if verdict != "ok" or revision is None:
        raise InvalidInput(f"{path} is a damaged backup: {verdict}")
    return int(count)
