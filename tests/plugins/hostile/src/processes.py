"""Looks at other processes, and makes too many of its own."""

import ctypes
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Outcome, got, nothing

MANY = 5000
PTRACE_ATTACH = 16
LIBC = ctypes.CDLL(None, use_errno=True)


def attempts(config: dict[str, Any]) -> dict[str, Callable[[], Outcome]]:
    """Return what to try."""
    return {
        "see processes of others": partial(see_others, config["otherPlugin"]),
        "trace the sandbox's first process": trace_init,
        "become root": become_root,
        "fork without end": fork_without_end,
    }


def see_others(other: str) -> Outcome:
    """Look for processes that are neither this plugin's nor its sandbox's."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids}
    foreign = [line for line in lines.values() if f"/{other}/" in line or "systemd" in line or "sshd" in line]
    if foreign or len(pids) > 6:
        return got(f"saw {len(pids)} processes: {foreign or list(lines.values())[:5]}")
    return nothing(f"saw {len(pids)}, all its own")


def trace_init() -> Outcome:
    """Attach to the process that holds the sandbox together."""
    if LIBC.ptrace(PTRACE_ATTACH, 1, None, None) == 0:
        return got("attached")
    return nothing(os.strerror(ctypes.get_errno()))


def become_root() -> Outcome:
    """Take another user's identity."""
    os.setuid(0)
    return got(f"is uid {os.getuid()} now")


def fork_without_end() -> Outcome:
    """Make processes until the kernel refuses, then clear them away."""
    children: list[int] = []
    try:
        for _ in range(MANY):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError as error:
        return nothing(f"refused after {len(children)} forks: {error.strerror}")
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return got(f"made {MANY} processes")
