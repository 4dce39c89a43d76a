"""What is written down about an instance, so that any later controller knows it again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from crucible.model.door import Door
from crucible.model.instance import Exit
from crucible.model.workload import Slot
from crucible.runtimes import config, doors
from crucible.runtimes.process.proc import Identity

if TYPE_CHECKING:
    from pathlib import Path

_VERSION = 1
_MAX_BYTES = 1 << 16
_MAX_PID = 1 << 22
_MAX_CODE = 255


@dataclass(frozen=True, slots=True)
class Record:
    """One instance.

    Attributes:
        control_plane: whose it is.
        namespace: of the Plugin.
        plugin: the Plugin's name.
        plugin_uid: the Plugin.
        slot: which instance of it.
        revision: of the workload.
        uid: user id of its own on this host; None when it shares the controller's.
        cgroups: directories made for it.
        bwrap: device and inode of the sandbox program.
        root: name of the root file system it runs on.
        created_at: unix seconds.
        monitor: the bubblewrap process outside the sandbox; None before it was started.
        stopping_at: when it was asked to end, unix seconds.
        asked: it was sent the signal that asks it to end.
        killed: it was ended by force, on request.
        exit: how it ended, once that is known.
        source: digest of the snapshot it runs from.
        init: the sandbox's first process, where it was seen before the plugin could touch it.
        doors: the doors it has.
        config: digest of the configuration it was given last.
        frozen: it is held still.
    """

    control_plane: str
    namespace: str
    plugin: str
    plugin_uid: str
    slot: Slot
    revision: str
    uid: int | None
    cgroups: tuple[str, ...]
    bwrap: tuple[int, int]
    root: str
    created_at: float
    monitor: Identity | None = None
    stopping_at: float | None = None
    asked: bool = False
    killed: bool = False
    exit: Exit | None = None
    source: str = ""
    init: Identity | None = None
    doors: tuple[Door, ...] = ()
    config: str = ""
    frozen: bool = False

    @property
    def monitor_boot(self) -> str:
        """Id of the boot its monitor was started in; empty before that."""
        return self.monitor.boot if self.monitor is not None else ""

    @property
    def type(self) -> str:
        """The plugin's type: root file systems are named for it."""
        return self.root.rpartition("-")[0]

    @property
    def name(self) -> str:
        """``plugin-ordinal-attempt``: for people and logs."""
        return f"{self.plugin}-{self.slot}"

    @property
    def mark(self) -> str:
        """First argument of the sandbox's processes: shows whose they are, and tells them from all others."""
        return mark(self.control_plane, self.plugin_uid, self.slot)


def mark(control_plane: str, plugin_uid: str, slot: Slot) -> str:
    """Return the first argument of the processes of one instance."""
    return f"crucible:{control_plane}/{plugin_uid}/{slot}"


def encode(record: Record) -> bytes:
    """Return a record as JSON."""
    return json.dumps({"version": _VERSION, **asdict(record)}, separators=(",", ":")).encode()


def decode(data: bytes) -> Record:
    """Read a record.

    Raises:
        ValueError: it is not one.
    """
    try:
        found = json.loads(data)
        if found.pop("version") != _VERSION:
            raise ValueError("written by another release")
        return _decode(found)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a record: {error!r}") from error


def _decode(found: dict[str, Any]) -> Record:
    device, inode = found.pop("bwrap")
    monitor, ending, init = found.pop("monitor"), found.pop("exit"), found.pop("init", None)
    return Record(
        slot=Slot(**found.pop("slot")),
        cgroups=tuple(found.pop("cgroups")),
        doors=tuple(Door(door) for door in found.pop("doors", ())),
        bwrap=(device, inode),
        monitor=Identity(**monitor) if monitor else None,
        exit=Exit(**ending) if ending else None,
        init=Identity(**init) if init else None,
        **found,
    )


def save(record: Record, directory: Path) -> None:
    """Write a record so that whoever reads finds the old one or the new one, whole."""
    fresh = directory / "record.json.new"
    fresh.write_bytes(encode(record))
    fresh.replace(directory / "record.json")


def load(directory: Path) -> Record | None:
    """Read the record in a directory; None when there is none.

    Raises:
        ValueError: it cannot be understood.
    """
    try:
        with (directory / "record.json").open("rb") as file:
            return decode(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Status:
    """What bubblewrap reported: the pid of the sandbox's first process, and the program's exit status."""

    init: int | None = None
    code: int | None = None


def read_status(directory: Path) -> Status:
    """Read bubblewrap's reports so far: one JSON document a line. What is not one is passed over."""
    status = Status()
    for line in _plain_file(directory / "status.json").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            status = _heed(status, json.loads(line))
    return status


def _plain_file(path: Path) -> bytes:
    """Return the beginning of a plain file; nothing where there is none, or something else in its place.

    A sandbox's first process, which a plugin can take over, may hold this file open: anything can be in it,
    and nothing of it may lead the controller elsewhere or make it wait.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return b""
        raise
    try:
        return os.read(opened, _MAX_BYTES) if stat.S_ISREG(os.fstat(opened).st_mode) else b""
    finally:
        os.close(opened)


def _heed(status: Status, report: object) -> Status:
    match report:
        case {"child-pid": int(pid)} if 0 < pid <= _MAX_PID and not isinstance(pid, bool):
            return replace(status, init=pid)
        case {"exit-code": int(code)} if 0 <= code <= _MAX_CODE and not isinstance(code, bool):
            return replace(status, code=code)
        case _:
            return status


def slot_of(name: str) -> Slot | None:
    """Read ``ordinal-attempt``, the name of an instance's directory; None when it is none."""
    ordinal, dash, attempt = name.partition("-")
    if not (dash and ordinal.isdecimal() and attempt.isdecimal() and name.isascii()):
        return None
    return Slot(ordinal=int(ordinal), attempt=int(attempt))


def discard(directory: Path) -> None:
    """Delete an instance's directory, and its plugin's when it was the last: plain files, and its doors."""
    with contextlib.suppress(FileNotFoundError):
        doors.discard(directory)
        config.discard(directory)
        for entry in tuple(directory.iterdir()):
            # The record goes last: a directory half deleted is still known for what it is.
            if entry.name != "record.json":
                entry.unlink(missing_ok=True)
        (directory / "record.json").unlink(missing_ok=True)
        directory.rmdir()
    with contextlib.suppress(OSError):
        directory.parent.rmdir()
