"""One owner per state folder, held by a lock on a pid file."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from typing import TYPE_CHECKING

from crucible.errors import Conflict, InvalidInput

from .tls import write_private

if TYPE_CHECKING:
    from pathlib import Path


class StateLock:
    """The lock of one state folder, held until ``release``.

    Raises:
        Conflict: Another process holds it; the message names its pid.
        InvalidInput: the folder, or the one it lies in, is another user's.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            owner = each.stat().st_uid
            if owner not in {os.geteuid(), 0}:
                raise InvalidInput(f"{each} belongs to user {owner}: run this as that user, or name another")
        folder.chmod(0o700)
        self._path = folder / "lock"
        how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, how, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Conflict(f"{folder} is in use by process {pid}; stop it first") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the folder up. The file stays: removing it would let two owners lock two files."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def remembered_token(folder: Path) -> str:
    """The folder's bearer token, made on first use."""
    path = folder / "token"
    if path.exists():
        return path.read_text().strip()
    token = secrets.token_urlsafe(32)
    write_private(path, token.encode())
    return token


def remembered_port(folder: Path, host: str) -> int:
    """The folder's port: the one used before if it is free, else a free one, which is remembered."""
    path = folder / "port"
    before = path.read_text().strip() if path.exists() else ""
    wanted = int(before) if before.isdigit() else 0
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
        if found != wanted:
            write_private(path, str(found).encode())
        return found
    raise Conflict(f"no free port on {host}")
