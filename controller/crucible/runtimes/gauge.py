"""What an instance uses, read from the files of its cgroup, of either version."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from crucible.model.usage import Usage
from crucible.runtimes.scratch import close_scratch
from crucible.runtimes.scratch import used as in_scratch

if TYPE_CHECKING:
    from pathlib import Path

_FILES: Final = (
    *("cpu.stat", "memory.stat", "pids.current", "cgroup.procs"),
    *("memory.current", "memory.peak"),
    *("cpuacct.usage", "memory.usage_in_bytes", "memory.max_usage_in_bytes"),
)
_AT_ONCE: Final = 1 << 16


class Gauge:
    """The open files of one group: read again and again, they answer for this group and never another."""

    def __init__(self, directories: tuple[Path, ...], overhead: int = 0) -> None:
        """Open the files of a group.

        Args:
            directories: of the group, one for each hierarchy it is in.
            overhead: processes in it that are not the plugin's.
        """
        self._overhead = overhead
        self.scratch: tuple[int, ...] | None = None
        """Its scratch places, opened; this closes them. None: not looked for yet."""
        self._files: dict[str, int] = {}
        for directory in directories:
            for name in _FILES:
                # cpu.stat is in version 1's hierarchy of cpu only; the rest has one place each.
                if name not in self._files:
                    with contextlib.suppress(OSError):
                        self._files[name] = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])
        opened, self.scratch = self.scratch or (), ()
        close_scratch(opened)

    def process(self) -> int | None:
        """Return a pidfd of one of the group's processes, which the caller closes; None where it has none."""
        try:
            for word in self._text("cgroup.procs").split():
                held = os.pidfd_open(int(word))
                if word in self._text("cgroup.procs").split():
                    return held  # it was held while it was in the group: nobody else has its number
                os.close(held)
        except (OSError, ValueError):
            return None
        return None

    def read(self, now: float) -> Usage | None:
        """Return what the group uses; None where the kernel does not count it, or it is gone."""
        try:
            cpu, memory = self._cpu(), self._memory()
            if cpu is None or memory is None:
                return None
            used, throttled = cpu
            peak = self._number("memory.peak", "memory.max_usage_in_bytes")
            disk = in_scratch(self.scratch or ())
            return Usage(now, used, memory, peak, self._pids(), throttled, disk=disk)
        except (OSError, ValueError):
            return None

    def _cpu(self) -> tuple[float, float] | None:
        """Return the seconds used, and those held back."""
        stat = self._table("cpu.stat")
        if "usage_usec" in stat:
            return stat["usage_usec"] / 1e6, stat.get("throttled_usec", 0) / 1e6
        used = self._number("cpuacct.usage")
        return None if used is None else (used / 1e9, stat.get("throttled_time", 0) / 1e9)

    def _memory(self) -> int | None:
        held = self._number("memory.current", "memory.usage_in_bytes")
        if held is None:
            return None
        stat = self._table("memory.stat")
        return max(held - stat.get("total_inactive_file", stat.get("inactive_file", 0)), 0)

    def _pids(self) -> int:
        """Return the processes and threads, those that are not the plugin's left out."""
        count = self._number("pids.current")
        if count is None:
            count = len(self._text("cgroup.procs").split())
        return max(count - self._overhead, 0)

    def _number(self, *names: str) -> int | None:
        """Return what the first of these files that there is holds."""
        text = next((self._text(name) for name in names if name in self._files), "")
        return int(text) if text else None

    def _table(self, name: str) -> dict[str, int]:
        lines = (line.split() for line in self._text(name).splitlines())
        return {words[0]: int(words[1]) for words in lines if len(words) > 1}

    def _text(self, name: str) -> str:
        found = self._files.get(name)
        return "" if found is None else os.pread(found, _AT_ONCE, 0).decode()
