"""Asks the kernel for what only an administrator, or an attacker, needs."""

import ctypes
import os
import platform
from collections.abc import Callable
from functools import partial
from typing import Any

from outcome import Outcome, got, nothing

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_NAMESPACE, NEW_NET = 0x10000000, 0x00020000, 0x40000000
READ_ONLY, REMOUNT, BIND = 1, 32, 4096
CALLS = {
    "x86_64": {
        "bpf": 321, "perf_event_open": 298, "keyctl": 250, "add_key": 248, "init_module": 175,
        "kexec_load": 246,
        "io_uring_setup": 425, "userfaultfd": 323, "process_vm_readv": 310, "open_by_handle_at": 304,
        "pivot_root": 155, "swapon": 167, "reboot": 169, "settimeofday": 164, "iopl": 172, "quotactl": 179,
    },
    "aarch64": {
        "bpf": 280, "perf_event_open": 241, "keyctl": 219, "add_key": 217, "init_module": 105,
        "kexec_load": 104,
        "io_uring_setup": 425, "userfaultfd": 282, "process_vm_readv": 270, "open_by_handle_at": 265,
        "pivot_root": 41, "swapon": 224, "reboot": 142, "settimeofday": 170, "quotactl": 60,
    },
}  # fmt: skip
REFUSED = {1: "EPERM", 13: "EACCES", 38: "ENOSYS"}
"""What a filter or a missing privilege answers; any other error means that the kernel looked at the call."""


def attempts(config: dict[str, Any]) -> dict[str, Callable[[], Outcome]]:
    """Return what to try."""
    del config
    return {
        "mount a file system": mount,
        "make the root writable": remount,
        "unmount the root": unmount,
        "make a user namespace": partial(unshare, NEW_USER),
        "make a mount namespace": partial(unshare, NEW_NAMESPACE),
        "make a network namespace": partial(unshare, NEW_NET),
        "enter the first process's namespaces": enter,
        "change the root": change_root,
        "make a device": make_device,
        "change the host's name": change_name,
        "take the highest priority": take_priority,
        **{f"call {name}": partial(call, number) for name, number in CALLS[platform.machine()].items()},
    }


def mount() -> Outcome:
    """Mount a fresh tmpfs over /tmp, without a limit."""
    return of_call(LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None))


def remount() -> Outcome:
    """Take away the read-only flag."""
    return of_call(LIBC.mount(None, b"/", None, REMOUNT | BIND, None))


def unmount() -> Outcome:
    """Uncover what lies below."""
    return of_call(LIBC.umount2(b"/plugin", 2))


def unshare(what: int) -> Outcome:
    """Become an administrator of something new."""
    return of_call(LIBC.unshare(what))


def enter() -> Outcome:
    """Join the namespaces of another process."""
    namespace = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    return of_call(LIBC.setns(namespace, 0))


def change_root() -> Outcome:
    """Step into a root of its own making."""
    os.chroot("/tmp")
    return got("changed it")


def make_device() -> Outcome:
    """Make a device file for the host's memory."""
    os.mknod("/tmp/mem", 0o20666, os.makedev(1, 1))
    return got("made it")


def change_name() -> Outcome:
    """Rename the host."""
    return of_call(LIBC.sethostname(b"mine", 4))


def take_priority() -> Outcome:
    """Push everyone else aside."""
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return got("took it")


def call(number: int) -> Outcome:
    """Make a system call with arguments that mean nothing: only whether it is let through matters."""
    answer = LIBC.syscall(number, -1, 0, 0, 0, 0)
    error = ctypes.get_errno()
    if answer == -1 and error in REFUSED:
        return nothing(REFUSED[error])
    return got(f"the kernel took the call: {answer}, {os.strerror(error)}")


def of_call(answer: int) -> Outcome:
    """Return what a C function's answer means."""
    return got("done") if answer == 0 else nothing(os.strerror(ctypes.get_errno()))
