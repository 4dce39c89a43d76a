"""Reads what an engine counts of a container. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.model.usage import Usage
from crucible.runtimes.docker.held import unix_time

if TYPE_CHECKING:
    from collections.abc import Mapping

_NANO: Final = 1e9
_IDLE_PAGES: Final = ("total_inactive_file", "inactive_file")
"""File pages not lately used, in the words of cgroup v1 and v2."""


def usage_of(found: Mapping[str, Any]) -> Usage | None:
    """Translate the answer to ``GET /containers/ID/stats``; None for a container that does not run."""
    at = unix_time(found.get("read", ""))
    cpu, memory = found.get("cpu_stats") or {}, found.get("memory_stats") or {}
    processes = int((found.get("pids_stats") or {}).get("current") or 0)
    if at is None or not processes or "usage" not in memory:
        return None
    counts = memory.get("stats") or {}
    idle = next((int(counts[name]) for name in _IDLE_PAGES if name in counts), 0)
    return Usage(
        at=at,
        cpu=int(cpu.get("cpu_usage", {}).get("total_usage", 0)) / _NANO,
        memory=max(int(memory["usage"]) - idle, 0),
        memory_peak=int(memory["max_usage"]) if memory.get("max_usage") else None,
        pids=max(processes - 1, 0),  # the init process is the engine's
        throttled=int((cpu.get("throttling_data") or {}).get("throttled_time", 0)) / _NANO,
    )
