"""The process runtime: each instance is a bubblewrap sandbox on this host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from signal import SIGHUP
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from crucible.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported
from crucible.model.instance import Exit
from crucible.model.workload import config_digest
from crucible.runtimes.config import place
from crucible.runtimes.gauge import Gauge
from crucible.runtimes.passage import NEW_NET, NEW_USER, House, Passage
from crucible.runtimes.process import adopt, lock, strays
from crucible.runtimes.process import command as commands
from crucible.runtimes.process import record as records
from crucible.runtimes.process.cgroups import base as groups
from crucible.runtimes.process.launch import SHORTAGES, CannotStart, Prospect, cause_of, group_name, launch
from crucible.runtimes.process.live import Live, Lives
from crucible.runtimes.process.logs import Reader
from crucible.runtimes.process.outlet import open_outlet
from crucible.runtimes.process.output import make_pipe
from crucible.runtimes.process.record import Record
from crucible.runtimes.process.sandbox import prepare
from crucible.runtimes.process.settings import first_uid
from crucible.runtimes.process.spawn import Spawner
from crucible.runtimes.process.watch import Watch
from crucible.runtimes.secrets import no_secrets, open_secrets
from crucible.runtimes.volumes import find_volumes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from socket import socket

    from crucible.model.door import Doorway
    from crucible.model.enforcement import Capabilities, Finding
    from crucible.model.instance import Instance
    from crucible.model.usage import Usage
    from crucible.model.workload import Slot, Workload
    from crucible.runtimes.base import Connected, ExecSession, LogLine
    from crucible.runtimes.process.launch import Host
    from crucible.runtimes.process.sandbox import Prepared
    from crucible.runtimes.process.session import Session
    from crucible.runtimes.process.settings import ProcessSettings
    from crucible.runtimes.secrets import Opened, SecretsOf

_log = logging.getLogger(__name__)
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_REMOVE_SECONDS: Final = 10.0
_BUSY_SECONDS: Final = 0.002


@contextlib.asynccontextmanager
async def _within_means() -> AsyncIterator[None]:
    """Take what this host has no descriptors, memory or room for now for an outage: it is tried again.

    Raises:
        Unavailable: that is so.
    """
    try:
        yield
    except OSError as error:
        if error.errno in SHORTAGES:
            raise Unavailable(f"this host cannot do that now: {error}") from error
        raise


class ProcessRuntime:
    """Runs plugins as sandboxed processes; keeps the contract of :class:`crucible.runtimes.base.Runtime`."""

    def __init__(
        self,
        settings: ProcessSettings,
        source_of: Callable[[str], Path],
        secrets_of: SecretsOf = no_secrets,
    ) -> None:
        """Prepare without touching the host.

        Args:
            settings: where and how.
            source_of: returns the directory that holds a source snapshot, by digest. Everything in it is
                readable for others; the directories above need not be.
            secrets_of: returns what is in a Secret, by namespace and name.
        """
        if not _SAFE_NAME.fullmatch(settings.control_plane):
            raise InvalidInput(f"{settings.control_plane!r} is no id for a control plane")
        self._settings = settings
        self._source_of = source_of
        self._secrets_of = secrets_of
        self._instances = settings.state_dir / "instances"
        self._lives = Lives()
        self._starting: dict[tuple[str, Slot], asyncio.Task[Instance]] = {}
        self._watch = Watch(settings.logs)
        self._spawner = Spawner()
        self._passage = Passage()
        self._sessions: WeakSet[Session] = WeakSet()
        self._prepared: Prepared | None = None
        self._lock: int | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What this host offers, as a probe found it."""
        return self._open_state().capabilities

    @property
    def outage(self) -> str:
        """Never: it is this process."""
        return ""

    async def open(self, changed: Callable[[str], None]) -> None:
        """Adopt what runs, probe the host, begin to watch."""
        self._watch.tell(changed)
        self._settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._instances.mkdir(mode=0o700, exist_ok=True)
        self._lock = lock.take(self._settings.state_dir)
        try:
            strays.remove_probes(self._settings.state_dir)
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop watching. Instances go on running."""
        # A start that was begun is finished: half of one would be found and undone, but why make it so.
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        await asyncio.gather(*(session.close() for session in tuple(self._sessions)))
        await self._watch.close()
        for live in self._lives:
            self._watch.let_go(live)
        self._lives.clear()
        self._spawner.close()
        self._passage.close()
        if self._prepared is not None:
            os.close(self._prepared.host.bwrap)
            self._prepared = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def route(self, plugin_uid: str, slots: Sequence[Slot]) -> None:
        """Nobody connects to a sandbox from outside: no plugin that listens is admitted here."""

    async def sweep(self) -> tuple[str, ...]:
        """Adopt what could not be adopted before, and end what bears our mark without being on record."""
        cgroups = self._open_state().host.cgroups
        for found in adopt.survey(self._instances, self._settings.control_plane, self._knows):
            await self._try_to_adopt(found)
            self._watch.changed(found.plugin_uid)
        strays.remove_empty(self._instances)
        ended = await strays.end_processes(
            self._settings, lambda: frozenset(live.record.mark for live in self._lives)
        )
        if cgroups is None:
            return ended
        kept = frozenset(group for live in self._lives for group in live.cgroups)
        return (*ended, *await strays.remove_groups(cgroups, kept))

    async def diagnose(self) -> list[Finding]:
        """Return what this host offers and lacks, each with the fix, for people."""
        return list(self._open_state().findings)

    def instances(self, plugin_uid: str | None = None) -> tuple[Instance, ...]:
        """Return the instances of one plugin, or all, oldest first."""
        lives = self._lives if plugin_uid is None else self._lives.of(plugin_uid)
        found = (live.instance() for live in lives)
        return tuple(sorted(found, key=lambda instance: instance.created_at))

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        """Start one instance, or return the one with this slot. Cancelling the caller does not undo it."""
        key = (workload.plugin_uid, slot)
        live = self._lives.get(*key)
        if key not in self._starting and live is not None:
            return live.instance()
        task = self._starting.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._start(workload, slot))
            self._starting[key] = task
            task.add_done_callback(lambda _: self._starting.pop(key, None))
        return await asyncio.shield(task)

    @_within_means()
    async def stop(self, plugin_uid: str, slot: Slot) -> None:
        """Send SIGTERM to the plugin's main process and note the time."""
        live = await self._settled(plugin_uid, slot)
        if live is None or live.ended.is_set() or live.record.stopping_at is not None:
            return
        # First the signal, then the note: a controller that dies in between asks again, not never.
        self._watch.terminate(live)
        live.thaw()
        live.note(stopping_at=time.time())

    @_within_means()
    async def kill(self, plugin_uid: str, slot: Slot) -> None:
        """Kill the instance's whole tree and wait until it is gone."""
        live = await self._settled(plugin_uid, slot)
        if live is not None:
            await _kill(live)

    @_within_means()
    async def remove(self, plugin_uid: str, slot: Slot) -> None:
        """Forget an instance and delete its cgroup and its directory; kill it first if it is alive."""
        live = await self._settled(plugin_uid, slot)
        if live is not None:
            await _kill(live)
            await self._forget(live)

    @_within_means()
    async def deliver(self, plugin_uid: str, slot: Slot, config: str, *, signal: bool) -> None:
        """Put a new configuration in the place of the old one, say so if asked to, note that it is done."""
        live = await self._settled(plugin_uid, slot)
        if live is None or live.ended.is_set():
            return
        try:
            place(live.directory, config)
        except OSError as error:
            raise Unavailable(f"{live.record.name} cannot be given its configuration now: {error}") from error
        if signal:
            live.tell(SIGHUP)
        live.note(config=config_digest(config))

    @_within_means()
    async def freeze(self, plugin_uid: str, slot: Slot) -> None:
        """Hold an instance still with its cgroup."""
        live = await self._settled(plugin_uid, slot)
        if live is not None and not live.ended.is_set():
            await live.freeze()

    @_within_means()
    async def thaw(self, plugin_uid: str, slot: Slot) -> None:
        """Let an instance go on."""
        live = await self._settled(plugin_uid, slot)
        if live is not None and not live.ended.is_set():
            live.thaw()

    async def logs(
        self, plugin_uid: str, slot: Slot, *, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Yield an instance's output, line by line."""
        live = self._lives.get(plugin_uid, slot)
        if live is None:
            raise NotFound(f"no instance {slot} of plugin {plugin_uid}")
        reader = Reader(live.directory)
        for line in reader.lines() if tail is None else reader.last(tail):
            yield line
        while follow and live.output is not None and not live.output.ended:
            await live.output.more()
            if live.directory.is_dir():
                for line in reader.lines():
                    yield line

    async def exec(
        self, plugin_uid: str, slot: Slot, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Run a command in an instance's sandbox, with nothing its plugin has not."""
        live = await self._settled(plugin_uid, slot)
        if live is None:
            raise NotFound(f"no instance {slot} of plugin {plugin_uid}")
        if live.record.frozen:
            raise Conflict(f"{live.record.name} is frozen: run 'crucible thaw' first")
        filters = self._open_state().host.filters
        seccomp = filters.get(live.record.type, filters["binary"])  # without a type it never ran
        means = commands.Means(self._spawner, seccomp, self._secrets_of)
        session = await commands.run(means, live, command, stdin=stdin, tty=tty)
        self._sessions.add(session)
        return session

    def connect(self, plugin_uid: str, slot: Slot, port: int) -> AbstractAsyncContextManager[Connected]:
        """Connect from inside an instance's network namespace, where its ports are to be found."""
        live = self._lives.get(plugin_uid, slot)
        if live is None:
            raise NotFound(f"no instance {slot} of plugin {plugin_uid}")
        if live.ended.is_set() or not live.look():
            raise Conflict(f"{live.record.name} does not run")
        house = House(_house_key(live), live.hold_plugin, NEW_USER | NEW_NET, live.record.uid)
        return self._passage.connect(house, port)

    async def usage(self, plugin_uid: str, slot: Slot) -> Usage | None:
        """Return what an instance's cgroup counted; None without one."""
        live = self._lives.get(plugin_uid, slot)
        if live is None or live.ended.is_set():
            return None
        if live.gauge is None:
            live.gauge = Gauge(live.cgroups, groups.SANDBOX_PIDS)
        if live.gauge.scratch is None:
            live.gauge.scratch = live.open_scratch()
        return live.gauge.read(time.time())

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return the doors of one plugin's instances, or all."""
        lives = self._lives if plugin_uid is None else self._lives.of(plugin_uid)
        return tuple(doorway for live in lives for doorway in live.doorways())

    async def listeners(self, doorway: Doorway) -> tuple[socket, ...]:
        """Return a door's listening sockets, or bind them anew."""
        slot = records.slot_of(doorway.place)
        live = None if slot is None else await self._settled(doorway.plugin_uid, slot)
        if live is None or doorway not in live.doorways():
            return ()
        try:
            live.doors.open()
            await open_outlet(self._passage, live.record, live.doors, live.hold_plugin)
        except (OSError, Unsupported) as error:
            raise Unavailable(f"cannot open a door of {live.record.name}: {error}") from error
        return live.doors.listeners(doorway.door)

    async def _open(self) -> None:
        control_plane = self._settings.control_plane
        found = tuple(adopt.survey(self._instances, control_plane))
        used = frozenset(one.record.root for one in found if one.record)
        self._prepared = await prepare(self._settings, self._spawner, self._passage, used, _log.info)
        for one in found:
            await self._try_to_adopt(one)

    def _open_state(self) -> Prepared:
        if self._prepared is None:
            raise Unavailable("the process runtime is not open")
        return self._prepared

    async def _start(self, workload: Workload, slot: Slot) -> Instance:
        host = self._open_state().host
        live = self._write_down(host, workload, slot)
        self._lives.add(live)
        try:
            make_pipe(live.directory, live.record.uid)
            self._watch.listen(live)
            source, opened = self._source_of(workload.source), self._read_secrets(workload)
            shown = find_volumes(workload.mounts, self._settings.volumes)
            prospect = Prospect(live.record, live.directory, source, live.doors, opened, shown, self._passage)
            live.record, live.pidfd = await launch(host, self._spawner, workload, prospect)
        except CannotStart as error:
            await live.destroy()
            self._watch.conclude(live, Exit(at=time.time(), problem=str(error)))
        except BaseException as error:
            # Nothing was confirmed, so nothing ran: leave nothing.
            await live.destroy()
            await self._forget(live)
            if isinstance(error, OSError):
                raise cause_of(error) from error
            raise
        else:
            self._watch.take(live)
        return live.instance()

    def _read_secrets(self, workload: Workload) -> Opened:
        try:
            return open_secrets(workload, self._secrets_of)
        except NotFound as error:
            raise Unavailable(str(error)) from error  # it went after it was looked for: look again
        except ValueError as error:
            raise CannotStart(str(error)) from error

    def _write_down(self, host: Host, workload: Workload, slot: Slot) -> Live:
        """Take the slot, by making its directory, and write down what is about to be made.

        Raises:
            Unavailable: nothing can be written now.
        """
        if not _SAFE_NAME.fullmatch(workload.plugin_uid):
            raise InvalidInput(f"{workload.plugin_uid!r} is no plugin uid")
        authority = self._settings.bus_authority() if workload.sealed else ""
        directory = self._instances / workload.plugin_uid / str(slot)
        self._take(directory)
        cgroups = host.cgroups.directories(group_name(workload.plugin_uid, slot)) if host.cgroups else ()
        root = host.roots.get(workload.type)
        record = Record(
            control_plane=self._settings.control_plane,
            namespace=workload.namespace,
            plugin=workload.plugin,
            plugin_uid=workload.plugin_uid,
            slot=slot,
            revision=workload.revision,
            uid=self._free_uid() if os.geteuid() == 0 else None,
            cgroups=tuple(str(path) for path in cgroups),
            bwrap=host.bwrap_identity,
            root=root[0].name if root else "",
            created_at=time.time(),
            source=workload.source,
            doors=workload.doors,
            config=config_digest(workload.config),
        )
        try:
            records.save(record, directory)
        except OSError as error:
            with contextlib.suppress(
                OSError
            ):  # what is left the next start takes over, or a sweep clears away
                records.discard(directory)
            raise cause_of(error) from error
        live = Live(record, directory)
        live.doors.seal(authority)
        return live

    def _take(self, directory: Path) -> None:
        """Make an instance's directory; what a start left that could not be cleared away is taken over."""
        try:
            directory.parent.mkdir(mode=0o700, exist_ok=True)
            if adopt.never_ran(directory, self._settings.control_plane):
                records.discard(directory)
                directory.parent.mkdir(mode=0o700, exist_ok=True)
            directory.mkdir(mode=0o700)
        except FileExistsError as error:
            raise Conflict(f"{directory} belongs to an instance of another control plane") from error
        except OSError as error:
            raise cause_of(error) from error

    def _free_uid(self) -> int:
        used = {live.record.uid for live in self._lives}
        base = first_uid(self._settings)
        for uid in range(base, base + self._settings.uid_count):
            if uid not in used:
                return uid
        raise Unavailable(f"all {self._settings.uid_count} user ids for plugins are in use")

    async def _settled(self, plugin_uid: str, slot: Slot) -> Live | None:
        """Return an instance once its start, if that is going on, is over."""
        starting = self._starting.get((plugin_uid, slot))
        if starting is not None:
            await asyncio.wait({starting})
        return self._lives.get(plugin_uid, slot)

    async def _forget(self, live: Live) -> None:
        """Delete all that was made for an instance none of whose processes is left.

        Raises:
            Unavailable: its files cannot be deleted now. One that ended stays listed, to be removed later;
                one that never ran is cleared away by the next sweep.
        """
        self._passage.forget(_house_key(live))
        await _remove_cgroup(live)
        self._watch.let_go(live)
        if not live.ended.is_set():
            self._lives.drop(live)
        try:
            records.discard(live.directory)
        except OSError as error:
            raise Unavailable(f"{live.record.name} cannot be cleared away now: {error}") from error
        self._lives.drop(live)

    async def _try_to_adopt(self, found: adopt.Found) -> None:
        """Adopt an instance; one that cannot be is ended, and looked at again by the next sweep.

        One instance's folder must not keep the others from being looked after, and left running it would
        soon have a double.

        Raises:
            Unavailable: this process lacks what it takes to look after any: descriptors, memory.
        """
        try:
            await self._adopt(found)
        except OSError as error:
            live = self._lives.get(found.plugin_uid, found.slot)
            if live is not None:
                self._watch.let_go(live)
                self._lives.drop(live)
            if error.errno in SHORTAGES:
                raise Unavailable(f"{found.directory} cannot be taken over now: {error}") from error
            _log.error("%s cannot be adopted and is ended: %s", found.directory, error)
            if found.record is not None:
                await Live(found.record, found.directory).destroy()

    def _knows(self, plugin_uid: str, slot: Slot) -> bool:
        return self._lives.get(plugin_uid, slot) is not None

    async def _adopt(self, found: adopt.Found) -> None:
        host = self._open_state().host
        record = found.record
        if record is None:
            cgroups = (
                host.cgroups.directories(group_name(found.plugin_uid, found.slot)) if host.cgroups else ()
            )
            paths = tuple(str(path) for path in cgroups)
            record = adopt.unreadable(found, self._settings.control_plane, paths, time.time())
        live = Live(record, found.directory)
        match found.find:
            case adopt.Find.RUNNING:
                live.pidfd = adopt.hold_monitor(record)
                live.find_frozen()
            case adopt.Find.NEVER_RAN | adopt.Find.UNREADABLE:
                await live.destroy()
            case adopt.Find.ENDED | adopt.Find.ENDED_UNSEEN:
                pass
        if found.find is adopt.Find.NEVER_RAN:
            await _remove_cgroup(live)
            records.discard(found.directory)
            return
        self._lives.add(live)
        if found.find is adopt.Find.UNREADABLE:
            records.save(live.record, found.directory)
        elif live.pidfd is not None:
            self._watch.listen(live)
            self._watch.take(live)
            if record.stopping_at is not None and not record.asked:
                # The controller before died while it waited for the plugin to run, to ask it then.
                self._watch.terminate(live)
        elif record.exit is None:
            status = found.directory / "status.json"
            await self._watch.bury(live, status.stat().st_mtime if status.exists() else time.time())


def _house_key(live: Live) -> str:
    return f"{live.record.plugin_uid}/{live.record.slot}"


async def _kill(live: Live) -> None:
    if not live.ended.is_set():
        live.note(killed=True)
        await live.destroy()
        await live.ended.wait()


async def _remove_cgroup(live: Live) -> None:
    deadline = time.monotonic() + _REMOVE_SECONDS
    while not groups.remove(live.cgroups):
        if time.monotonic() > deadline:
            raise Unavailable(f"the cgroup of {live.record.name} stays busy")
        groups.kill(live.cgroups)
        await asyncio.sleep(_BUSY_SECONDS)
