"""Starts one sandbox, in the order that no moment's death of the controller can make wrong.

1. The record is on disk (the caller's part), without a process.
2. The cgroup is made and limited; the process is forked, joins it, and becomes bubblewrap, which waits.
3. The record gets the process.
4. Only now the pipe delivers the rest of the arguments. Had the controller died before, bubblewrap would read
   an empty end, find nothing in its root file system to execute, and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import Unavailable, Unsupported
from crucible.model.door import Door
from crucible.model.enforcement import Control
from crucible.runtimes import config as config_files
from crucible.runtimes.process import argv, proc, surroundings
from crucible.runtimes.process.cgroups.base import SANDBOX_PIDS, Refused, joins
from crucible.runtimes.process.outlet import open_outlet
from crucible.runtimes.process.output import PIPE
from crucible.runtimes.process.record import read_status, save
from crucible.runtimes.process.spawn import Launch, Spawned, read_to_end
from crucible.runtimes.process.surroundings import Surroundings
from crucible.runtimes.secrets import Opened
from crucible.runtimes.volumes import groups_of, open_folder

if TYPE_CHECKING:
    from crucible.model.workload import Limits, Slot, Workload
    from crucible.runtimes.doors import Doors
    from crucible.runtimes.passage import Passage
    from crucible.runtimes.process.argv import Program
    from crucible.runtimes.process.cgroups import Cgroups
    from crucible.runtimes.process.record import Record
    from crucible.runtimes.process.spawn import Spawner
    from crucible.runtimes.volumes import Shown

NOTHING: Final = Opened()
SHORTAGES: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    }
)
"""What a host lacks, whoever asks: room on a disk, descriptors, memory, processes."""
_PIPE_DEFAULT: Final = 1 << 16
_INIT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Host:
    """What this host offers to start sandboxes with.

    Attributes:
        bwrap: bubblewrap, opened; executed by descriptor, so its path may be closed to the plugin's uid.
        bwrap_identity: its device and inode.
        filters: the compiled system call filter of each plugin type.
        libraries: folder of the shared libraries that came with it; None: it uses the system's.
        roots: root file system and way to run by plugin type.
        cgroups: how limits are set; None where they cannot be.
        boot: id of this boot.
    """

    bwrap: int
    bwrap_identity: tuple[int, int]
    libraries: Path | None
    filters: dict[str, Path]
    roots: dict[str, tuple[Path, Program]]
    cgroups: Cgroups | None
    boot: str

    def holds(self, control: Control) -> bool:
        """Tell whether cgroups enforce a control here."""
        return self.cgroups is not None and control in self.cgroups.controls


class CannotStart(Exception):
    """This instance cannot run: the reason, in words."""


def cause_of(error: BaseException) -> CannotStart | Unavailable:
    """Say whether one instance cannot run, or the host can start none now: no plugin is blamed for that."""
    reason = error if isinstance(error, OSError) else error.__cause__
    if isinstance(reason, OSError) and reason.errno in SHORTAGES:
        return Unavailable(f"this host cannot start anything now: {error}")
    return CannotStart(str(error))


@dataclass(frozen=True, slots=True)
class Prospect:
    """An instance about to start.

    Attributes:
        record: what is written down about it.
        directory: where; the output's pipe is in it.
        source: the plugin's files.
        doors: its doors, shut.
        opened: what it gets of its Secrets.
        shown: the volumes that it sees.
        passage: makes sockets in there; needed for an egress door.
    """

    record: Record
    directory: Path
    source: Path
    doors: Doors
    opened: Opened = NOTHING
    shown: tuple[Shown, ...] = ()
    passage: Passage | None = None


@dataclass(frozen=True, slots=True)
class _Ends:
    """The descriptors of one start: those the sandbox gets, and the controller's end of its two pipes.

    Those of Secrets and volumes come with the number that the sandbox knows them by.
    """

    given: tuple[int, ...]
    confirm: int
    release: int | None
    further: tuple[tuple[int, int], ...] = ()


async def launch(host: Host, spawner: Spawner, workload: Workload, instance: Prospect) -> tuple[Record, int]:
    """Start a sandbox and return its record with the process, and the pidfd of its monitor.

    Raises:
        CannotStart: nothing runs, and why.
        Unavailable: the spawner died; nothing runs.
    """
    record, directory = instance.record, instance.directory
    if workload.type not in host.roots:
        raise CannotStart(f"plugins of type {workload.type} cannot run on this host")
    root, program = host.roots[workload.type]
    config = str(config_files.folder_of(directory)) if workload.live_config else ""
    places = argv.Places(str(root), str(instance.source), instance.doors.path, config)
    shown = places if record.uid is None else argv.SHOWN
    # Without a cgroup and a uid of its own, the number of processes is held by a limit that must be set once
    # the sandbox's own user namespace is there: outside it would count everything the user runs.
    counted = record.uid is None and not host.holds(Control.PIDS)
    # And the way to the egress proxy has to be there before its first instruction.
    held = counted or Door.EGRESS in record.doors
    with ExitStack() as stack:
        try:
            confirmation = argv.encode(
                (
                    *argv.confirmation(workload, program, record.name, shown, instance.opened),
                    *argv.volume_words(instance.shown, own_uid=record.uid is not None),
                )
            )
            if host.cgroups is not None:
                host.cgroups.make(group_name(record.plugin_uid, record.slot), workload.limits)
            instance.doors.open()
            ends = _open(stack, host, workload, instance, held=held, counted=counted)
            if len(confirmation) > _PIPE_DEFAULT:
                fcntl.fcntl(ends.confirm, fcntl.F_SETPIPE_SZ, len(confirmation))
        except (OSError, ValueError, Refused) as error:
            raise cause_of(error) from error
        spawned, told = await spawner.launch(
            Launch(
                argv=argv.command_line(workload, program, record.mark, held=held),
                program=host.bwrap,
                descriptors=ends.given,
                uid=record.uid,
                groups=joins(tuple(Path(path) for path in record.cgroups)),
                rlimits=rlimits(host, workload.limits, own_uid=record.uid is not None),
                views=() if shown == places else _views(host, places),
                env=_environment(host, own_uid=shown != places),
                further=ends.further,
                volumes=() if shown == places else _volumes(instance),
                supplementary=groups_of(instance.shown),
            )
        )
        if not isinstance(spawned, Spawned):
            os.close(told)
            raise CannotStart(spawned)
        record = replace(record, monitor=proc.Identity(spawned.pid, spawned.started, host.boot))
        try:
            save(record, directory)
        except OSError as error:
            os.close(told)
            os.close(spawned.pidfd)
            raise cause_of(error) from error
        os.write(ends.confirm, confirmation)
    problem = await read_to_end(told)
    if problem:
        os.close(spawned.pidfd)
        raise CannotStart(problem)
    if ends.release is not None:
        most = workload.limits.pids + 1 if counted else None
        try:
            record = await _hold_first(spawned.pidfd, replace(instance, record=record), most, ends.release)
        except BaseException:
            os.close(spawned.pidfd)
            raise
    return record, spawned.pidfd


def _views(host: Host, places: argv.Places) -> tuple[tuple[str, str], ...]:
    """Return what a sandbox of another user is shown: it cannot walk to where these are."""
    return (
        (places.root, argv.SHOWN.root),
        (places.source, argv.SHOWN.source),
        *(((places.doors, argv.SHOWN.doors),) if places.doors else ()),
        *(((places.config, argv.SHOWN.config),) if places.config else ()),
        *(((str(host.libraries), argv.LIBRARIES),) if host.libraries is not None else ()),
    )


def _volumes(instance: Prospect) -> tuple[tuple[str, str, bool], ...]:
    return tuple(
        (str(each.path), argv.volume_place(index), each.writable) for index, each in enumerate(instance.shown)
    )


def _environment(host: Host, *, own_uid: bool) -> dict[str, str]:
    """Return bubblewrap's own environment; the plugin gets none of it."""
    if host.libraries is None:
        return {}
    return {"LD_LIBRARY_PATH": argv.LIBRARIES if own_uid else str(host.libraries)}


def group_name(plugin_uid: str, slot: Slot) -> str:
    """Return the name of an instance's cgroup."""
    return f"{plugin_uid}_{slot}"


def rlimits(host: Host, limits: Limits, *, own_uid: bool) -> tuple[tuple[int, int, int], ...]:
    """Return the limits each of the instance's processes starts with: resource, soft, hard."""
    wanted = {
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 1,  # not 0: a crash handler that the host set up is called all the same with 0
        resource.RLIMIT_MEMLOCK: 64 * 1024,
        resource.RLIMIT_MSGQUEUE: 64 * 1024,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
    }
    if own_uid and not host.holds(Control.PIDS):
        wanted[resource.RLIMIT_NPROC] = limits.pids + SANDBOX_PIDS
    if not host.holds(Control.MEMORY):
        wanted[resource.RLIMIT_DATA] = limits.memory
    return tuple((which, *_within(which, most)) for which, most in wanted.items())


def _surroundings(host: Host, workload: Workload, instance: Prospect, *, counted: bool) -> Surroundings:
    """Return what a command that is run beside the plugin later begins with."""
    record = instance.record
    _, program = host.roots[workload.type]
    limits = rlimits(host, workload.limits, own_uid=record.uid is not None)
    if counted:
        most = workload.limits.pids + 1
        limits = (*limits, (resource.RLIMIT_NPROC, most, most))
    # Bubblewrap says in PWD where it has gone.
    environment = (*argv.environment(workload, program, record.name), ("PWD", argv.SOURCE))
    return Surroundings(environment, limits, workload.secret_env, groups_of(instance.shown))


def _within(which: int, most: int) -> tuple[int, int]:
    """Cap a limit at the controller's own, which only a privileged process may raise."""
    _, hard = resource.getrlimit(which)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    return value, value


def _open(  # noqa: PLR0913 - what a sandbox is made of, and two switches
    stack: ExitStack, host: Host, workload: Workload, instance: Prospect, *, held: bool, counted: bool
) -> _Ends:
    """Open everything the sandbox gets, in the order of the numbers it knows them by."""

    def keep(descriptor: int) -> int:
        stack.callback(os.close, descriptor)
        return descriptor

    directory = instance.directory
    surroundings.save(_surroundings(host, workload, instance, counted=counted), directory)
    output = keep(os.open(directory / PIPE, os.O_RDWR | os.O_CLOEXEC))
    arguments, confirm = (keep(end) for end in os.pipe2(os.O_CLOEXEC))
    given = [
        *(keep(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)), output, output, arguments),
        keep(
            os.open(directory / "status.json", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        ),
        keep(os.open(host.filters[workload.type], os.O_RDONLY | os.O_CLOEXEC)),
    ]
    further = tuple(
        (keep(_in_memory(content)), number)
        for number, content in enumerate(instance.opened.files.values(), argv.SECRETS_FD)
    )
    if workload.live_config:
        config_files.place(directory, workload.config)
    else:
        (directory / "config.json").write_text(workload.config)
        further += ((keep(os.open(directory / "config.json", os.O_RDONLY | os.O_CLOEXEC)), argv.CONFIG_FD),)
    if instance.record.uid is None:
        further += tuple(
            (keep(open_folder(each.path)), number)
            for number, each in enumerate(instance.shown, argv.VOLUMES_FD)
        )
    if not held:
        return _Ends(tuple(given), confirm, None, further)
    block, release = os.pipe2(os.O_CLOEXEC)
    return _Ends(tuple(given), confirm, release, (*further, (keep(block), argv.BLOCK_FD)))


def _in_memory(content: bytes) -> int:
    """Return a file that holds some bytes and lies nowhere on disk."""
    opened = os.memfd_create("secret", os.MFD_CLOEXEC)
    with open(opened, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(opened, 0, os.SEEK_SET)
    return opened


async def _hold_first(pidfd: int, instance: Prospect, most: int | None, release: int) -> Record:
    """Take hold of a sandbox before its plugin runs: know its first process, limit how many there may be.

    Without a cgroup that process is all there is to kill the sandbox by, and later the plugin could have made
    it look like another.

    Raises:
        CannotStart: the way to the egress proxy cannot be made.
        Unavailable: not now.
    """
    record, directory = instance.record, instance.directory
    deadline = asyncio.get_running_loop().time() + _INIT_SECONDS
    try:
        while (init := read_status(directory).init) is None:
            if proc.ended(pidfd) or asyncio.get_running_loop().time() > deadline:
                return record
            await asyncio.sleep(0.001)
        began = proc.started(init)
        if began is not None:
            record = replace(record, init=proc.Identity(init, began, record.monitor_boot))
            save(record, directory)
        with contextlib.suppress(ProcessLookupError):
            if most is not None:
                resource.prlimit(init, resource.RLIMIT_NPROC, (most, most))
        if instance.passage is not None:
            await open_outlet(instance.passage, record, instance.doors, lambda: proc.hold(init))
        with contextlib.suppress(BrokenPipeError):
            os.write(release, b"1")
    except (OSError, Unsupported) as error:
        raise CannotStart(f"its way to the egress proxy cannot be made: {error}") from error
    finally:
        os.close(release)
    return record
