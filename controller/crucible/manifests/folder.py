"""A folder of manifests: which files it holds, what is in them, and whether anything changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import InvalidInput
from crucible.model.document import SIZE_LIMIT
from crucible.packages.folder import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
OWN_FILE: Final = "plugin.yaml"
"""A folder with this file is one plugin: nothing else in it is a manifest."""
EMPTY_MARK: Final = ".empty-on-purpose"
"""A file that says that a folder without any manifest is meant to be one."""
FILES_LIMIT: Final = 1000
_LOOKED_AT: Final = 20_000
"""Entries whose change is noticed at once; what lies beyond is found the next time all is read."""

Looks = frozenset[tuple[str, int, int, int, int]]
"""What a change of any file changes: each path with inode, size, and times of content and of the entry."""


@dataclass(frozen=True, slots=True)
class Content:
    """One file of the folder.

    Attributes:
        name: its path relative to the folder.
        path: where it is.
        data: its bytes, never more than one above the limit; None when it cannot be read.
        problem: why not.
    """

    name: str
    path: Path
    data: bytes | None
    problem: str = ""


def read_contents(folder: Path) -> tuple[Content, ...]:
    """Read every manifest below a folder, in the order of their names.

    A folder with a ``plugin.yaml`` contributes that alone; any other contributes its manifests and is gone
    into. Hidden entries and links to folders are passed over.

    Raises:
        InvalidInput: it cannot be read whole, or holds more than :data:`FILES_LIMIT` files.
    """
    try:
        files = sorted(_manifests(folder))
    except OSError as error:
        raise InvalidInput(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    if len(files) > FILES_LIMIT:
        raise InvalidInput(f"{folder}: holds more than {FILES_LIMIT} manifests: split it")
    return tuple(_content(folder, path) for path in files)


def _manifests(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    own = [entry for entry in entries if entry.name == OWN_FILE and entry.is_file()]
    for entry in own or entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in LEFT_OUT:
                yield from _manifests(Path(entry.path))
        elif Path(entry.name).suffix in SUFFIXES and entry.is_file():
            yield Path(entry.path)


def _content(folder: Path, path: Path) -> Content:
    name = str(path.relative_to(folder))
    try:
        with path.open("rb") as file:
            return Content(name, path, file.read(SIZE_LIMIT + 1))
    except OSError as error:
        return Content(name, path, None, f"{path}: cannot be read: {error.strerror}")


def look(roots: Iterable[Path]) -> Looks:
    """Return what folders look like from outside: cheap enough for every second, and it never fails."""
    found: set[tuple[str, int, int, int, int]] = set()
    for root in roots:
        for path, about in _seen(str(root)):
            if len(found) >= _LOOKED_AT:
                return frozenset(found)
            found.add((path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return frozenset(found)


def _seen(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what can be seen below a folder: entries as they are, files that links lead to."""
    try:
        yield folder, os.stat(folder)  # noqa: PTH116 - thousands of these each second
        with os.scandir(folder) as found:
            entries = [entry for entry in found if entry.name not in LEFT_OUT]
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _seen(entry.path)
            else:
                yield entry.path, entry.stat()
        except OSError:
            continue
