"""Reads what it should not see, and writes what it should not change."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Outcome, got, nothing

HOST_FOLDERS = (
    "/root",
    "/home",
    "/var/lib/crucible",
    "/run",
    "/srv",
    "/boot",
    "/sys/class",
    "/mnt",
    "/media",
)
PLACES = ("/created", "/usr/created", "/plugin/created", "/etc/created", "/config/created", "/dev/created")
OWN_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_CTYPE", "PWD", "SHLVL", "_", "PYTHON", "CRUCIBLE_")
HOST_DEVICES = (
    "/dev/mem",
    "/dev/kmsg",
    "/dev/sda",
    "/dev/vda",
    "/dev/kvm",
    "/dev/fuse",
    "/dev/net/tun",
    "/dev/port",
)
KERNEL_SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe")


def attempts(config: dict[str, Any]) -> dict[str, Callable[[], Outcome]]:
    """Return what to try."""
    return {
        **{f"read host file {path}": partial(read, path) for path in config["hostFiles"]},
        "list host folders": list_folders,
        "reach the host through /proc/1/root": through_init,
        "climb out of the root": climb,
        "find a set-uid program": find_set_uid,
        "find descriptors left open": find_descriptors,
        "find secrets in the environment": find_environment,
        **{f"write {place}": partial(write, place) for place in PLACES},
        "change the manifest's config": partial(append, os.environ["CRUCIBLE_CONFIG"]),
        "change its own program": partial(append, __file__),
        "change the password file": partial(append, "/etc/passwd"),
        "change the kernel's settings": change_settings,
        "open host devices": open_devices,
        "write to a cgroup": write_cgroup,
    }


def read(path: str) -> Outcome:
    """Read a file of the host."""
    return got(f"read {len(Path(path).read_bytes())} bytes of {path}")


def list_folders() -> Outcome:
    """List folders that only a host has."""
    found = [
        folder
        for folder in HOST_FOLDERS
        if Path(folder).is_dir() and set(os.listdir(folder)) - {"crucible"}  # where its own doors are
    ]
    return got(f"listed {found}") if found else nothing("none of them is there")


def through_init() -> Outcome:
    """Follow the root of the sandbox's first process."""
    root = Path("/proc/1/root")
    outside = set(os.listdir(root)) - set(os.listdir("/"))
    return got(f"saw {sorted(outside)}") if outside else nothing("it is the same root")


def climb() -> Outcome:
    """Go up from the root, as a process could that held a descriptor from outside."""
    above, here = Path("/../../..").stat(), Path("/").stat()
    same = (above.st_dev, above.st_ino) == (here.st_dev, here.st_ino)
    return nothing("there is nothing above") if same else got("there is something above")


def find_set_uid() -> Outcome:
    """Look for programs that run as someone else."""
    for folder, _, names in os.walk("/"):
        if folder.startswith(("/proc", "/sys")):
            continue
        for name in names:
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                return got(f"{folder}/{name}")
    return nothing("no file has the bit")


def find_descriptors() -> Outcome:
    """Look for descriptors that its starter forgot: beyond the standard three, its pipe and this listing."""
    own = {"pipe", "anon_inode"}
    kept: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
        if int(name) > 2 and target.partition(":")[0] not in own:
            kept.append(f"{name} -> {target}")
    return got(str(kept)) if kept else nothing("none")


def find_environment() -> Outcome:
    """Look for variables of whoever started it."""
    foreign = [name for name in os.environ if not name.startswith(OWN_ENVIRONMENT)]
    return got(f"found {foreign}") if foreign else nothing("only its own variables")


def write(place: str) -> Outcome:
    """Create a file where everything is read-only."""
    Path(place).write_text("here")
    return got(f"wrote {place}")


def append(path: str) -> Outcome:
    """Change a file that is there."""
    with open(path, "a") as file:
        file.write("\n")
    return got(f"changed {path}")


def change_settings() -> Outcome:
    """Write to files that change the whole host."""
    for path in KERNEL_SETTINGS:
        try:
            with open(path, "a"):
                return got(f"opened {path} for writing")
        except OSError as error:
            last = str(error)
    return nothing(last)


def open_devices() -> Outcome:
    """Open devices of the host."""
    found = [path for path in HOST_DEVICES if Path(path).exists()]
    return got(f"found {found}") if found else nothing("none is there")


def write_cgroup() -> Outcome:
    """Find its own limits, and lift them."""
    for line in Path("/proc/mounts").read_text().splitlines():
        kind, where = line.split()[2], line.split()[1]
        if kind in {"cgroup", "cgroup2"} and os.access(where, os.W_OK):
            return got(f"{where} can be written")
    return nothing("no cgroup is mounted")
