"""Reads what the kernel says about the sandbox, from inside; who started it compares."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "NSpid")
SCRATCH = ("/tmp", "/dev/shm")
LIMITS = {
    "core": "Max core file size",
    "memlock": "Max locked memory",
    "msgqueue": "Max msgqueue size",
    "nice": "Max nice priority",
    "nofile": "Max open files",
    "rtprio": "Max realtime priority",
}


def read() -> dict[str, Any]:
    """Return everything."""
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    status = {key: value.split() for key, _, value in lines if key in FIELDS}
    return {
        "status": status,
        "groups": os.getgroups(),
        "environment": dict(os.environ),
        "session": os.getsid(0),
        "host name": socket.gethostname(),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "cgroups": sorted(line.split(":", 2)[2] for line in _lines("/proc/self/cgroup")),
        "mounts": [_mount(line) for line in _lines("/proc/self/mountinfo")],
        "limits": _limits(),
        "scratch": {path: _size(path) for path in SCRATCH},
        "devices": sorted(name for name in os.listdir("/dev") if _is_device(f"/dev/{name}")),
        "root": sorted(os.listdir("/")),
        "descriptors": sorted(_descriptors()),
    }


def _limits() -> dict[str, list[str]]:
    found = {line[:26].strip(): line[26:].split()[:2] for line in _lines("/proc/self/limits")}
    return {name: found[title] for name, title in LIMITS.items()}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _mount(line: str) -> dict[str, Any]:
    before, _, after = line.partition(" - ")
    words = before.split()
    return {"at": words[4], "options": words[5].split(","), "kind": after.split()[0]}


def _size(path: str) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the listing's own
    return found
