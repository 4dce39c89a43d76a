"""From the files a person names to objects that can be sent: everything is checked before anything is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crucible.errors import InvalidInput, InvalidManifest, NotFound, Violation
from crucible.manifests.folder import FILES_LIMIT, OWN_FILE, SUFFIXES
from crucible.manifests.resources import RESOURCES
from crucible.manifests.wanted import Wanted, given_twice, wanted_of
from crucible.model.document import SIZE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def read_wanted(
    files: Sequence[str], namespace: str | None, default: str, *, strict: bool = True
) -> tuple[Wanted, ...]:
    """Read and check every manifest; in the order in which they are to be applied.

    Args:
        files: paths of files and folders, and ``-`` for standard input.
        namespace: the one that was asked for; None: each manifest's own.
        default: for manifests that name none.
        strict: check Plugins whole; without, only what names the object.

    Raises:
        InvalidManifest: with every violation of every file.
        NotFound: a file does not exist.
    """
    found: list[Wanted] = []
    problems: list[Violation] = []
    for place, data in _contents(files):
        wanted, wrong = wanted_of(data, place, namespace, default, strict=strict)
        found += wanted
        problems += wrong
    problems += given_twice(found)
    if problems:
        raise InvalidManifest(tuple(problems))
    return tuple(sorted(found, key=lambda wanted: RESOURCES.index(wanted.resource)))


def _contents(files: Sequence[str]) -> Iterator[tuple[Path | str, bytes]]:
    """Yield what to call each file, and its bytes: never more than one above the limit."""
    for name in files:
        if name == "-":
            yield "standard input", sys.stdin.buffer.read(SIZE_LIMIT + 1)
            continue
        if name.startswith(("http://", "https://")):
            raise InvalidInput(
                f"{name}: is not fetched from the network: download it, read it, then apply it"
            )
        for path in _expand(Path(name)):
            yield path, _bytes_of(path)


def _expand(path: Path) -> list[Path]:
    """Return a plugin's own manifest where a folder has one, else every manifest directly in it."""
    if not path.is_dir():
        return [path]
    if (path / OWN_FILE).is_file():
        return [path / OWN_FILE]
    inside = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    if not inside:
        raise NotFound(f"{path}: holds no manifest: it needs a {OWN_FILE}, or *.yaml, *.yml or *.json files")
    if len(inside) > FILES_LIMIT:
        raise InvalidInput(f"{path}: holds more than {FILES_LIMIT} manifests: apply its parts")
    return inside


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
