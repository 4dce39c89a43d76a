"""The usher: a small program that makes sockets inside the network namespaces of instances.

Run as ``python -I -S usher.py`` with a sequenced-packet socket as descriptor 0; standard library only. A
socket stays in the namespace it was made in, so the controller can connect it to the instance's own loopback
from where it is. The program for each request is a fork of this one: nothing that entered lives on, and
nothing of the sandbox is executed or read.

A request is ``{"uid": 1900000000 | null, "namespaces": 1342177280, "sockets": 2}`` with a pidfd of one of the
instance's processes attached; the answer is ``{}`` with that many sockets attached, or ``{"problem": "…",
"gone": …}``, where the last says that the process has ended.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
from typing import Any, NoReturn

_MAX_PACKET = 4096
_PR_SET_DUMPABLE = 4


def main() -> None:
    """Serve until the controller goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=0)
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    while True:
        try:
            packet, ancillary, _, _ = link.recvmsg(_MAX_PACKET, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return
        if not packet:
            return
        held = array.array("i")
        for _, _, data in ancillary:
            held.frombytes(data)
        try:
            _serve(link, json.loads(packet), held)
        except BrokenPipeError:
            return
        finally:
            for descriptor in held:
                os.close(descriptor)


def _serve(link: socket.socket, request: dict[str, Any], held: array.array[int]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        _refuse(link, f"cannot fork: {error.strerror}")
        return
    if pid == 0:
        _visit(link, request, held[0])
    _, status = os.waitpid(pid, 0)
    if status != 0:
        _refuse(link, "it was killed on the way in")


def _visit(link: socket.socket, request: dict[str, Any], process: int) -> NoReturn:
    """Enter, make the sockets, hand them out, end."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        uid = request["uid"]
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        if libc.setns(process, request["namespaces"]) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))  # noqa: TRY301 - one way out for every problem
        made = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(request["sockets"])]
        rights = array.array("i", [each.fileno() for each in made])
        link.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    except OSError as error:
        with contextlib.suppress(OSError):
            gone = error.errno == errno.ESRCH
            _refuse(link, f"cannot enter its network namespace: {error.strerror}", gone=gone)
    os._exit(0)


def _refuse(link: socket.socket, problem: str, *, gone: bool = False) -> None:
    link.send(json.dumps({"problem": problem, "gone": gone}).encode())


if __name__ == "__main__":
    main()
