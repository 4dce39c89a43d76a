"""Opening a backup that a stranger may have made: nothing in it is believed before it was checked.

Nothing is written outside a draft folder of our own. No link is ever followed, because nothing may lie below
one, and what comes out of a snapshot's part must be, path for path, what its digest stands for.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, Final

from crucible.control.backup import (
    DATABASE,
    DIGEST,
    FORMAT,
    INDEX,
    NO_ROOMS,
    SOURCES,
    Kept,
    Rooms,
    objects_in,
)
from crucible.control.growing import check
from crucible.control.papers import SIZE_LIMIT
from crucible.errors import CrucibleError, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crucible.control.backup import SourceRules
    from crucible.control.growing import Growing

_SQLITE: Final = b"SQLite format 3\x00"
_INDEX_LIMIT: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A backup, checked and ready to be put in place.

    Attributes:
        database: where its database is.
        sources: the folder of its snapshots; it may hold none.
        papers: the folder of the papers that ``kept`` names.
        stores: the folder of the stores that ``kept`` names.
        kept: how much it holds.
    """

    database: Path
    sources: Path
    papers: Path
    stores: Path
    kept: Kept


def unpack(path: Path, draft: Path, rules: SourceRules, rooms: Rooms = NO_ROOMS) -> Unpacked:
    """Take a backup apart into an empty folder of ours. One that is a database alone stays where it is.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is no whole backup, or holds what a backup never does.
    """
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file")
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) == _SQLITE:
            return Unpacked(path, draft / SOURCES, draft, draft, Kept(objects_in(path), 0))
    try:
        with tarfile.open(path, "r:") as archive:
            found = _take_apart(archive, draft, rules, rooms)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{path} is not a whole backup of a control plane: {error}") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be unpacked into {draft}: {error.strerror or error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path} is refused: {error}") from None
    kept = Kept(objects_in(draft / DATABASE), len(found.sources), papers=found.papers, stores=found.stores)
    papers = draft / rooms.papers.name if rooms.papers is not None else draft
    stores = draft / rooms.stores.name if rooms.stores is not None else draft
    return Unpacked(draft / DATABASE, draft / SOURCES, papers, stores, kept)


def place_sources(found: Unpacked, sources: Path) -> None:
    """Move the snapshots of a backup to where snapshots are; those that are there already are the same."""
    sources.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in found.sources.iterdir() if found.sources.is_dir() else ():
        if not (sources / folder.name).exists():
            folder.rename(sources / folder.name)


@dataclass(frozen=True, slots=True)
class _Found:
    """What an archive says it holds: digests of snapshots, names of papers, and of stores."""

    sources: list[str]
    papers: tuple[str, ...]
    stores: tuple[str, ...] | None


def _take_apart(archive: tarfile.TarFile, draft: Path, rules: SourceRules, rooms: Rooms) -> _Found:
    """Write what an archive holds; return what that is, each of which was found and checked."""
    members = iter(archive)
    papers = rooms.papers
    expected = _index(archive, next(members, None), rooms)
    database = next(members, None)
    if database is None or database.name != DATABASE:
        raise InvalidInput(f"{DATABASE} does not follow {INDEX}")
    with (draft / DATABASE).open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        shutil.copyfileobj(_content(archive, database), file)
    if papers is not None and expected.papers:
        _take_papers(archive, members, draft / papers.name, expected.papers)
        papers.check(draft / papers.name)
    remaining = _Ahead(members)
    stores = expected.stores
    if rooms.stores is not None and stores is not None:
        stores = _take_stores(archive, remaining, draft / rooms.stores.name, rooms.stores)
    for digest in expected.sources:
        _take_snapshot(archive, remaining, draft / SOURCES / digest, rules)
    if remaining.next is not None:
        raise InvalidInput(f"{remaining.next.name!r} is not one of its snapshots")
    return replace(expected, stores=stores)


def _take_stores(archive: tarfile.TarFile, members: _Ahead, folder: Path, rules: Growing) -> tuple[str, ...]:
    """Write files that only grow, each of which is held against its name."""
    folder.mkdir(mode=0o700)
    names: list[str] = []
    for member in members.below(f"{rules.name}/"):
        name = member.name.removeprefix(f"{rules.name}/")
        if rules.names.fullmatch(name) is None or len(names) >= rules.count or name in names[-1:]:
            raise InvalidInput(f"{member.name!r} is in no backup")
        if member.size > rules.size:
            raise InvalidInput(f"{member.name!r} is larger than it may be")
        with (folder / name).open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            shutil.copyfileobj(_content(archive, member), file)
        check(rules, folder, name)
        names.append(name)
    return tuple(names)


def _take_papers(
    archive: tarfile.TarFile, members: Iterator[tarfile.TarInfo], folder: Path, names: tuple[str, ...]
) -> None:
    """Write papers, which come in the order in which they are named."""
    folder.mkdir(mode=0o700)
    for name in names:
        member = next(members, None)
        if member is None or member.name != f"{folder.name}/{name}" or member.size > SIZE_LIMIT:
            raise InvalidInput(f"{folder.name}/{name} is not where it should be, or too large")
        with (folder / name).open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            shutil.copyfileobj(_content(archive, member), file)


class _Ahead:
    """Members, one at a time, the next one in sight."""

    def __init__(self, members: Iterator[tarfile.TarInfo]) -> None:
        self._members = members
        self.next = next(members, None)

    def below(self, prefix: str) -> Iterator[tarfile.TarInfo]:
        while self.next is not None and self.next.name.startswith(prefix):
            found, self.next = self.next, next(self._members, None)
            yield found


def _index(archive: tarfile.TarFile, member: tarfile.TarInfo | None, rooms: Rooms) -> _Found:
    if member is None or member.name != INDEX or member.size > _INDEX_LIMIT:
        raise InvalidInput(f"it does not begin with {INDEX}")
    try:
        told: Any = json.loads(_content(archive, member).read())
        version, sources, along = told["format"], told["sources"], told.get("papers", [])
        stores = told.get("stores")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{INDEX} cannot be read: {error}") from None
    if version != FORMAT:
        raise InvalidInput(f"it was written by another release (format {version!r})")
    names = [name for name in sources if isinstance(name, str) and DIGEST.fullmatch(name)]
    if names != sources or names != sorted(set(names)):
        raise InvalidInput(f"{INDEX} does not name snapshots")
    papers = rooms.papers.files if rooms.papers is not None else ()
    known = [name for name in papers if isinstance(along, list) and name in along]
    if along != known or stores not in (None, rooms.stores and rooms.stores.name):
        raise InvalidInput(f"{INDEX} names what is in no backup")
    return _Found(names, tuple(known), None if stores is None else ())


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    if member.type not in tarfile.REGULAR_TYPES or member.issparse():
        raise InvalidInput(f"{member.name!r} is not a plain file")
    content = archive.extractfile(member)
    if content is None:
        raise InvalidInput(f"{member.name!r} has no content")
    return content


def _take_snapshot(archive: tarfile.TarFile, members: _Ahead, folder: Path, rules: SourceRules) -> None:
    """Write one snapshot, then hold it against its name."""
    prefix = f"{SOURCES}/{folder.name}/"
    folder.mkdir(mode=0o755, parents=True)
    folders, leaves, size = {""}, set[str](), 0
    for member in members.below(prefix):
        name = member.name.removeprefix(prefix)
        size += member.size
        if len(leaves) >= rules.entries or size > rules.size:
            raise InvalidInput(f"snapshot {folder.name[:12]} is larger than any plugin may be")
        _check_place(name, folders, leaves)
        _make_folders(folder, name, folders)
        _write_leaf(archive, member, folder / name)
        leaves.add(name)
    for each in folders:
        (folder / each).chmod(0o755)
    try:
        digest, paths = rules.look(folder)
    except CrucibleError as error:
        raise InvalidInput(f"snapshot {folder.name[:12]} is no source: {error}") from None
    if digest != f"sha256:{folder.name}" or paths != leaves:
        raise InvalidInput(f"snapshot {folder.name[:12]} is not what its digest says")


def _check_place(name: str, folders: set[str], leaves: set[str]) -> None:
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in name:
        raise InvalidInput(f"{name!r} is no path inside a snapshot")
    above = {"/".join(parts[:count]) for count in range(1, len(parts))}
    if name in folders or name in leaves or above & leaves:
        raise InvalidInput(f"{name!r} is in it twice, or lies below a file or a link")


def _make_folders(top: Path, name: str, folders: set[str]) -> None:
    parts = name.split("/")
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        if above not in folders:
            (top / above).mkdir(mode=0o755)
            folders.add(above)


def _write_leaf(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.issym():
        path.symlink_to(member.linkname)
        return
    content = _content(archive, member)
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o755 if member.mode & 0o100 else 0o644)
        shutil.copyfileobj(content, file)
