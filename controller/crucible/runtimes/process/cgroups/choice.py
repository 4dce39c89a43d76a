"""Which interface this host offers, and where groups may be made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.runtimes.process.cgroups.base import Refused, put
from crucible.runtimes.process.cgroups.v1 import CgroupsV1
from crucible.runtimes.process.cgroups.v2 import CgroupsV2
from crucible.service import LEAF

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crucible.runtimes.process.cgroups.base import Cgroups

_CONTROLLERS: Final = ("cpu", "memory", "pids")
_COUNTING: Final = "cpuacct"
"""Version 1 counts the time used in a hierarchy of its own, often mounted with cpu's."""
_FREEZER: Final = "freezer"
"""And holds processes still in another."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where the hierarchies are mounted: version 2's, and version 1's by controller."""

    unified: Path | None
    split: dict[str, Path]


def parse_mounts(mountinfo: Iterable[str]) -> Mounts:
    """Find the hierarchies in the lines of ``/proc/self/mountinfo``."""
    unified: Path | None = None
    split: dict[str, Path] = {}
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        where = Path(before.split()[4].replace("\\040", " "))
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            unified = unified or where
        elif kind == "cgroup":
            for name in set(options.split(",")) & {*_CONTROLLERS, _COUNTING, _FREEZER}:
                split.setdefault(name, where)
    return Mounts(unified, split)


def choose(place: str, parent: str | None) -> tuple[Cgroups | None, str]:
    """Return how to make groups on this host, or None and why not.

    Args:
        place: name of the directory to make for this control plane.
        parent: path below the mount to make it in; None for the top as root, and for the controller's own
            group as an ordinary user.
    """
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text().splitlines())
    if mounts.unified is not None and set(_CONTROLLERS) & _words(mounts.unified / "cgroup.controllers"):
        return _choose_v2(place, mounts.unified / _v2_parent(parent))
    found = {name: where / (parent or "").lstrip("/") for name, where in mounts.split.items()}
    writable = {name: where for name, where in found.items() if os.access(where, os.W_OK)}
    counting, freezer = writable.pop(_COUNTING, None), writable.pop(_FREEZER, None)
    if not writable:
        return None, _advice(
            "this host offers no cgroup controllers" if not found else "no cgroup is writable"
        )
    cpu, memory, pids = (writable.get(name) for name in _CONTROLLERS)
    groups = CgroupsV1(place, cpu, memory, pids, counting, freezer)
    return groups, ", ".join(sorted(writable))


def _choose_v2(place: str, parent: Path) -> tuple[Cgroups | None, str]:
    offered = set(_CONTROLLERS) & _words(parent / "cgroup.controllers")
    if not offered:
        return None, _advice(f"{parent} is handed none of cpu, memory and pids")
    if not os.access(parent, os.W_OK):
        return None, _advice(f"{parent} belongs to another user")
    problem = _make_room(place, parent, offered)
    if problem:
        return None, _advice(problem)
    return CgroupsV2(place, parent, frozenset(offered)), ", ".join(sorted(offered))


def _make_room(place: str, parent: Path, offered: set[str]) -> str:
    """Make the parent hand its controllers down; a group that does may hold no processes: move out of it."""
    missing = offered - _words(parent / "cgroup.subtree_control")
    if not missing:
        return ""
    if str(os.getpid()) in _words(parent / "cgroup.procs") and (parent / "cgroup.type").exists():
        leaf = parent / f"{place}-controller"
        try:
            leaf.mkdir(exist_ok=True)
            put(leaf / "cgroup.procs", str(os.getpid()))
        except (OSError, Refused) as error:
            return f"cannot move the controller out of {parent}: {error}"
    try:
        put(parent / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(missing)))
    except Refused as error:
        return f"{error}; other processes in {parent} may stand in the way"
    return ""


def _v2_parent(parent: str | None) -> str:
    if parent is not None:
        return parent.lstrip("/")
    if os.geteuid() == 0:
        return ""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            return beside_controller(line.removeprefix("0::/"))
    return ""


def beside_controller(group: str) -> str:
    """Return where plugins' groups belong: beside the controller's, where its service put it apart."""
    return group.removesuffix(f"/{LEAF}")


def _advice(problem: str) -> str:
    return (
        f"{problem}; start the controller as root, or where systemd runs with "
        "`systemd-run --user --scope -p Delegate=yes crucible up`"
    )


def _words(file: Path) -> set[str]:
    try:
        return set(file.read_text().split())
    except OSError:
        return set()
