"""Version 1: one hierarchy for each controller, or for a few together."""

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


@dataclass(frozen=True, slots=True)
class CgroupsV1:
    """Groups in version 1.

    Attributes:
        place: name of the directory made in every hierarchy, ``crucible-<control plane>``.
        cpu: where to make it in the hierarchy of ``cpu``; None without one.
        memory: the same for ``memory``.
        pids: the same for ``pids``.
        cpuacct: the same for ``cpuacct``, which holds to nothing and counts the time used.
        freezer: the same for ``freezer``, in which a group can be held still.
    """

    place: str
    cpu: Path | None
    memory: Path | None
    pids: Path | None
    cpuacct: Path | None = None
    freezer: Path | None = None

    @property
    def version(self) -> str:
        """For people."""
        return "cgroup v1"

    @property
    def controls(self) -> frozenset[Control]:
        """What has a hierarchy."""
        held = {Control.CPU: self.cpu, Control.MEMORY: self.memory, Control.PIDS: self.pids}
        return frozenset(control for control, parent in held.items() if parent is not None)

    @property
    def freezes(self) -> bool:
        """There is a hierarchy for it."""
        return self.freezer is not None

    def directories(self, name: str) -> tuple[Path, ...]:
        """One for each hierarchy; controllers mounted together share one."""
        found = (self.cpu, self.memory, self.pids, self.cpuacct, self.freezer)
        parents = dict.fromkeys(parent for parent in found if parent is not None)
        return tuple(parent / self.place / name for parent in parents)

    def make(self, name: str, limits: Limits) -> None:
        """Make a directory in each hierarchy and set the limits."""
        directories = self.directories(name)
        try:
            for directory in directories:
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"cannot make its cgroup: {error.strerror}") from error
        try:
            self._limit(name, limits)
        except Refused:
            remove(directories)
            raise

    def _limit(self, name: str, limits: Limits) -> None:
        if self.cpu is not None:
            quota, period = cpu_quota(limits.cpu)
            directory = self.cpu / self.place / name
            weigh(directory.parent, "cpu.shares", 1024)
            put_checked(directory / "cpu.cfs_period_us", str(period))
            put_checked(directory / "cpu.cfs_quota_us", str(quota))
        if self.memory is not None:
            directory = self.memory / self.place / name
            put_checked(directory / "memory.limit_in_bytes", str(limits.memory))
            # Version 1 counts what sockets hold apart, and by itself not at all: a plugin that fills its own
            # loopback's buffers would use up the whole host's.
            sockets = directory / "memory.kmem.tcp.limit_in_bytes"
            if sockets.exists():
                put_checked(sockets, str(limits.memory // 4))
            swap = directory / "memory.memsw.limit_in_bytes"
            if swap.exists():
                put_checked(swap, str(limits.memory))
            elif (directory / "memory.swappiness").exists():
                put(directory / "memory.swappiness", "0")
        if self.pids is not None:
            put_checked(self.pids / self.place / name / "pids.max", str(limits.pids + SANDBOX_PIDS))
