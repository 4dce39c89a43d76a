"""Reading a folder that someone else may be changing or may have made to deceive."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from crucible.errors import InvalidSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ENTRY_LIMIT = 10_000
DEPTH_LIMIT = 64
SIZE_LIMIT = 64 * 2**20
LEFT_OUT = frozenset({".git", "__pycache__"})
"""Never part of a plugin: history, and what Python makes again."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: its bytes, and whether it may be executed."""

    content: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link to another place of the same folder."""

    target: str


Tree = dict[str, File | Link]
"""Entries by path, relative to the folder, with forward slashes."""


def read_folder(path: Path) -> Tree:
    """Read a folder by descriptor, following no link.

    Raises:
        InvalidSource: it does not exist, is too large, or holds a link that leaves it or a special file.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidSource(f"{path} cannot be opened as a folder: {os.strerror(error.errno or 0)}") from None
    tree: Tree = {}
    size = entries = 0
    try:
        for name, entry in _walk(top, PurePosixPath()):
            size += len(entry.content) if isinstance(entry, File) else 0
            entries += 1
            if entry is not None:
                tree[_utf8(name)] = entry
            if entries > ENTRY_LIMIT:
                raise InvalidSource(
                    f"{path} holds more than {ENTRY_LIMIT} files: keep only what the plugin needs"
                )
            if size > SIZE_LIMIT:
                raise InvalidSource(
                    f"{path} is larger than {SIZE_LIMIT // 2**20} MiB: keep only what the plugin needs"
                )
    except OSError as error:
        raise InvalidSource(f"{path} cannot be read: {error}") from None
    finally:
        os.close(top)
    return tree


def inline_tree(files: Mapping[str, str]) -> Tree:
    """Return the tree that ``source.inline`` spells out; every file may be executed."""
    return {name: File(text.encode(), executable=True) for name, text in files.items()}


def digest_of(tree: Tree) -> str:
    """Return ``sha256:…`` over every path, kind, mode and content."""
    total = hashlib.sha256()
    for name in sorted(tree):
        match tree[name]:
            case File(content=content, executable=executable):
                kind, data = ("x" if executable else "f"), hashlib.sha256(content).digest()
            case Link(target=target):
                kind, data = "l", target.encode()
        total.update(f"{kind} {len(name.encode())} {name} {len(data)} ".encode() + data)
    return f"sha256:{total.hexdigest()}"


def _utf8(text: str) -> str:
    """Refuse bytes that no manifest, log or JSON could name."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidSource(f"{text!r} is not UTF-8: rename it") from None
    return text


def _walk(folder: int, at: PurePosixPath) -> Iterator[tuple[str, File | Link | None]]:
    """Yield what is below an open folder, None for folders.

    Every name is resolved from its parent's descriptor.
    """
    if len(at.parts) > DEPTH_LIMIT:
        raise InvalidSource(f"it is nested deeper than {DEPTH_LIMIT} folders: flatten it")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        if name in LEFT_OUT:
            continue
        here = at / name
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            yield str(here), Link(_checked_target(here, os.readlink(name, dir_fd=folder)))
        elif stat.S_ISDIR(mode):
            yield str(here), None
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                yield from _walk(inner, here)
            finally:
                os.close(inner)
        else:
            yield str(here), _read_file(folder, name, here)


def _read_file(folder: int, name: str, here: PurePosixPath) -> File:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise InvalidSource(f"{here} cannot be read: {os.strerror(error.errno or 0)}") from None
    with os.fdopen(file, "rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise InvalidSource(f"{here} is not a regular file: a plugin is made of files, folders and links")
        return File(stream.read(SIZE_LIMIT + 1), executable=bool(mode & 0o100))


def _checked_target(here: PurePosixPath, target: str) -> str:
    """Accept a link that stays inside however its parts resolve: it climbs first, then only descends."""
    parts = PurePosixPath(_utf8(target)).parts
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    inside = climbs <= len(here.parts) - 1 and ".." not in parts[climbs:]
    if target.startswith("/") or not parts or not inside:
        raise InvalidSource(
            f"{here} is a link to {target}, which leaves the source: link inside it, or copy the file"
        )
    return target
