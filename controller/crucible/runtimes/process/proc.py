"""Facts about processes of this host, read from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for ever: a pid is used again, a pid with its start time within one boot is not.

    Attributes:
        pid: on this host.
        started: clock ticks since boot.
        boot: the kernel's id of that boot.
    """

    pid: int
    started: int
    boot: str


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started(pid: int) -> int | None:
    """Return a process's start time in ticks since boot; None when it is gone or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name between the brackets may hold anything, brackets and blanks too.
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def executable(pid: int) -> tuple[int, int] | None:
    """Return device and inode of the program a process runs; None when that cannot be seen."""
    try:
        found = Path(f"/proc/{pid}/exe").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def arguments(pid: int) -> tuple[bytes, ...]:
    """Return a process's arguments; none when that cannot be seen."""
    try:
        return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1])
    except OSError:
        return ()


def pids_by_namespace(pid: int) -> tuple[int, ...]:
    """Return a process's pid in each namespace, this one first; none when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return tuple(int(word) for word in line.split()[1:])
    return (pid,)


def owner(pid: int) -> int | None:
    """Return the real user id a process runs as; None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:")), None)


def children(pid: int) -> tuple[int, ...]:
    """Return the pids of a process's children; none when it is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # Without CONFIG_PROC_CHILDREN the file is missing though the process is there.
        return _children_by_search(pid) if Path(f"/proc/{pid}").exists() else ()
    return tuple(int(word) for word in text.split())


def all_pids() -> tuple[int, ...]:
    """Return every process of this host."""
    return tuple(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def hold(pid: int) -> int | None:
    """Return a pidfd of a process; None when it is gone."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def tell(pidfd: int, number: signal.Signals) -> None:
    """Send a signal to exactly the process held; nothing when that has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def ended(pidfd: int) -> bool:
    """Tell whether the process held has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _children_by_search(pid: int) -> tuple[int, ...]:
    return tuple(other for other in all_pids() if _parent(other) == pid)


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(b")")[2].split()[1])
