"""Says in words how well each control holds on this engine. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.model.enforcement import Capabilities, Control, Enforcement, Level
from crucible.model.manifest import PluginType

if TYPE_CHECKING:
    from collections.abc import Mapping

VM_RUNTIMES: Final = ("runsc", "kata", "kata-runtime", "io.containerd.kata.v2", "kata-qemu")
"""Names under which engines offer gVisor and Kata."""

ASSUMED: Final = {
    "SecurityOptions": ["name=seccomp"],
    **dict.fromkeys(("CpuCfsQuota", "MemoryLimit", "SwapLimit", "PidsLimit"), True),
}
"""What engines usually say, until this one was asked."""
_HELD_BY: Final = {
    Control.IDENTITY: "a user and group id of its own for each instance, not root",
    Control.NAMESPACES: "pid, network, mount, ipc, uts and cgroup namespaces of its container",
    Control.ROOT_FS: "a read-only root file system",
    Control.PRIVILEGES: "no capabilities, no_new_privs",
    Control.NETWORK: "no network, or an internal one of its own without a gateway",
    Control.DISK: "tmpfs of limited size, and nothing else to write to",
    Control.OPEN_FILES: "RLIMIT_NOFILE",
    Control.FILES: "bind mounts of those folders alone, read-only unless granted for writing; no_new_privs "
    "and the device cgroup keep set-uid programs and devices without effect",
    Control.SECRETS: "files in memory of this host, bound read-only, that only its user can read",
    Control.BUS: "a socket of its own, behind which the broker checks every frame against the manifest",
    Control.STORE: "the broker counts every byte before it is kept",
    Control.EGRESS: "the egress proxy, by a relay in a network of its own that has no way out itself",
    Control.LISTEN: "a network of its own, whose one way in is a relay on the loopback of the engine's host",
}
_LIMITS: Final = {
    Control.CPU: "CpuCfsQuota",
    Control.MEMORY: "MemoryLimit",
    Control.PIDS: "PidsLimit",
}


NOT_OFFERED: Final = {
    Control.SECRET_ENV: "whoever may ask the engine can read a container's environment; "
    "read the file /secrets/NAME/KEY instead, or start the controller with --runtime process",
}
"""What no engine gives, and why."""


def capabilities(info: Mapping[str, Any], no_memory: str = "") -> Capabilities:
    """Return what the core may count on.

    Args:
        info: the answer to ``GET /info``.
        no_memory: why nothing can be kept in memory on this host; empty where it can.
    """
    vm = {"vm"} if vm_runtime(info) else set()
    return Capabilities(
        runtime="docker",
        types=frozenset(kind.value for kind in PluginType),
        isolation=frozenset({"process", "container", "language"} | vm),
        controls=tuple(
            Enforcement(control, Level.UNAVAILABLE, no_memory)
            if control is Control.SECRETS and no_memory
            else _enforcement(control, info)
            for control in Control
        ),
        sources=frozenset({"inline", "path", "image"}),
    )


def vm_runtime(info: Mapping[str, Any]) -> str:
    """Return the name under which this engine offers virtual machines or their like; empty for none."""
    offered = info.get("Runtimes") or {}
    return next((name for name in VM_RUNTIMES if name in offered), "")


def _enforcement(control: Control, info: Mapping[str, Any]) -> Enforcement:
    if control is Control.SYSCALLS:
        return _system_calls(info)
    if control in NOT_OFFERED:
        return Enforcement(control, Level.UNAVAILABLE, NOT_OFFERED[control])
    if control in _LIMITS:
        return _limit(control, info)
    return Enforcement(control, Level.ENFORCED, _HELD_BY[control])


def _system_calls(info: Mapping[str, Any]) -> Enforcement:
    options = info.get("SecurityOptions") or ()
    if any("name=seccomp" in option for option in options):
        return Enforcement(
            Control.SYSCALLS, Level.ENFORCED, "a seccomp allow-list for its type, sent with each container"
        )
    return Enforcement(
        Control.SYSCALLS,
        Level.UNAVAILABLE,
        "the engine was built, or the kernel configured, without seccomp; use a packaged engine",
    )


def _limit(control: Control, info: Mapping[str, Any]) -> Enforcement:
    if not info.get(_LIMITS[control]):
        return Enforcement(
            control,
            Level.UNAVAILABLE,
            "the engine has no such cgroup controller; see the warnings of `docker info`",
        )
    if control is Control.MEMORY and not info.get("SwapLimit"):
        return Enforcement(
            control,
            Level.DEGRADED,
            "memory is limited, swap is not: start the kernel with swapaccount=1, or turn swap off",
        )
    return Enforcement(control, Level.ENFORCED, f"cgroup v{info.get('CgroupVersion') or '1'} by the engine")
