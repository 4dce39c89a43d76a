"""Volumes: folders that an administrator offers to plugins, by a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostVolume:
    """A folder of this machine.

    Attributes:
        name: what manifests call it.
        path: where it is; absolute, and no part of it a link.
        writable: plugins may be granted to write to it.
    """

    name: str
    path: Path
    writable: bool


@dataclass(frozen=True, slots=True)
class ClaimVolume:
    """A PersistentVolumeClaim in the namespace of whoever asks for it.

    Attributes:
        name: what manifests call it.
        claim: the claim's name.
        writable: plugins may be granted to write to it.
        group: the group that a plugin is made a member of to write; None: none.
    """

    name: str
    claim: str
    writable: bool
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume as a plugin sees it.

    Attributes:
        volume: its name.
        place: where, an absolute path below ``/data``.
        writable: the plugin may write to it.
    """

    volume: str
    place: str
    writable: bool


def accesses(volumes: tuple[HostVolume, ...] | tuple[ClaimVolume, ...]) -> frozenset[str]:
    """Return what manifests may ask for of these volumes, as ``NAME for reading``, ``NAME for writing``."""
    reading = {access(volume.name, writable=False) for volume in volumes}
    return frozenset(reading | {access(volume.name, writable=True) for volume in volumes if volume.writable})


def access(name: str, *, writable: bool) -> str:
    """Return the words for one use of a volume."""
    return f"{name} for {'writing' if writable else 'reading'}"
