"""Asks the kernel of this host about a sandboxed process, from outside, where that process can be seen."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.breakout.expected import mount_checks, namespace_checks, status_checks
from crucible.breakout.verdict import Check
from crucible.model.enforcement import Control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.model.workload import Limits, Workload

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
_SLACK_PIDS: Final = 3
"""Processes of the runtime's own in an instance's cgroup: bubblewrap's, or a container's init."""
_SLACK_BYTES: Final = 65_536


def find(mark: bytes) -> int | None:
    """Return the pid of the process with a variable in its environment; None where it cannot be seen.

    The first process of a pid namespace may have the same variables, and is not meant.
    """
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and _status(entry)["NSpid"][-1] != "1":
                return int(entry.name)
    return None


def checks(pid: int, workload: Workload, *, root: bool) -> Iterator[Check]:
    """Compare what the kernel says of a process with what was compiled; ``root``: the controller is root."""
    place = PROC / str(pid)
    status = _status(place)
    yield from status_checks(status, "kernel")
    if root:
        yield from _identity(status)
    links = {entry.name: str(entry.readlink()) for entry in (place / "ns").iterdir()}
    ours = {entry.name: str(entry.readlink()) for entry in (PROC / "self/ns").iterdir()}
    yield from namespace_checks(links, ours)
    if links["user"] != ours["user"]:
        yield _further(pid)
    yield from mount_checks([_mount(line) for line in _lines(place / "mountinfo")], "kernel")
    yield from _files(place, workload.limits)
    yield from _groups(place, workload.limits)


def _further(pid: int) -> Check:
    """Try what its filter keeps it from, to see what holds behind that: a user namespace below its own."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _FURTHER, str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    said = (done.stdout or done.stderr).strip()[-200:]
    return Check(
        Control.PRIVILEGES, "kernel: no further user namespace can be made", said.startswith("refused"), said
    )


def _identity(status: dict[str, list[str]]) -> Iterator[Check]:
    ids = {int(word) for word in (*status["Uid"], *status["Gid"], *status["Groups"])}
    low = sorted(one for one in ids if one < _FIRST_UNUSED)
    said = f"also has {low}" if low else f"has {sorted(ids)}"
    yield Check(Control.IDENTITY, "kernel: its ids are nobody else's", not low, said)


_SECONDS: Final = 30.0
_FURTHER: Final = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
place = os.open(f"/proc/{sys.argv[1]}/ns/user", os.O_RDONLY)
if libc.setns(place, 0x10000000):
    sys.exit(f"cannot enter: {os.strerror(ctypes.get_errno())}")
libc.setgid(1000), libc.setuid(1000)
made = libc.unshare(0x10000000) == 0
print("made one" if made else f"refused: {os.strerror(ctypes.get_errno())}")
"""
_FIRST_UNUSED: Final = 1_000_000_000
"""Ids below may be a person's, a service's or a container's."""


def _status(place: Path) -> dict[str, list[str]]:
    lines = (line.partition(":") for line in _lines(place / "status"))
    return {key: value.split() for key, _, value in lines}


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()


def _mount(line: str) -> dict[str, object]:
    words = line.split()
    return {"at": words[4], "options": words[5].split(",")}


def _files(place: Path, limits: Limits) -> Iterator[Check]:
    files = _limit(place, "Max open files")
    yield Check(
        Control.OPEN_FILES,
        "kernel: the limit of files is the manifest's",
        files == str(limits.open_files),
        f"is {files}",
    )


def _limit(place: Path, title: str) -> str:
    """Return a hard limit of a process, as the kernel writes it."""
    found = {line[:26].strip(): line[26:].split() for line in _lines(place / "limits")}
    return found[title][1]


def _groups(place: Path, limits: Limits) -> Iterator[Check]:
    memory = _read(place, "memory", ("memory.max", "memory.limit_in_bytes"))
    yield _number(Control.MEMORY, "memory", memory, limits.memory, _SLACK_BYTES)
    yield _swap(place, limits.memory)
    pids = _read(place, "pids", ("pids.max",))
    if not pids.isdecimal():
        # Without a cgroup the number of processes of the sandbox's own user is what is limited.
        pids = _limit(place, "Max processes")
    yield _number(Control.PIDS, "processes", pids, limits.pids, _SLACK_PIDS)
    yield _processor(place, limits.cpu)


def _number(control: Control, name: str, found: str, most: int, slack: int) -> Check:
    ok = found.isdecimal() and most <= int(found) <= most + slack
    return Check(control, f"kernel: the limit of {name} is the manifest's", ok, f"{found} of {most}")


def _swap(place: Path, most: int) -> Check:
    """Swap is part of the limit on version 1, and none on version 2; a kernel that counts none gives none."""
    both, own = (
        _read(place, "memory", ("memory.memsw.limit_in_bytes",)),
        _read(place, "memory", ("memory.swap.max",)),
    )
    ok = (both.isdecimal() and int(both) <= most + _SLACK_BYTES) or own == "0" or not (both or own)
    return Check(
        Control.MEMORY,
        "kernel: the limit of memory holds for swap too",
        ok,
        f"{both or own or 'not counted'}",
    )


def _processor(place: Path, thousandths: int) -> Check:
    both = _read(place, "cpu", ("cpu.max",)).split()
    if not both:
        both = [_read(place, "cpu", (f"cpu.cfs_{word}_us",)) for word in ("quota", "period")]
    told = " of ".join(both)
    whole = all(word.isdecimal() for word in both) and len(both) == 2  # noqa: PLR2004 - quota and period
    ok = whole and abs(int(both[0]) * 1000 / int(both[1]) - thousandths) <= 1
    return Check(
        Control.CPU, "kernel: the cgroup's share of cpu is the manifest's", ok, f"{told} microseconds"
    )


def _read(place: Path, controller: str, names: tuple[str, ...]) -> str:
    """Return the first of these files of a process's cgroup; what it holds, or nothing."""
    for line in _lines(place / "cgroup"):
        _, controllers, path = line.split(":", 2)
        roots = (
            [CGROUPS / controllers, CGROUPS / "unified"] if controllers else [CGROUPS, CGROUPS / "unified"]
        )
        if controllers and controller not in controllers.split(","):
            continue
        roots.append(CGROUPS / controller)
        for root in roots:
            for name in names:
                with contextlib.suppress(OSError):
                    return (root / path.lstrip("/") / name).read_text().strip()
    return ""
