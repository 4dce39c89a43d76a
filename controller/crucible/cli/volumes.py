"""``--volume`` of ``crucible up`` and ``crucible operator``."""

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from crucible.core.volumes import NAME, problem_of, protected
from crucible.errors import InvalidInput
from crucible.model.volume import ClaimVolume, HostVolume

_GROUP_WRITES = 0o030
_OTHERS_WRITE = 0o003


def host_volumes(words: Iterable[str], state: Path) -> tuple[HostVolume, ...]:
    """Read ``NAME=DIR`` and ``NAME=DIR:ro``.

    Args:
        words: as given.
        state: the state folder, of which nothing may be shown.

    Raises:
        InvalidInput: says which, and what to write instead.
    """
    found: list[HostVolume] = []
    closed = protected(_homes(), (state.resolve(), *_sockets()))
    for word in words:
        name, place, only = _parts(word, {volume.name for volume in found})
        if only not in {"", "ro"}:
            raise InvalidInput(f"--volume {word}: write NAME=DIR, or NAME=DIR:ro")
        path = Path(place).resolve()
        if not Path(place).is_absolute() or not path.is_dir():
            raise InvalidInput(f"--volume {word}: {place} is no folder here: make it, and name it from / on")
        problem = problem_of(path, closed, [volume.path for volume in found])
        if problem:
            raise InvalidInput(f"--volume {word}: {path} {problem}")
        if not only and not _can_be_written(path):
            raise InvalidInput(
                f"--volume {word}: no plugin could write there: let a group other than root's write to it "
                f"(chgrp GROUP {path}; chmod g+rwxs {path}), or add :ro"
            )
        found.append(HostVolume(name, path, writable=not only))
    return tuple(found)


def claim_volumes(words: Iterable[str]) -> tuple[ClaimVolume, ...]:
    """Read ``NAME=CLAIM``, ``NAME=CLAIM:ro`` and ``NAME=CLAIM:GROUP``.

    Raises:
        InvalidInput: says which, and what to write instead.
    """
    found: list[ClaimVolume] = []
    for word in words:
        name, claim, more = _parts(word, {volume.name for volume in found})
        group = int(more) if more.isdecimal() and more.isascii() else None
        if NAME.fullmatch(claim) is None or group == 0 or (more not in {"", "ro"} and group is None):
            raise InvalidInput(f"--volume {word}: write NAME=CLAIM, NAME=CLAIM:ro or NAME=CLAIM:GROUP-ID")
        found.append(ClaimVolume(name, claim, writable=more != "ro", group=group))
    return tuple(found)


def _parts(word: str, taken: Iterable[str]) -> tuple[str, str, str]:
    name, equals, rest = word.partition("=")
    if not equals or NAME.fullmatch(name) is None:
        raise InvalidInput(f"--volume {word}: begin with a name of letters, digits and '-', then =")
    if name in set(taken):
        raise InvalidInput(f"--volume {word}: {name} is given twice: keep one")
    place, _, more = rest.partition(":")
    return name, place, more


def _homes() -> set[Path]:
    homes = {Path(entry.pw_dir) for entry in pwd.getpwall()} | {Path.home()}
    return {home.resolve() for home in homes if home.is_absolute()}


def _sockets() -> list[Path]:
    """Return the socket of the container engine that ``DOCKER_HOST`` names."""
    named = os.environ.get("DOCKER_HOST", "")
    return [Path(named.removeprefix("unix://")).resolve()] if named.startswith("unix://") else []


def _can_be_written(path: Path) -> bool:
    """Whether a plugin could write, as a member of the folder's group, or as the ordinary user we are."""
    if os.geteuid() != 0:
        return os.access(path, os.W_OK | os.X_OK)
    found = path.stat()
    by_group = found.st_gid != 0 and found.st_mode & _GROUP_WRITES == _GROUP_WRITES
    return by_group or found.st_mode & _OTHERS_WRITE == _OTHERS_WRITE
