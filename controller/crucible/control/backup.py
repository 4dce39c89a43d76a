"""One file that holds all a local control plane keeps: its database, plugins' sources and their stores.

The database is copied by a reader beside its one owner, or while that is stopped. SQLite's write-ahead log
lets another process read one consistent moment while the owner writes on, and every write the API server
answered is in the log before it answers. Snapshots never change, so it is enough that none of that moment is
gone before it was read; where one is, all is done again.

Stores are copied after that, each as it is at one moment: none is older than what the database says.

The file is a plain tar: ``backup.json`` (what to expect), ``control.db``, then the files of other rooms that
cannot be made again (``backbone/ca.key``), those that only grow (``stores/NAME``), and
``sources/DIGEST/PATH``.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, cast

from crucible.control.growing import Reading, names_in, standing
from crucible.errors import CrucibleError, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from crucible.control.growing import Growing
    from crucible.control.papers import Papers

DATABASE: Final = "control.db"
INDEX: Final = "backup.json"
SOURCES: Final = "sources"
FORMAT: Final = 1
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class SourceRules:
    """What makes a folder a snapshot: the caller knows, a control plane knows nothing of sources.

    Attributes:
        look: reads a folder and returns its digest and the paths of its files and links; raises a
            CrucibleError for what no snapshot may hold, such as a link that leaves it.
        entries: most files of one snapshot.
        size: most bytes of one.
    """

    look: Callable[[Path], tuple[str, frozenset[str]]]
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What a backup holds.

    Attributes:
        objects: how many.
        sources: how many snapshots.
        damaged: snapshots that are not what their names say, so they are not in it.
        papers: files of another room.
        stores: files of another room that only grow; None: it is of a release that kept none of them.
    """

    objects: int
    sources: int
    damaged: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()
    stores: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rooms:
    """What else there is to keep, in folders beside the database's: the caller knows.

    Attributes:
        papers: small files; None: none are kept.
        stores: files that only grow; None: none are kept.
    """

    papers: Papers | None = None
    stores: Growing | None = None


NO_ROOMS: Final = Rooms()


def write_backup(
    control: Path, sources: Path, target: Path, rules: SourceRules, rooms: Rooms = NO_ROOMS
) -> Kept:
    """Copy a database, the snapshots it needs and what rooms keep to one file, mode 0600, whole or not.

    Raises:
        NotFound: there is no database.
        InvalidInput: it is damaged, or papers are, or the target cannot be written.
    """
    source = control / DATABASE
    if not source.is_file():
        raise NotFound(
            f"there is no control plane's database at {source}: name its folder with --state; what a cluster "
            "holds is its own to back up"
        )
    papers = rooms.papers
    folder = control.parent / papers.name if papers is not None else control
    along = [folder / name for name in papers.found_in(folder)] if papers is not None else []
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    copy = draft.with_name(f"{draft.name}.db")
    try:
        for path in (draft, copy):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        kept = _write(source, sources, copy, _Draft(draft, along, rooms.stores, control.parent), rules)
        draft.replace(target)
    except (sqlite3.Error, tarfile.TarError) as error:
        raise InvalidInput(f"{source}: cannot be copied to {target}: {error}") from None
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    return kept


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a backup becomes: its file, and what of other rooms goes into it."""

    path: Path
    papers: Sequence[Path]
    stores: Growing | None
    root: Path


def _write(source: Path, sources: Path, copy: Path, draft: _Draft, rules: SourceRules) -> Kept:
    """Fill the draft, until nothing went that was there before the database was copied."""
    missing: set[str] = set()
    stores: tuple[str, ...] | None = None
    for _ in range(_TRIES):
        before = _snapshots(sources)
        _copy_database(source, copy)
        stored = {name for name in sorted(_snapshots(sources)) if _is_whole(sources / name, rules)}
        try:
            stores = _pack(draft, copy, sources, stored)
        except FileNotFoundError:
            continue
        missing = before - stored
        if not missing:
            break
    else:
        if not missing:
            raise InvalidInput(f"{sources}: changes faster than it can be copied: try again")
    along = tuple(path.name for path in draft.papers)
    return Kept(objects_in(copy), len(stored), tuple(sorted(missing)), along, stores)


def _snapshots(sources: Path) -> set[str]:
    if not sources.is_dir():
        return set()
    return {entry.name for entry in sources.iterdir() if DIGEST.fullmatch(entry.name)}


def _is_whole(folder: Path, rules: SourceRules) -> bool:
    try:
        return rules.look(folder)[0] == f"sha256:{folder.name}"
    except CrucibleError:
        return False


def _copy_database(source: Path, copy: Path) -> None:
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as link:
        link.execute("PRAGMA query_only=1")
        with closing(sqlite3.connect(copy)) as target:
            link.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it


def _pack(draft: _Draft, database: Path, sources: Path, stored: set[str]) -> tuple[str, ...] | None:
    """Write all into the draft; return which files that only grow are in it."""
    with (
        draft.path.open("wb") as file,
        tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as archive,
    ):
        told: dict[str, Any] = {
            "format": FORMAT,
            "sources": sorted(stored),
            "papers": [path.name for path in draft.papers],
        }
        if draft.stores is not None:
            told["stores"] = draft.stores.name
        index = json.dumps(told).encode()
        archive.addfile(_entry(INDEX, len(index)), io.BytesIO(index))
        with database.open("rb") as content:
            archive.addfile(_entry(DATABASE, database.stat().st_size), content)
        for path in draft.papers:
            data = path.read_bytes()
            archive.addfile(_entry(f"{path.parent.name}/{path.name}", len(data)), io.BytesIO(data))
        stores = None if draft.stores is None else _pack_stores(archive, draft.stores, draft.root)
        for name in sorted(stored):
            _pack_snapshot(archive, sources / name, name)
        archive.close()
        file.flush()
        os.fsync(file.fileno())
    return stores


def _pack_stores(archive: tarfile.TarFile, rules: Growing, root: Path) -> tuple[str, ...]:
    """Copy each as far as it was whole when it was looked at, a piece at a time."""
    packed: list[str] = []
    for name in names_in(rules, root / rules.place):
        with standing(rules, root / rules.place, name) as found:
            if found is not None:
                content = cast("IO[bytes]", Reading(found.file))
                archive.addfile(_entry(f"{rules.name}/{name}", found.size), content)
                packed.append(name)
    return tuple(packed)


def _pack_snapshot(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    for path in sorted(folder.rglob("*")):
        entry = _entry(f"{SOURCES}/{name}/{path.relative_to(folder)}", 0)
        if path.is_symlink():
            entry.type, entry.linkname = tarfile.SYMTYPE, os.fspath(path.readlink())
            archive.addfile(entry)
        elif path.is_file():
            with path.open("rb") as content:
                about = os.fstat(content.fileno())
                entry.size, entry.mode = about.st_size, 0o755 if about.st_mode & 0o100 else 0o644
                archive.addfile(entry, content)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry


def objects_in(path: Path) -> int:
    """Return how many objects a database holds.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is no control plane's, or a damaged one.
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
