"""Finds the companion that runs, or starts one; ends one. What is known of it is what the kernel says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import select
import signal
import socket
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crucible.errors import Unavailable

_SOCKET: Final = "control.sock"
_LOG: Final = "log"
_DATA: Final = "data"
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_TOLD_BYTES: Final = 2000
_UID_BASE: Final = 1_890_000_000
_UID_COUNT: Final = 9_000_000
"""Companions' user ids end where those of plugins begin."""


@dataclass(frozen=True, slots=True)
class Program:
    """A companion program.

    Attributes:
        name: what it is called.
        command: the words that run it, in front of its own arguments.
        folder: private directory for its socket and its log.
        control_plane: whose it is.
        alone: seconds for which it stays without a controller and without a door.
        keeps: it has a folder for data that must last.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    control_plane: str
    alone: float = 30.0
    keeps: bool = False

    @property
    def mark(self) -> str:
        """The first argument of its process, which tells it from all others."""
        return f"crucible-companion:{self.control_plane}/{self.name}"

    @property
    def log(self) -> Path:
        """What it said last."""
        return self.folder / _LOG

    @property
    def uid(self) -> int | None:
        """The user it becomes: one of its own where the controller is root, else the controller's."""
        if os.geteuid() != 0:
            return None
        digest = hashlib.sha256(self.mark.encode()).digest()
        return _UID_BASE + int.from_bytes(digest[:8], "big") % _UID_COUNT


@dataclass(frozen=True, slots=True)
class Found:
    """A companion that was reached.

    Attributes:
        one: the connection to it.
        pidfd: its process; None where the kernel cannot say which that is. The receiver closes both.
    """

    one: socket.socket
    pidfd: int | None


def reach(program: Program) -> Found | None:
    """Connect to the companion that runs; None where none does."""
    try:
        folder = _open_folder(program)
    except FileNotFoundError:
        return None
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        one.connect(f"/proc/self/fd/{folder}/{_SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        one.close()
        return None
    finally:
        os.close(folder)
    return Found(one, _process_of(one, program))


async def start(program: Program) -> Found:
    """Start the companion; none may run.

    Raises:
        Unavailable: it does not start, and why.
    """
    program.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = _open_folder(program)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_SOCKET, dir_fd=folder)
            one.bind(f"/proc/self/fd/{folder}/{_SOCKET}")
            running = asyncio.ensure_future(asyncio.to_thread(_run, program, one.fileno(), folder))
            try:
                code = await asyncio.shield(running)
            except asyncio.CancelledError:
                await running  # it uses the descriptors, and half a start would be nobody's
                raise
    finally:
        os.close(folder)
    found = reach(program) if code == 0 else None
    if found is None:
        raise Unavailable(f"the companion {program.name} does not start: {_last_words(program)}")
    return found


async def kill(pidfd: int) -> None:
    """End a companion's process by force; returns once it is gone.

    Raises:
        Unavailable: it does not end.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    if not await gone(pidfd, _END_SECONDS):
        raise Unavailable("a companion's process does not end: it is stuck in the kernel")


async def gone(pidfd: int, seconds: float) -> bool:
    """Wait until a process has ended; False when it has not within this time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = asyncio.get_running_loop().time() + seconds
    while not poll.poll(0):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def _open_folder(program: Program) -> int:
    return os.open(program.folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _run(program: Program, listener: int, folder: int) -> int:
    """Run the program until it has left us, ready to be connected to."""
    log = os.open(
        program.folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    uid = program.uid
    data = _open_data(program, folder)
    try:
        done = subprocess.run(
            [
                *(*program.command, program.mark, "--alone", str(program.alone)),
                *("--socket", str(listener), "--folder", str(folder)),
                *(("--data", str(data)) if data is not None else ()),
                *(("--uid", str(uid)) if uid is not None else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            cwd="/",
            pass_fds=(listener, folder, *(() if data is None else (data,))),
            timeout=_START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1
    finally:
        os.close(log)
        if data is not None:
            os.close(data)
    return done.returncode


def _open_data(program: Program, folder: int) -> int | None:
    """Open, and make where it is not there, the folder for what must last; the companion's user owns it.

    So are its files, where the folder was brought here by somebody else: out of a backup, or from elsewhere.
    """
    if not program.keeps:
        return None
    with contextlib.suppress(FileExistsError):
        os.mkdir(_DATA, 0o700, dir_fd=folder)
    data = os.open(_DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    uid = program.uid
    if uid is not None and os.fstat(data).st_uid != uid:
        for name in os.listdir(data):  # noqa: PTH208 - there is a descriptor, not a path
            about = os.stat(name, dir_fd=data, follow_symlinks=False)
            if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
                os.chown(name, uid, uid, dir_fd=data, follow_symlinks=False)
        os.fchown(data, uid, uid)
    return data


def _process_of(one: socket.socket, program: Program) -> int | None:
    """Hold the process that listens; None where that is not a companion of this name."""
    pid, _, _ = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        held = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    if program.mark.encode() not in words:
        os.close(held)
        return None
    return held


def _last_words(program: Program) -> str:
    try:
        text = (program.folder / _LOG).read_text(errors="replace")
    except OSError as error:
        return str(error)
    return text[-_TOLD_BYTES:].strip().rpartition("\n")[2] or "it said nothing"
