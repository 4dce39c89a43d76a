"""Version 2: one hierarchy, whose controllers are handed down level by level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.model.enforcement import Control
from crucible.runtimes.process.cgroups.base import (
    SANDBOX_PIDS,
    Refused,
    cpu_quota,
    put,
    put_checked,
    remove,
    weigh,
)

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.model.workload import Limits

_CONTROLS = {"cpu": Control.CPU, "memory": Control.MEMORY, "pids": Control.PIDS}


@dataclass(frozen=True, slots=True)
class CgroupsV2:
    """Groups in version 2.

    Attributes:
        place: name of the directory made for this control plane, ``crucible-<control plane>``.
        parent: where that is made.
        controllers: which of ``cpu``, ``memory`` and ``pids`` the parent can hand down.
    """

    place: str
    parent: Path
    controllers: frozenset[str]

    @property
    def version(self) -> str:
        """For people."""
        return "cgroup v2"

    @property
    def controls(self) -> frozenset[Control]:
        """What the parent can hand down."""
        return frozenset(_CONTROLS[name] for name in self.controllers)

    @property
    def freezes(self) -> bool:
        """Every kernel since 5.2 does, without a controller."""
        return True

    def directories(self, name: str) -> tuple[Path, ...]:
        """Return the one directory."""
        return (self.parent / self.place / name,)

    def make(self, name: str, limits: Limits) -> None:
        """Hand the controllers down, make the group, set the limits."""
        (directory,) = self.directories(name)
        try:
            directory.parent.mkdir(exist_ok=True)
            self._hand_down(self.parent)
            self._hand_down(directory.parent)
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise Refused(f"cannot make its cgroup: {error.strerror}") from error
        try:
            self._limit(directory, limits)
        except Refused:
            remove((directory,))
            raise

    def _hand_down(self, directory: Path) -> None:
        control = directory / "cgroup.subtree_control"
        has = set(control.read_text().split()) if control.exists() else set()
        wanted = sorted(self.controllers - has)
        if wanted:
            put(control, " ".join(f"+{name}" for name in wanted))

    def _limit(self, directory: Path, limits: Limits) -> None:
        if "cpu" in self.controllers:
            quota, period = cpu_quota(limits.cpu)
            weigh(directory.parent, "cpu.weight", 100)
            put_checked(directory / "cpu.max", f"{quota} {period}")
        if "memory" in self.controllers:
            put_checked(directory / "memory.max", str(limits.memory))
            if (directory / "memory.swap.max").exists():
                put_checked(directory / "memory.swap.max", "0")
            # A plugin that lost one of its processes is no longer the plugin: all of it goes.
            put_checked(directory / "memory.oom.group", "1")
        if "pids" in self.controllers:
            put_checked(directory / "pids.max", str(limits.pids + SANDBOX_PIDS))
