"""Control groups: the kernel's limits on cpu, memory and processes, by either of its two interfaces."""

from __future__ import annotations

from crucible.runtimes.process.cgroups.base import Cgroups, Refused
from crucible.runtimes.process.cgroups.choice import choose

__all__ = ["Cgroups", "Refused", "choose"]
