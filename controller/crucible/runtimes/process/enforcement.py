"""Says in words how well each control holds on this host. Pure, but for reading the host's switches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.model.enforcement import Capabilities, Control, Enforcement, Finding, Level
from crucible.model.volume import accesses

if TYPE_CHECKING:
    from crucible.model.volume import HostVolume
    from crucible.runtimes.process.cgroups import Cgroups

_NEED_CGROUPS: Final = frozenset({Control.CPU, Control.MEMORY, Control.PIDS})
_NOT_OFFERED: Final = {
    Control.LISTEN: "nobody could reach its ports; start the controller with --runtime docker, or remove it",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out.

    Attributes:
        bwrap: path of the bubblewrap that works.
        root: the controller is root.
        cgroups: how limits are set; None where they cannot be.
        about: which controllers, or why there are none and the fix.
        types: the plugin types that have a root file system.
        passed_over: the bubblewraps that do not work, and why.
        volumes: folders that plugins may be granted.
        egress: why no sandbox can be given a way to the egress proxy; empty where one can.
    """

    bwrap: str
    root: bool
    cgroups: Cgroups | None
    about: str
    types: frozenset[str]
    passed_over: tuple[str, ...] = ()
    volumes: tuple[HostVolume, ...] = ()
    egress: str = ""


def capabilities(facts: Facts) -> Capabilities:
    """Return what the core may count on."""
    return Capabilities(
        runtime="process",
        types=facts.types,
        isolation=frozenset({"process", "language"}),
        controls=tuple(_enforcement(control, facts) for control in Control),
        volumes=accesses(facts.volumes),
        no_freezer="" if facts.cgroups is not None and facts.cgroups.freezes else _no_freezer(facts),
    )


def _no_freezer(facts: Facts) -> str:
    """Say why nothing can be held still."""
    why = (
        "no cgroup of version 2, and no freezer of version 1, is the controller's"
        if facts.cgroups
        else facts.about
    )
    return f"instances cannot be frozen: {why}; 'crucible suspend' stops them instead"


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return the diagnosis for people."""
    node = "javascript" in facts.types
    return (
        Finding("sandbox", ok=True, detail=f"{facts.bwrap} ran a complete one, checked from inside"),
        *(Finding("other bubblewrap", ok=False, detail=problem) for problem in facts.passed_over),
        Finding("cgroups", facts.cgroups is not None, *_cgroup_detail(facts)),
        Finding(
            "javascript plugins",
            ok=node,
            detail="node was found" if node else "no node that runs was found on PATH",
            fix="" if node else "apt-get install nodejs",
        ),
        *(
            Finding(entry.control.value, entry.level is Level.ENFORCED, f"{entry.level.value}: {entry.by}")
            for entry in capabilities(facts).controls
            if entry.control not in _NOT_OFFERED
        ),
    )


def userns_fix() -> str:
    """Return what to do where no sandbox starts: the switch that forbids it here, else general advice."""
    switches = (
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
        ("/proc/sys/user/max_user_namespaces", "0", "15000"),
    )
    for path, forbids, allows in switches:
        file = Path(path)
        if file.exists() and file.read_text().strip() == forbids:
            key = path.removeprefix("/proc/sys/").replace("/", ".")
            return (
                f"This host restricts user namespaces: as root run `sysctl -w {key}={allows}`, "
                "or `apt-get install bubblewrap`"
            )
    return (
        "Install the system's bubblewrap: `apt-get install bubblewrap`; "
        "in a container, allow user namespaces and mounts"
    )


def _cgroup_detail(facts: Facts) -> tuple[str, str]:
    if facts.cgroups is not None:
        return f"{facts.cgroups.version} with {facts.about}", ""
    problem, _, fix = facts.about.partition("; ")
    return problem, fix


def _enforcement(control: Control, facts: Facts) -> Enforcement:
    if control in _NEED_CGROUPS:
        return _limit(control, facts)
    if control is Control.EGRESS and facts.egress:
        return Enforcement(control, Level.UNAVAILABLE, facts.egress)
    if control in _NOT_OFFERED:
        return Enforcement(control, Level.UNAVAILABLE, _NOT_OFFERED[control])
    by = {
        Control.IDENTITY: "a user and group id of its own for each instance, in a user namespace",
        Control.NAMESPACES: "pid, network, mount, ipc, uts, user and cgroup namespaces by bubblewrap",
        Control.ROOT_FS: "a read-only root of only what the type needs",
        Control.PRIVILEGES: "no capabilities, no_new_privs, no further user namespaces",
        Control.SYSCALLS: "a seccomp allow-list for its type",
        Control.NETWORK: "a network namespace with its own loopback and nothing else",
        Control.EGRESS: "the egress proxy, at a socket and at a port of its loopback; no other way out",
        Control.DISK: "tmpfs of limited size, and nothing else to write to",
        Control.OPEN_FILES: "RLIMIT_NOFILE",
        Control.BUS: "a socket of its own, behind which the broker checks every frame against the manifest",
        Control.STORE: "the broker counts every byte before it is kept",
        Control.FILES: "bind mounts of those folders alone, read-only unless granted for writing, without "
        "set-uid programs and devices",
        Control.SECRETS: "files in memory that only the plugin's user can read",
        Control.SECRET_ENV: "handed over through a pipe; not on any command line, nor on disk",
    }
    if control is Control.IDENTITY and not facts.root:
        return Enforcement(
            control,
            Level.DEGRADED,
            "a user namespace, but outside it the controller's own user id; "
            "start the controller as root to give each instance its own",
        )
    return Enforcement(control, Level.ENFORCED, by[control])


def _limit(control: Control, facts: Facts) -> Enforcement:
    if facts.cgroups is not None and control in facts.cgroups.controls:
        return Enforcement(control, Level.ENFORCED, facts.cgroups.version)
    why = facts.about if facts.cgroups is None else f"{facts.cgroups.version} here offers only {facts.about}"
    match control:
        case Control.PIDS:
            return Enforcement(control, Level.ENFORCED, "RLIMIT_NPROC of the sandbox's own user namespace")
        case Control.MEMORY:
            return Enforcement(
                control, Level.DEGRADED, f"RLIMIT_DATA for each process, not for their sum: {why}"
            )
        case _:
            return Enforcement(control, Level.UNAVAILABLE, why)
