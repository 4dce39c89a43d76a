"""The spawner: a small program of its own that forks sandboxes for the controller.

Run as ``python -I -S spawner.py`` with a sequenced-packet socket as descriptor 0; standard library only.
Forking the controller itself would copy a large, threaded process; forking this one costs a millisecond.
It keeps nothing: when the controller goes, the socket ends, and so does this program. Sandboxes live on.

Each request is one JSON packet with file descriptors attached, and gets one answer in the same order::

    {"argv": […], "targets": [0, 1, 2, 3, …], "exec": 9, "problem": 10,
     "uid": 1900000000 | null, "groups": ["/sys/fs/cgroup/…/cgroup.procs", …],
     "rlimits": [[7, 256, 256], …], "views": [["/root/…/python-0c2b6c", "/tmp/root"], …],
     "volumes": [["/srv/notes", "/tmp/volume-0", false], …], "supplementary": [2000, …],
     "env": {"LD_LIBRARY_PATH": "/tmp/libraries"}}

``targets`` gives the number each attached descriptor has in the new program, ``exec`` the index of the
program itself, ``problem`` the index of a pipe into which the child writes why it could not become that one.
``views`` are directories to show, to this child alone, at another path: below the private directories of the
controller, another user could not walk to them, and bubblewrap walks the path even of an open directory.
``volumes`` are shown in the same way, without devices and programs, and read-only unless the last word says
that they may be written to. ``supplementary`` are the groups beside the child's own. The answer is
``{"pid": …, "started": …}`` with the child's pidfd attached, ``{"problem": "…"}``, or
``{"unavailable": "…"}`` where this host can start nothing now.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
from typing import Any, NoReturn

# Descriptors are first moved above every target, so that putting one in place never closes another.
_CLEAR_OF_TARGETS = 512
_MAX_PACKET = 1 << 18
_MAX_DESCRIPTORS = 253  # as many as the kernel hands over at once

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000


def main() -> None:
    """Serve until the controller goes."""
    link = socket.socket(fileno=os.dup(0))
    link.set_inheritable(False)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([link.fileno(), woken], [], [])
        if link.fileno() in ready and not _serve(link):
            return
        if woken in ready:
            os.read(woken, 4096)
        _reap()


def _serve(link: socket.socket) -> bool:
    room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        packet, ancillary, _, _ = link.recvmsg(_MAX_PACKET, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return False
    if not packet:
        return False
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    try:
        _answer(link, json.loads(packet), list(descriptors))
    except BrokenPipeError:
        return False
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return True


def _answer(link: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        link.send(json.dumps({"unavailable": f"cannot fork: {error.strerror}"}).encode())
        return
    if pid == 0:
        _become(request, descriptors)
    # Children are reaped below, never here, so this pid still is the child, even if that has ended.
    pidfd = os.pidfd_open(pid)
    answer = json.dumps({"pid": pid, "started": _started(pid)}).encode()
    try:
        link.sendmsg([answer], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))])
    finally:
        os.close(pidfd)


def _started(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double this program
        return int(file.read().rpartition(b")")[2].split()[19])


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Turn this child into the program asked for, or say why not, and end."""
    problem = descriptors[request["problem"]]
    try:
        _prepare(request)
        problem = _arrange(request, descriptors)
    except (OSError, ValueError) as error:
        os.write(problem, f"cannot prepare the sandbox's process: {error}".encode())
    os._exit(127)


def _prepare(request: dict[str, Any]) -> None:
    if request["views"]:
        _show(request["views"], request["volumes"])
    os.setsid()
    os.umask(0o022)
    os.chdir("/")
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    for path in request["groups"]:
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - the same
            file.write(b"0")
    uid = request["uid"]
    if uid is not None:
        os.setgroups(request["supplementary"])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _show(views: list[list[str]], volumes: list[tuple[str, str, bool]]) -> None:
    """Show directories under ``/tmp`` in a mount namespace of this child's own, unseen by the host."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(done: int, what: str) -> None:
        if done != 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    call(libc.unshare(_CLONE_NEWNS), "cannot make a mount namespace")
    call(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "cannot part the mount namespace")
    # Opened here, in the new namespace and before /tmp is covered: they may lie below it.
    opened = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path, _ in views]
    opened += [_open_plainly(path) for path, _, _ in volumes]
    call(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=0755"), "cannot cover /tmp")
    places = [*(place for _, place in views), *(place for _, place, _ in volumes)]
    for directory, place in zip(opened, places, strict=True):
        os.mkdir(place)  # noqa: PTH102 - as above
        source = f"/proc/self/fd/{directory}".encode()
        call(libc.mount(source, place.encode(), None, _MS_BIND, None), f"cannot show {place}")
        os.close(directory)
    for _, place, writable in volumes:
        flags = _MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | (0 if writable else _MS_RDONLY)
        call(libc.mount(None, place.encode(), None, flags, None), f"cannot hold {place}")


def _open_plainly(path: str) -> int:
    """Open a directory by a path of which no part is a link: whoever may write near it cannot lead away."""
    opened = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in path.split("/")[1:]:
        above = opened
        opened = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        os.close(above)
    return opened


def _arrange(request: dict[str, Any], descriptors: list[int]) -> int:
    """Put the descriptors in their places and execute; return where to say what went wrong."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _CLEAR_OF_TARGETS) for fd in descriptors]
    for source, target in zip(moved, request["targets"], strict=False):
        os.dup2(source, target)
    problem: int = moved[request["problem"]]
    # Last: the limit on open files may lie below the numbers used here.
    for which, soft, hard in request["rlimits"]:
        resource.setrlimit(which, (soft, hard))
    try:
        os.execve(moved[request["exec"]], request["argv"], request["env"])  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(problem, f"cannot execute bubblewrap: {error.strerror}".encode())
    return problem


if __name__ == "__main__":
    main()
