"""Asks the kernel for what only an administrator, or an attacker, needs."""

import ctypes
import fcntl
import os
import platform
import resource
import struct
import time
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Attempt, Outcome, got, nothing

LIBC = ctypes.CDLL(None, use_errno=True)
REMOUNT, BIND = 32, 4096
NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "network": 0x40000000,
    "process": 0x20000000,
    "IPC": 0x08000000,
    "host name": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
GETPID = {"x86_64": 39, "aarch64": 172}
SIGCHLD = 17
X32 = 0x40000000
TERMINAL = {
    "type into": 0x5412,
    "take the line discipline of": 0x5423,
    "select on": 0x541C,
    "redirect": 0x541D,
}
REFUSED = {1: "EPERM", 13: "EACCES", 38: "ENOSYS"}
"""What a filter or a missing privilege answers; any other error means that the kernel looked at the call."""


def attempts(config: dict[str, Any]) -> dict[str, Attempt]:
    """Return what to try.

    Of ``config``: ``calls`` are system calls that must not be let through, by machine and name; ``pod``: it
    is one.
    """
    machine = platform.machine()
    return {
        "mount a file system": Attempt("privileges", mount, use_tmp),
        "make the root writable": Attempt("privileges", remount, use_tmp),
        "unmount what hides the rest": Attempt("privileges", unmount, use_tmp),
        **{
            f"unshare a {name} namespace": Attempt("systemCalls", partial(unshare, flag), fork)
            for name, flag in NAMESPACES.items()
        },
        **{
            f"clone into a {name} namespace": Attempt(
                "systemCalls", partial(clone, CLONE[machine], flag), fork
            )
            for name, flag in NAMESPACES.items()
            if name != "time"
        },
        "clone by a call that hides its flags": Attempt("systemCalls", partial(call, CLONE3), fork),
        "enter the first process's namespaces": Attempt("privileges", enter, fork),
        "change the root": Attempt("privileges", change_root, change_directory),
        "make a device": Attempt("privileges", make_device, make_pipe),
        "change the host's name": Attempt("privileges", change_name, read_name),
        "set the clock": Attempt("privileges", set_clock, read_clock),
        **{
            f"{verb} a terminal": Attempt("systemCalls", partial(control, request), ask_pipe)
            for verb, request in TERMINAL.items()
        },
        "turn off the randomness of addresses": Attempt("systemCalls", personality, ask_personality),
        **(
            {}  # a pod cannot be given limits of core files and of locked memory, which counts as its memory
            if config.get("pod")
            else {
                "keep a file locked in memory": Attempt("privileges", lock_memory, touch_memory),
                "let the host's crash handler be called": Attempt("privileges", dump_core, ask_limits),
            }
        ),
        **(
            {"call as another machine does": Attempt("systemCalls", partial(call, X32 | 39), own_pid)}
            if machine == "x86_64"
            else {}
        ),
        "call what no kernel has": Attempt("systemCalls", partial(call, 999), own_pid),
        **{
            f"call {name}": Attempt("systemCalls", partial(call, number), own_pid)
            for name, number in config.get("calls", {}).get(machine, {}).items()
        },
    }


def mount() -> Outcome:
    """Mount a fresh tmpfs over /tmp, without a limit."""
    return of_call(LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None))


def use_tmp() -> bool:
    """Use the scratch space that is there."""
    Path("/tmp/used").write_text("x")
    return Path("/tmp/used").exists()


def remount() -> Outcome:
    """Take away the read-only flag."""
    return of_call(LIBC.mount(None, b"/", None, REMOUNT | BIND, None))


def unmount() -> Outcome:
    """Uncover what lies below."""
    return of_call(LIBC.umount2(b"/plugin", 2))


def unshare(what: int) -> Outcome:
    """Become an administrator of something new."""
    return of_call(LIBC.unshare(what))


def clone(number: int, flag: int) -> Outcome:
    """Begin a process in something new."""
    answer = LIBC.syscall(number, flag | SIGCHLD, 0, 0, 0, 0)
    if answer == 0:
        os._exit(0)
    if answer > 0:
        os.waitpid(answer, 0)
        return got("began one")
    return nothing(os.strerror(ctypes.get_errno()))


def fork() -> bool:
    """Begin a process like itself."""
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def enter() -> Outcome:
    """Join the namespaces of another process."""
    namespace = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    return of_call(LIBC.setns(namespace, 0))


def change_root() -> Outcome:
    """Step into a root of its own making."""
    os.chroot("/tmp")
    return got("changed it")


def change_directory() -> bool:
    """Step into a folder."""
    os.chdir("/tmp")
    return os.getcwd() == "/tmp"


def make_device() -> Outcome:
    """Make a device file for the host's memory."""
    os.mknod("/tmp/mem", 0o20666, os.makedev(1, 1))
    return got("made it")


def make_pipe() -> bool:
    """Make a named pipe."""
    os.mkfifo("/tmp/named")
    return Path("/tmp/named").is_fifo()


def change_name() -> Outcome:
    """Rename the host."""
    return of_call(LIBC.sethostname(b"mine", 4))


def read_name() -> bool:
    """Read its own host name."""
    return bool(os.uname().nodename)


def set_clock() -> Outcome:
    """Change the time of the whole host."""
    time.clock_settime(time.CLOCK_REALTIME, 0)
    return got("set it")


def read_clock() -> bool:
    """Read the time."""
    return time.time() > 1_700_000_000


def lock_memory() -> Outcome:
    """Take memory that can never be given to others."""
    size = 64 << 20
    room = ctypes.create_string_buffer(size)
    return of_call(LIBC.mlock(room, ctypes.c_size_t(size)))


def touch_memory() -> bool:
    """Use some memory."""
    room = bytearray(1 << 20)
    room[-1] = 1
    return sum(room) == 1


def control(request: int) -> Outcome:
    """Type into, or take over, the terminal that a person may be sitting at."""
    fcntl.ioctl(1, request, b"x")
    return got("done")


def ask_pipe() -> bool:
    """Ask a pipe how much it holds, by the same call."""
    reader, writer = os.pipe()
    os.write(writer, b"four")
    answer = fcntl.ioctl(reader, 0x541B, b"\0" * 4)
    return bool(struct.unpack("i", answer)[0] == 4)


def personality() -> Outcome:
    """Make its own addresses predictable, and those of programs it starts."""
    answer = LIBC.personality(ctypes.c_ulong(0x0040000))
    return got("done") if answer != -1 else nothing(os.strerror(ctypes.get_errno()))


def ask_personality() -> bool:
    """Ask which one it has, in as many bits as filters compare: an int here becomes 64 ones."""
    return bool(LIBC.personality(ctypes.c_ulong(0xFFFFFFFF)) != -1)


def dump_core() -> Outcome:
    """Set the limit to one with which the host's handler, which runs as root, is called."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ValueError as error:
        return nothing(str(error))
    return got("the limit is 0")


def ask_limits() -> bool:
    """Ask for its limits."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0


def call(number: int) -> Outcome:
    """Make a system call with arguments that mean nothing: only whether it is let through matters."""
    answer = LIBC.syscall(number, -1, 0, 0, 0, 0)
    error = ctypes.get_errno()
    if answer == -1 and error in REFUSED:
        return nothing(REFUSED[error])
    return got(f"the kernel took the call: {answer}, {os.strerror(error)}")


def own_pid() -> bool:
    """Make a call that everyone may make, by its number."""
    return bool(LIBC.syscall(GETPID[platform.machine()]) == os.getpid())


def of_call(answer: int) -> Outcome:
    """Return what a C function's answer means."""
    return got("done") if answer == 0 else nothing(os.strerror(ctypes.get_errno()))
