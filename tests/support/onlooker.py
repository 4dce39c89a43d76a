"""Looks at what others change meanwhile: what goes between its listing and its reading is passed over.

``Path.glob`` and ``Path.rglob`` fail where a folder goes under them, and so does whoever reads what they
found. On a host with several workers that is so below /proc, /sys/fs/cgroup, /dev/shm and wherever a
controller is at work.
"""

from __future__ import annotations

import os
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def processes() -> list[int]:
    """Return every process of this host."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def told(pid: int, name: str) -> bytes:
    """Return what a file of a process in /proc holds; nothing of one that is gone or another user's."""
    return contents(Path(f"/proc/{pid}/{name}"))


def cmdline(pid: int) -> bytes:
    """Return a process's arguments, each with a zero byte after it."""
    return told(pid, "cmdline")


def bearing(word: bytes) -> list[int]:
    """Return the processes that have a word among their arguments."""
    return [pid for pid in processes() if word in cmdline(pid).split(b"\0")]


def contents(path: Path) -> bytes:
    """Return what is in a file; nothing where it is gone or may not be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def below(top: Path, pattern: str) -> list[Path]:
    """Return what lies below a folder by a pattern of ``glob``, in which ``**`` is no more than ``*``."""
    return [top / found for found in glob(pattern, root_dir=top)]  # noqa: PTH207 - pathlib's gives up


def everything(top: Path) -> Iterator[Path]:
    """Yield every folder and file below a folder."""
    for at, folders, names in os.walk(top):
        yield from (Path(at, name) for name in (*folders, *names))


def files(top: Path) -> Iterator[Path]:
    """Yield every plain file below a folder."""
    return (path for path in everything(top) if path.is_file() and not path.is_symlink())
