"""Puts an image's files together: from packages, from this host, and a few lines of its own."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.runtimes.process import elf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from imagelib.debian import Package

_FOLDERS: Final = ("config", "dev", "etc", "plugin", "proc", "sys", "tmp")
_FILES: Final = {
    "etc/passwd": "plugin:x:1000:1000::/tmp:/nonexistent\n",
    "etc/group": "plugin:x:1000:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_LIBRARY_FOLDERS: Final = re.compile(r"(?:usr/)?lib/(?:[a-z0-9_]+-linux-gnu/)?[^/]+")
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_ENTRY: Final = struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5


class Tree:
    """A root file system in a folder, and the packages that its files came from.

    Attributes:
        root: the folder.
        packages: those it is taken from, and where they are unpacked.
        used: those that gave at least one file.
    """

    def __init__(self, root: Path, packages: Mapping[Package, Path]) -> None:
        self.root = root
        self.packages = packages
        self.used: set[Package] = set()
        self._owners = {
            str(path.relative_to(folder)): (package, path)
            for package, folder in packages.items()
            for path in _files(folder)
        }
        shutil.rmtree(root, ignore_errors=True)
        for name in _FOLDERS:
            (root / name).mkdir(parents=True)
        for name, text in _FILES.items():
            self.write(name, text)

    def write(self, place: str, text: str) -> None:
        """Write a file."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def copy(self, source: Path, place: str) -> None:
        """Copy a file or a folder of this host, links followed."""
        target = self.root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)

    def link(self, place: str, target: str) -> None:
        """Give a program another name."""
        (self.root / place).symlink_to(target)

    def take(self, wanted: Callable[[str], bool]) -> None:
        """Copy every packaged file whose path is wanted."""
        for place in filter(wanted, sorted(self._owners)):
            self._take(place)

    def take_libraries(self) -> None:
        """Copy the loader and every library that a program or library in the tree needs.

        Raises:
            FileNotFoundError: one is in none of the packages.
        """
        libraries = {Path(place).name: place for place in self._owners if _LIBRARY_FOLDERS.fullmatch(place)}
        waiting = [path for path in _files(self.root) if not path.is_symlink() and is_elf(path)]
        while waiting:
            path = waiting.pop()
            interpreter = elf.loader(path)
            if interpreter and not (self.root / str(interpreter).lstrip("/")).exists():
                self._take(libraries[interpreter.name], str(interpreter).lstrip("/"))
            for name in needed(path):
                if name not in libraries:
                    raise FileNotFoundError(f"{path.name} needs {name}, which no package has")
                if not (self.root / libraries[name]).exists():
                    waiting.append(self._take(libraries[name]))

    def compile_python(self, python: str, place: str) -> None:
        """Byte-compile sources with the interpreter in the tree, never to be checked against them."""
        interpreter = self.root / python
        loader = elf.loader(interpreter)
        folders = {str(path.parent) for path in self.root.rglob("*.so*")}
        several = (self.root / place / "multiprocessing").is_dir()
        workers = ("-j", str(os.cpu_count() or 1)) if several else ()
        subprocess.run(
            [
                *(f"{self.root}{loader}", "--library-path", ":".join(sorted(folders)), str(interpreter)),
                *("-S", "-s", "-B", "-m", "compileall", "-q", "-q", *workers),
                *("--invalidation-mode", "unchecked-hash", "-s", str(self.root), "-p", "/"),
                str(self.root / place),
            ],
            check=False,  # a library may ship files that are not Python; what was not compiled still runs
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHOME": str(self.root / "usr"), "PYTHONHASHSEED": "0"},
        )

    def _take(self, place: str, target: str | None = None) -> Path:
        """Copy one packaged file, or what a link leads to, under the name asked for.

        Raises:
            FileNotFoundError: a link leads out of the packages.
        """
        kept = self.root / (target or place)
        while True:
            if place not in self._owners:
                raise FileNotFoundError(f"/{place}, for {kept}, is in no package")
            package, source = self._owners[place]
            self.used.add(package)
            if not source.is_symlink():
                break
            place = os.path.normpath(Path("/", place).parent / source.readlink()).lstrip("/")
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, kept)
        return kept


def needed(path: Path) -> tuple[str, ...]:
    """Return the names of the libraries a program or library asks for itself."""
    content = path.read_bytes()
    _, _, _, _, _, start, _, _, _, size, count, *_ = _HEADER.unpack_from(content)
    segments = [_PROGRAM_HEADER.unpack_from(content, start + size * number) for number in range(count)]
    loaded = [
        (where, offset, length) for kind, _, offset, where, _, length, *_ in segments if kind == _PT_LOAD
    ]
    dynamic = [(offset, length) for kind, _, offset, _, _, length, *_ in segments if kind == _PT_DYNAMIC]
    entries = [
        _ENTRY.unpack_from(content, at)
        for offset, length in dynamic
        for at in range(offset, offset + length, _ENTRY.size)
    ]
    table = next((value for tag, value in entries if tag == _DT_STRTAB), 0)
    base = next(
        (table - where + offset for where, offset, size in loaded if where <= table < where + size), 0
    )
    names = [base + value for tag, value in entries if tag == _DT_NEEDED]
    return tuple(content[at : content.index(b"\0", at)].decode() for at in names)


def is_elf(path: Path) -> bool:
    """Whether a file is a 64-bit program or library."""
    with path.open("rb") as file:
        return file.read(6) == b"\x7fELF\x02\x01"


def _files(root: Path) -> Iterable[Path]:
    return sorted(path for path in root.rglob("*") if path.is_symlink() or path.is_file())
