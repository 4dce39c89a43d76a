"""What a sandbox has to look like to the kernel, from inside and from the host. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.breakout.verdict import Check
from crucible.core.scratch import scratch_sizes
from crucible.model.enforcement import Control

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crucible.model.workload import Workload

CAPABILITY_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
WRITABLE: Final = frozenset({"/tmp", "/dev/shm"})  # noqa: S108 - inside the sandbox
KERNELS_OWN: Final = ("/proc", "/dev", "/sys")
"""Mounts that show the kernel, not files: what may be written there is judged by trying."""
ENGINES_OWN: Final = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})
"""Files that a container engine mounts, of which only root may change the content."""
DEVICES: Final = frozenset({"full", "null", "random", "tty", "urandom", "zero"})
POD: Final = "kubernetes"
"""The runtime that can give no limit of core files, and whose volumes are folders of a node."""
SIZED_IN_PODS: Final = frozenset({"/dev/shm"})  # noqa: S108 - inside the sandbox
"""Scratch space of a pod that is as large as its limit; who goes over that of another is ended."""
MOST: Final = {
    "process": {"memlock": 64 << 10, "msgqueue": 64 << 10, "nice": 0, "rtprio": 0},
    "docker": {"memlock": 8 << 20, "msgqueue": 819_200, "nice": 0, "rtprio": 0},
    "kubernetes": {"nice": 0, "rtprio": 0},
}
"""By runtime, limits of a process that are not the manifest's: ours, or what container engines give."""
NAMESPACES: Final = ("pid", "net", "mnt", "ipc", "uts", "cgroup")
_SECCOMP_FILTER: Final = "2"
_ROOMY: Final = 65_536
_FIRST_AND_ITSELF: Final = 2


def from_inside(readings: Mapping[str, Any], workload: Workload, runtime: str) -> Iterator[Check]:
    """Compare what was read inside with what a runtime compiled; a pod has an interface of its own."""
    status = {key: tuple(value) for key, value in readings["status"].items()}
    yield from status_checks(status, "inside")
    yield from mount_checks(readings["mounts"], "inside", bits=runtime != POD)
    interfaces = readings["interfaces"]
    yield Check(
        Control.NETWORK,
        "inside: no interface but lo",
        runtime == POD or interfaces == ["lo"],
        f"has {interfaces}",
    )
    odd = sorted(
        set(readings["devices"]) - DEVICES - {"stdin", "stdout", "stderr", "ptmx", "core", "console"}
    )
    yield Check(
        Control.ROOT_FS, "inside: only harmless devices", not odd, f"also {odd}" if odd else "only those"
    )
    processes = readings["processes"]
    yield Check(
        Control.NAMESPACES,
        "inside: its own processes only",
        len(processes) <= _FIRST_AND_ITSELF,
        f"sees {processes}",
    )
    outside = [path for path in readings["cgroups"] if path != "/"]
    yield Check(Control.NAMESPACES, "inside: its cgroup is its root", not outside, f"sees {outside or '/'}")
    session = readings["session"]
    yield Check(
        Control.NAMESPACES, "inside: its session is its own", session > 0, f"is led by process {session}"
    )
    yield from _limits(readings, workload, runtime)


def status_checks(status: Mapping[str, Sequence[str]], where: str) -> Iterator[Check]:
    """Compare ``/proc/PID/status``, its values cut into words."""
    for kind in CAPABILITY_SETS:
        value = " ".join(status[kind])
        yield Check(Control.PRIVILEGES, f"{where}: {kind} is empty", int(value, 16) == 0, value)
    for key, control, wanted in (
        ("NoNewPrivs", Control.PRIVILEGES, "1"),
        ("Seccomp", Control.SYSCALLS, _SECCOMP_FILTER),
    ):
        value = " ".join(status[key])
        yield Check(control, f"{where}: {key} is {wanted}", value == wanted, f"is {value}")
    ids = sorted({*status["Uid"], *status["Gid"]})
    yield Check(Control.IDENTITY, f"{where}: is not root", "0" not in ids, f"has the ids {', '.join(ids)}")


def mount_checks(mounts: Sequence[Mapping[str, Any]], where: str, *, bits: bool = True) -> Iterator[Check]:
    """Every mount is read-only but scratch space, which is limited, and can hold no device and no set-uid.

    Args:
        mounts: as the kernel lists them.
        where: it was asked.
        bits: scratch space itself heeds no set-uid bit and no device; a pod's volumes do, to no effect.
    """
    changeable = [
        mount["at"]
        for mount in mounts
        if "ro" not in mount["options"]
        and mount["at"] not in WRITABLE | ENGINES_OWN
        and not mount["at"].startswith(KERNELS_OWN)
    ]
    said = f"{changeable} can be written" if changeable else "all of it is"
    yield Check(Control.ROOT_FS, f"{where}: everything but scratch space is read-only", not changeable, said)
    if not bits:
        return
    scratch = {mount["at"]: mount for mount in mounts if mount["at"] in WRITABLE}
    bare = [at for at, mount in scratch.items() if not {"nosuid", "nodev"} <= set(mount["options"])]
    said = f"{bare} lack it" if bare else "they have it"
    yield Check(Control.PRIVILEGES, f"{where}: scratch space has nosuid and nodev", not bare, said)


def _limits(readings: Mapping[str, Any], workload: Workload, runtime: str) -> Iterator[Check]:
    limits = {name: tuple(value) for name, value in readings["limits"].items()}
    files = workload.limits.open_files
    yield Check(
        Control.OPEN_FILES,
        "inside: the limit of files is the manifest's",
        limits["nofile"] == (str(files), str(files)),
        f"is {limits['nofile']}",
    )
    if runtime != POD:
        yield Check(
            Control.PRIVILEGES,
            "inside: the core limit is 1",
            limits["core"] == ("1", "1"),
            f"is {limits['core']}",
        )
    for name, most in MOST[runtime].items():
        hard = limits[name][1]
        low = hard.isdecimal() and int(hard) <= most
        yield Check(Control.PRIVILEGES, f"inside: the limit of {name} is {most} or less", low, f"is {hard}")
    for path, most in zip(("/tmp", "/dev/shm"), scratch_sizes(workload.limits), strict=True):  # noqa: S108
        size = readings["scratch"][path]
        if runtime == POD and path not in SIZED_IN_PODS:
            continue
        yield Check(
            Control.DISK,
            f"inside: {path} is as large as promised",
            most - _ROOMY <= size <= most + _ROOMY,
            f"{size} of {most} bytes",
        )


def namespace_checks(theirs: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[Check]:
    """Compare the links of ``/proc/PID/ns`` with the controller's own."""
    shared = [name for name in NAMESPACES if theirs.get(name) == ours.get(name)]
    said = f"shares {shared}" if shared else "shares none"
    yield Check(Control.NAMESPACES, "kernel: shares no namespace with the controller", not shared, said)
