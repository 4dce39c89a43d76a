"""Fetches Debian packages with what they depend on, checked by the digests of the signed index."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagelib.digest import of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# What packages depend on for installing themselves, and a root file system made of files does without.
_NOT_FOLLOWED: Final = re.compile(r"debconf|dpkg|perl|media-types|mime-support|readline-common|node-types-.*")
_DEPENDENCY: Final = re.compile(r"^([a-z0-9][a-z0-9+.-]+)")
_INDEX: Final = Path(__file__).resolve().parents[2] / "build/images/index.bin"
"""The index as apt reads it fast, which apt makes anew whenever a package list changed. Debian's images for
containers tell apt to keep none, and every question then costs more than half a second of processor."""


class Unavailable(Exception):
    """A package, or Debian itself, is not to be had; says which and what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package as the index describes it.

    Attributes:
        name: its name.
        version: Debian's version.
        architecture: ``amd64``, ``all``, …
        sha256: of its archive, in hex.
        depends: the text of its dependencies.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    depends: str

    def __str__(self) -> str:
        """``name=version``, as apt takes it."""
        return f"{self.name}={self.version}"


def check() -> None:
    """Make sure this is a Debian.

    Raises:
        Unavailable: it is not.
    """
    missing = [name for name in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise Unavailable(
            f"{', '.join(missing)} not found: images are made from Debian packages, on Debian or what is "
            "made of it. Elsewhere build them with an engine: docker build plugin-images/<type>"
        )


@functools.cache
def closure(names: tuple[str, ...], say: Callable[[str], None]) -> tuple[Package, ...]:
    """Return packages and all they depend on, by name: the newest version the index can deliver of each.

    Raises:
        Unavailable: one of the names is not in the index.
    """
    wanted = set(names)
    if not set(_described(wanted)) >= wanted and os.geteuid() == 0:
        say("reading the package index")
        _run("apt-get", "update", "-qq")
    found: dict[str, Package] = {}
    asked: set[str] = set()
    while fresh := wanted - asked:
        asked |= fresh
        described = _described(fresh)
        found |= described
        wanted |= {name for package in described.values() for name in _depended(package)}
    if missing := set(names) - set(found):
        raise Unavailable(f"no package source has {', '.join(sorted(missing))}: run apt-get update as root")
    return tuple(found[name] for name in sorted(found))


def fetch(packages: Iterable[Package], place: Path) -> Mapping[Package, Path]:
    """Download and unpack packages, each into a folder of its own; those that are there stay.

    Raises:
        Unavailable: one cannot be had, or is not what the index says.
    """
    place.mkdir(parents=True, exist_ok=True)
    folders = {package: place / f"{package.name}-{package.sha256[:16]}" for package in packages}
    missing = [package for package, folder in folders.items() if not folder.is_dir()]
    archives = place / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    archives.mkdir(mode=0o777)
    archives.chmod(0o777)  # apt downloads as a user of its own
    if missing:
        _run("apt-get", "download", "-qq", *map(str, missing), cwd=archives)
    by_digest = {of_file(path): path for path in archives.glob("*.deb")}
    for package in missing:
        if package.sha256 not in by_digest:
            raise Unavailable(f"{package}: the archive is not the one the index describes")
        fresh = place / f".{package.name}"
        shutil.rmtree(fresh, ignore_errors=True)
        _run("dpkg-deb", "-x", str(by_digest[package.sha256]), str(fresh))
        fresh.rename(folders[package])
    shutil.rmtree(archives)
    return folders


def _described(names: Iterable[str]) -> dict[str, Package]:
    """Return what the index says of names. A version that is only installed here cannot be had: left out."""
    _INDEX.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["/usr/bin/apt-cache", "-o", f"Dir::Cache::pkgcache={_INDEX}", "show", *sorted(names)],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    found: dict[str, Package] = {}
    for stanza in done.stdout.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if "Filename" in fields and "SHA256" in fields and fields["Package"] not in found:
            depends = ", ".join(fields[name] for name in ("Pre-Depends", "Depends") if name in fields)
            found[fields["Package"]] = Package(
                fields["Package"], fields["Version"], fields["Architecture"], fields["SHA256"], depends
            )
    return found


def _depended(package: Package) -> set[str]:
    """Return the first alternative of each dependency."""
    matches = (_DEPENDENCY.match(part.strip()) for part in package.depends.split(","))
    return {match[1] for match in matches if match and not _NOT_FOLLOWED.fullmatch(match[1])}


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:3])} …: {done.stderr.strip()[-1000:]}")


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
