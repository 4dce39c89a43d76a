"""Root file systems kept for all control planes of one user: making one takes seconds, taking one no time.

A root that is taken shares its files with the one that is kept, by hard links where both lie in one file
system. Nothing writes to a root once it is made: sandboxes are shown it read-only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

_KEPT: Final = 3
"""How many are kept of each plugin type: of as many releases, or source trees."""


def take(cache: Path, name: str, into: Path) -> bool:
    """Fill an empty directory with the root of that name; return whether there is one.

    A cache that anybody else could have written to counts as empty.
    """
    kept = cache / name
    if not (_is_private(cache) and _is_private(kept)):
        return False
    try:
        shutil.copytree(kept, into, symlinks=True, copy_function=_share, dirs_exist_ok=True)
    except (OSError, shutil.Error):  # another control plane has just dropped it
        _empty(into)
        return False
    with contextlib.suppress(OSError):
        os.utime(kept)
    return True


def keep(cache: Path, name: str, root: Path) -> None:
    """Keep a root that was just made. A cache that cannot be written to is done without."""
    with contextlib.suppress(OSError, shutil.Error):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(cache):
            return
        fresh = Path(tempfile.mkdtemp(prefix=".", dir=cache))
        try:
            shutil.copytree(root, fresh, symlinks=True, copy_function=_share, dirs_exist_ok=True)
            fresh.rename(cache / name)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _drop_oldest(cache, name.rpartition("-")[0])


def _drop_oldest(cache: Path, kind: str) -> None:
    found = sorted(cache.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[_KEPT:]:
        _drop(path)


def _drop(kept: Path) -> None:
    """Delete a root; whoever is copying it finds no more of it, rather than a folder that is half empty."""
    going = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
    kept.rename(going / kept.name)
    shutil.rmtree(going, ignore_errors=True)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _share(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def _is_private(directory: Path) -> bool:
    """Whether it is a directory of ours that nobody else may write to."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
