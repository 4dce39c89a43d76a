"""Clears away all that bears a control plane's mark: what is left of a run that failed or was interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onlooker import below, everything

from crucible.runtimes.process import proc
from crucible.runtimes.process.cgroups import base as groups

if TYPE_CHECKING:
    from collections.abc import Collection

SECONDS = 60.0


def clear(mark: str, sessions: Collection[int] = ()) -> None:
    """Kill every process of a control plane, and remove its cgroups and what it keeps in memory.

    Args:
        mark: its id.
        sessions: of its controllers; what they started and did not take along is in these.

    Raises:
        AssertionError: something does not go.
    """
    deadline = time.monotonic() + SECONDS
    while pids := processes(mark, sessions):
        assert time.monotonic() < deadline, f"processes {sorted(pids)} do not end"
        with suppress(groups.Refused):  # one goes meanwhile: the others are for the next time
            groups.thaw(tuple(cgroups(mark)))  # what is frozen does not even die
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    while found := cgroups(mark):
        assert time.monotonic() < deadline, f"{found} are not removed"
        for group in reversed(found):
            with suppress(OSError):
                group.rmdir()
        time.sleep(0.02)
    shutil.rmtree(f"/dev/shm/crucible-{mark}", ignore_errors=True)


def processes(mark: str, sessions: Collection[int] = ()) -> set[int]:
    """Return every process of a control plane: sandboxes', companions', and those in its cgroups."""
    marks = (f"crucible:{mark}/".encode(), f"crucible-companion:{mark}/".encode())
    found = set(groups.pids(tuple(cgroups(mark))))
    for pid in proc.all_pids():
        words = proc.arguments(pid)
        left = _session(pid) in sessions and any(b"crucible" in word for word in words)
        if left or any(word.startswith(marks) for word in words):
            found.add(pid)
    return {pid for pid in found if proc.started(pid) is not None and pid != os.getpid()}


def cgroups(mark: str) -> list[Path]:
    """Return every cgroup of a control plane, each before those below it."""
    top = Path("/sys/fs/cgroup")
    tops = [path for pattern in (f"crucible-{mark}", f"*/crucible-{mark}") for path in below(top, pattern)]
    return [path for one in tops for path in (one, *filter(Path.is_dir, everything(one)))]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
