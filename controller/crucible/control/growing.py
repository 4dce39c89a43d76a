"""Files of another room that only grow, such as plugins' stores: a backup copies each as it stands.

What is in such a file never changes, and a file that takes its place has another inode. So who holds it open
and reads as far as it was whole when that was looked at has it as it was at that moment, while its owner goes
on writing. Its owner may be less trusted than who makes a backup: it is reached by a descriptor of its folder
alone, and only if it is a plain file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.errors import InvalidInput

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEFORE: Final = ".before-restore"
"""Added to the name of a folder whose place a backup's took."""
_READ_ONLY: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Growing:
    """Which: the caller knows, a control plane knows nothing of them.

    Attributes:
        name: of their part of a backup.
        place: their folder, below the state folder.
        names: what those that count are called.
        whole: given a file's descriptor and its name, returns up to which byte it is whole; 0 for one that
            holds nothing, or is none of them.
        size: most bytes of one.
        count: most files.
    """

    name: str
    place: str
    names: re.Pattern[str]
    whole: Callable[[int, str], int]
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Standing:
    """One file, open, and how much of it there is to copy."""

    name: str
    file: int
    size: int


def names_in(rules: Growing, folder: Path) -> list[str]:
    """Return what a folder holds of them, in order; nothing where it is not there.

    Raises:
        InvalidInput: more than there may be.
    """
    if not folder.is_dir():
        return []
    found = sorted(name for name in os.listdir(folder) if rules.names.fullmatch(name))  # noqa: PTH208
    if len(found) > rules.count:
        raise InvalidInput(f"{folder} holds more than {rules.count} files: nobody meant that")
    return found


@contextlib.contextmanager
def standing(rules: Growing, folder: Path, name: str) -> Iterator[Standing | None]:
    """Yield a file as it stands; None for one that is gone, is no plain file, or holds nothing.

    Raises:
        InvalidInput: it is larger than any of them may be.
    """
    try:
        held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            file = os.open(name, _READ_ONLY, dir_fd=held)
        finally:
            os.close(held)
    except OSError:  # gone meanwhile, or a link
        yield None
        return
    try:
        about = os.fstat(file)
        whole = rules.whole(file, name) if stat.S_ISREG(about.st_mode) else 0
        if whole > rules.size:
            raise InvalidInput(f"{folder / name} is larger than it may be")
        yield Standing(name, file, whole) if whole else None
    finally:
        os.close(file)


class Reading:
    """A file, read from its beginning by its descriptor alone; what ``tarfile`` asks of one."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return so many bytes, or those that are left."""
        data = os.pread(self._file, size, self._at)
        self._at += len(data)
        return data


def check(rules: Growing, folder: Path, name: str) -> None:
    """Hold a file that came out of a backup against what it should be.

    Raises:
        InvalidInput: it is none of them, or not whole.
    """
    with standing(rules, folder, name) as found:
        if found is None or found.size != os.fstat(found.file).st_size:
            raise InvalidInput(f"{rules.name}/{name} is not what its name says, or not whole")


def place(draft: Path, folder: Path) -> None:
    """Put a folder of a backup in the place of one; what was there stays beside it, the last that was."""
    if folder.is_dir() and any(folder.iterdir()):
        kept = folder.with_name(f"{folder.name}{BEFORE}")
        if kept.is_dir():
            shutil.rmtree(kept)
        folder.rename(kept)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_dir():
        folder.rmdir()
    draft.rename(folder)
