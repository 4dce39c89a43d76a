"""The entrance: a small program that runs one command inside a running sandbox, and reports its end.

Run as ``python -I -S entrance.py``; standard library only. Descriptors 0 to 2 are the command's own, 3 is a
socket to the controller, 4 the pidfd of the sandbox's plugin. The request is one line of JSON::

    {"command": ["python3", "-V"], "environment": {"PATH": …}, "directory": "/plugin", "tty": false,
     "uid": 1900000000 | null, "supplementary": [2000, …], "groups": ["/sys/fs/cgroup/…/tasks", …],
     "filter": "…/seccomp.bpf", "rlimits": [[7, 256, 256], …]}

The answers are ``{"problem": "…", "errno": 1}``, or ``{"entered": true}`` and, in the end, ``{"code": 0}``.
When the socket ends, the command is killed.

Three processes do it, so that none is ever both inside and worth taking over:

- The *porter* is this program. It stays outside, waits for the command, and is its reaper.
- The *guide* joins the cgroup, becomes the sandbox's user, and enters its namespaces, which gives it every
  capability in there. It is in the host's pid namespace still: nothing inside can see it. It starts the
  command's process, and is gone.
- The *command's process* is born inside the pid namespace, with nothing open but its standard streams and two
  pipes to the others. It closes those, gives its capabilities up, takes on the filter, and executes. Until
  then it may not be looked into (``PR_SET_DUMPABLE``), and it can load nothing from the sandbox: modules are
  imported outside only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
from typing import Any, NoReturn

_CONTROL, _PLUGIN = 3, 4
_PATH = "/usr/local/bin:/usr/bin:/bin"
_NOT_EXECUTABLE, _NOT_THERE, _SIGNALLED = 126, 127, 128

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 36, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL, _SECCOMP_MODE_FILTER, _CAPABILITY_VERSION_3 = 4, 2, 0x20080522
_BPF_INSTRUCTION = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def main() -> int:
    """Run the command; return 0, whatever became of it."""
    control = socket.socket(fileno=_CONTROL)
    request = json.loads(_line(control))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with open(request["filter"], "rb") as file:  # noqa: PTH123 - pathlib would double this program
        program = file.read()
    (told, tell), (hear, say) = os.pipe(), os.pipe()
    guide = os.fork()
    if guide == 0:
        os.close(say)
        _guide(request, program, (tell, hear))
    for descriptor in (tell, hear, _PLUGIN):
        os.close(descriptor)
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.waitpid(guide, 0)
    answer = json.loads(os.read(told, 4096) or b'{"problem": "it was killed on the way in", "errno": 0}')
    pid = answer.pop("pid", None)
    control.sendall(json.dumps(answer).encode() + b"\n")
    if pid is not None:
        os.write(say, b"1")  # the guide is gone, so this is the command's parent now
        code = _attend(control, pid)
        with contextlib.suppress(OSError):
            control.sendall(json.dumps({"code": code}).encode() + b"\n")
    return 0


def _line(control: socket.socket) -> bytes:
    held = b""
    while not held.endswith(b"\n"):
        chunk = control.recv(1 << 16)
        if not chunk:
            os._exit(0)
        held += chunk
    return held


def _attend(control: socket.socket, pid: int) -> int:
    """Wait until the command ends; kill it, and those it started and did not part from, when nobody asks."""
    held = os.pidfd_open(pid)
    ready, _, _ = select.select([control.fileno(), held], [], [])
    if held not in ready:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNALLED - code


def _guide(request: dict[str, Any], program: bytes, pipes: tuple[int, int]) -> NoReturn:
    """Enter, start the command's process inside, say which it is, and end."""
    tell, _ = pipes
    try:
        pid = _enter(request, program, pipes)
        answer: dict[str, object] = {"pid": pid, "entered": True}
    except (OSError, ValueError) as error:
        answer = {"problem": str(error), "errno": getattr(error, "errno", 0)}
    os.write(tell, json.dumps(answer).encode())
    os._exit(0)


def _enter(request: dict[str, Any], program: bytes, pipes: tuple[int, int]) -> int:
    for path in request["groups"]:
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - the same
            file.write(b"0")
    uid = request["uid"]
    if uid is not None:
        os.setgroups(request["supplementary"])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # From here on nothing may be imported: what a path means is about to be the sandbox's business.
    sys.meta_path.clear()
    sys.path.clear()
    _prctl(_PR_SET_DUMPABLE, 0)
    if _libc.setns(_PLUGIN, _NAMESPACES) != 0:
        _fail("cannot enter the sandbox's namespaces")
    _prctl(_PR_SET_DUMPABLE, 0)  # again: the kernel sets it anew with the credentials
    low, high = sorted(pipes)
    for first, last in ((3, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(first, last)
    pid = os.fork()
    if pid == 0:
        _join_porter(*pipes)
        _become(request, program)
    return pid


def _join_porter(tell: int, hear: int) -> None:
    """Wait until the porter is this process's parent, and from then on end with it."""
    os.close(tell)
    if not os.read(hear, 1):
        os._exit(_NOT_EXECUTABLE)
    os.close(hear)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _become(request: dict[str, Any], program: bytes) -> NoReturn:
    """Turn into the command, or say on its stderr why not."""
    command = request["command"]
    try:
        os.setsid()
        if request["tty"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.umask(0o022)
        os.chdir(request["directory"])
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for which, soft, hard in request["rlimits"]:
            _limit(which, soft, hard)
        _drop_capabilities()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _filter(program)
        code, words = _execute(command, request["environment"])
    except (OSError, ValueError) as error:
        code, words = _NOT_EXECUTABLE, str(error)
    with contextlib.suppress(OSError):
        os.write(2, f"{command[0]}: {words}\n".encode(errors="surrogateescape"))
    os._exit(code)


def _execute(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Execute the first of that name on the path; return the exit code and why, where there is none."""
    name = command[0]
    path = environment.get("PATH", _PATH)
    places = [name] if "/" in name else [f"{place}/{name}" for place in path.split(":") if place]
    code, words = _NOT_THERE, "not found"
    for place in places:
        try:
            os.execve(place, command, environment)  # noqa: S606 - no shell is the point
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                code, words = _NOT_EXECUTABLE, os.strerror(error.errno or 0)
    return code, words


def _limit(which: int, soft: int, hard: int) -> None:
    """Set a limit, no higher than this process's own: the controller of then may have had higher ones."""
    _, most = resource.getrlimit(which)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(which, (soft, hard))


def _drop_capabilities() -> None:
    """Give up every capability, for good."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    capability = 0
    while _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        _prctl(_PR_CAPBSET_DROP, capability)
        capability += 1
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    none = ctypes.create_string_buffer(24)
    if _libc.capset(header, none) != 0:
        _fail("cannot give up capabilities")


def _filter(program: bytes) -> None:
    """Take on the system call filter."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a length, and a pointer aligned as pointers are.
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // _BPF_INSTRUCTION, ctypes.addressof(instructions))
    )
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _prctl(option: int, first: int, second: int = 0) -> None:
    if _libc.prctl(option, first, second, 0, 0) != 0:
        _fail(f"prctl {option}")


def _fail(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
