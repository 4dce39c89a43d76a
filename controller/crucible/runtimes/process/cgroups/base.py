"""What both versions offer, and what can be done to a group by its directories alone.

The functions here look at which files a directory has, not at who made it, so a controller can judge and
clear groups that an earlier one made by the other interface.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING, Final, Protocol

from crucible.runtimes.process import proc

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.model.enforcement import Control
    from crucible.model.workload import Limits

# Bubblewrap runs two processes beside the plugin's own: its monitor outside, its init inside.
SANDBOX_PIDS: Final = 2
CPU_PERIOD: Final = 100_000
_SLOW_PERIOD: Final = 1_000_000
_MIN_QUOTA: Final = 1_000
_FREEZERS: Final = (("freezer.state", "FROZEN"), ("cgroup.freeze", "1"))
_MOST_GROUPS: Final = 100  # version 2 has no larger weight
_PAGE: Final = 65_536  # the largest page size of any machine: limits are rounded by less than this


class Refused(Exception):
    """The kernel did not take a limit; says which, and why."""


class Cgroups(Protocol):
    """Makes groups below one place of the host's hierarchy, or hierarchies."""

    @property
    def version(self) -> str:
        """``cgroup v1`` or ``cgroup v2``, for people."""
        ...

    @property
    def controls(self) -> frozenset[Control]:
        """The controls that these groups enforce."""
        ...

    @property
    def freezes(self) -> bool:
        """Groups can be held still."""
        ...

    def directories(self, name: str) -> tuple[Path, ...]:
        """Return the directories a group of that name consists of. Touches nothing."""
        ...

    def make(self, name: str, limits: Limits) -> None:
        """Make a group with its limits, each read back.

        Raises:
            Refused: a limit could not be set.
        """
        ...


def joins(directories: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the files into which a process of one thread writes itself to be in these groups.

    Version 1 has one for a single thread. The kernel takes that without its lock on all of fork and exec,
    which ``cgroup.procs`` needs and which waits for a grace period: 15 ms on an idle machine.
    """
    return tuple(
        directory / ("tasks" if (directory / "tasks").exists() else "cgroup.procs")
        for directory in directories
    )


def pids(directories: tuple[Path, ...]) -> frozenset[int]:
    """Return the processes in a group, dead ones that nobody reaped left out."""
    found: set[int] = set()
    for directory in directories:
        with contextlib.suppress(OSError):
            found.update(int(line) for line in (directory / "cgroup.procs").read_text().split())
    return frozenset(pid for pid in found if proc.started(pid) is not None)


def kill(directories: tuple[Path, ...]) -> None:
    """Send SIGKILL to every process in a group. Whoever is born meanwhile is found by the next call."""
    for directory in directories:
        with contextlib.suppress(OSError):
            switch = os.open(directory / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(switch, b"1")
            finally:
                os.close(switch)
            return
    for pid in pids(directories):
        held = proc.hold(pid)
        if held is None:
            continue
        try:
            # Looked at again while held: the number could have gone to another process in between.
            if pid in pids(directories):
                proc.tell(held, signal.SIGKILL)
        finally:
            os.close(held)
    with contextlib.suppress(Refused):
        thaw(directories)  # in version 1 nothing that is held still ends


def freeze(directories: tuple[Path, ...]) -> bool:
    """Begin to hold a group still, or go on with it; return whether every process of it is by now.

    Raises:
        Refused: none of its directories can, or the kernel does not take it.
    """
    for directory in directories:
        for name, word in _FREEZERS:
            if (directory / name).exists():
                put(directory / name, word)
                return frozen((directory,))
    raise Refused("it was started in a group that cannot be held still: restart it first")


def thaw(directories: tuple[Path, ...]) -> None:
    """Let a group that is held still go on; one that cannot be held still goes on anyway.

    Raises:
        Refused: the kernel does not take it.
    """
    for directory in directories:
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (directory / name).exists():
                put(directory / name, word)


def frozen(directories: tuple[Path, ...]) -> bool:
    """Return whether every process of a group is held still."""
    for directory in directories:
        with contextlib.suppress(OSError):
            if (directory / "freezer.state").read_text().strip() == "FROZEN":
                return True
        with contextlib.suppress(OSError):
            if "frozen 1" in (directory / "cgroup.events").read_text().splitlines():
                return True
    return False


def oom_kills(directories: tuple[Path, ...]) -> int:
    """Return how many processes of a group the kernel killed for its memory limit."""
    for directory in directories:
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                for line in (directory / name).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
    return 0


def remove(directories: tuple[Path, ...]) -> bool:
    """Delete a group, and the place it was made in once that is empty; False while processes linger."""
    for directory in directories:
        try:
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.parent.rmdir()
    return True


def put(file: Path, value: str) -> None:
    """Write one value.

    Raises:
        Refused: the kernel did not take it.
    """
    try:
        with file.open("wb", buffering=0) as opened:
            opened.write(value.encode())
    except OSError as error:
        raise Refused(f"cannot write {value!r} to {file.name} of its cgroup: {error.strerror}") from error


def put_checked(file: Path, value: str) -> None:
    """Write one value and read it back.

    Raises:
        Refused: the kernel did not take it, or took another.
    """
    put(file, value)
    found = file.read_text().strip()
    if found != value and not _same_size(found, value):
        raise Refused(f"{file.name} of its cgroup holds {found!r} instead of {value!r}")


def cpu_quota(thousandths: int) -> tuple[int, int]:
    """Return quota and period in microseconds for thousandths of a core; the kernel takes 1 ms or more."""
    quota = thousandths * CPU_PERIOD // 1000
    if quota >= _MIN_QUOTA:
        return quota, CPU_PERIOD
    return max(thousandths * _SLOW_PERIOD // 1000, _MIN_QUOTA), _SLOW_PERIOD


def weigh(group: Path, file: str, one: int) -> None:
    """Give all plugins together the weight of two ordinary groups for each core.

    Unless that is said, everything in this group together weighs as much as any one other session of the
    host, and a call from plugin to plugin waits now and then for a whole time slice of such a session: beside
    two that were busy p99 was 5.4 ms, and is 0.5 ms with this. What each may use at most is limited apart.
    It is no control: where it cannot be said, plugins only wait.
    """
    if (group / file).exists():
        with contextlib.suppress(OSError):
            (group / file).write_text(str(one * min(2 * (os.cpu_count() or 1), _MOST_GROUPS)))


def _same_size(found: str, value: str) -> bool:
    """Tell whether two byte counts differ by rounding to pages only."""
    return found.isdecimal() and value.isdecimal() and abs(int(found) - int(value)) < _PAGE
