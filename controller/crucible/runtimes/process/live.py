"""One instance on this host: what is known of it, and the ways to reach into its sandbox."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import Unavailable, Unsupported
from crucible.model.door import Doorway
from crucible.model.instance import Instance, State
from crucible.runtimes.doors import Doors
from crucible.runtimes.process import proc
from crucible.runtimes.process.cgroups import base as groups
from crucible.runtimes.process.output import PIPE
from crucible.runtimes.process.record import read_status, save
from crucible.runtimes.scratch import close_scratch, open_scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.model.workload import Slot
    from crucible.runtimes.gauge import Gauge
    from crucible.runtimes.process.output import Output
    from crucible.runtimes.process.record import Record

_log = logging.getLogger(__name__)
_KILL_SECONDS: Final = 10.0
_FREEZE_SECONDS: Final = 5.0
_INIT_PID: Final = 1
_MAIN_PID: Final = 2


class Live:
    """An instance from its record on, until it is removed.

    Attributes:
        record: what is written down about it.
        directory: where.
        output: its output while it lives.
        pidfd: its monitor while that lives.
        main: pid of the plugin's own process, once it runs.
        gauge: reads what it uses; None until that was asked.
        doors: its doors.
        ended: set when its end is written down.
    """

    def __init__(self, record: Record, directory: Path) -> None:
        self.record = record
        self.directory = directory
        self.output: Output | None = None
        self.pidfd: int | None = None
        self.main: int | None = None
        self.gauge: Gauge | None = None
        self.doors = Doors(directory, record.doors)
        self.ended = asyncio.Event()
        if record.exit is not None:
            self.ended.set()

    @property
    def cgroups(self) -> tuple[Path, ...]:
        """The directories of its cgroup."""
        return tuple(Path(path) for path in self.record.cgroups)

    @property
    def rebooted(self) -> bool:
        """It was started before the host's last boot, so nothing of it can be alive."""
        monitor = self.record.monitor
        return monitor is not None and monitor.boot != proc.boot_id()

    def note(self, **changes: object) -> None:
        """Change the record, on disk too where that takes it.

        A full or read-only disk must not keep an instance from being looked after. What is lost with it
        should the controller end now can be found out again: an end from what is left, a request to end by
        asking once more.
        """
        self.record = replace(self.record, **changes)  # type: ignore[arg-type] # names and types are Record's own
        try:
            save(self.record, self.directory)
        except OSError as error:
            _log.warning("%s: %s is not on record: %s", self.record.name, ", ".join(changes), error)

    def instance(self) -> Instance:
        """Describe it for the core."""
        record = self.record
        return Instance(
            plugin_uid=record.plugin_uid,
            name=record.name,
            slot=record.slot,
            revision=record.revision,
            state=self._state(),
            created_at=record.created_at,
            stopping_at=record.stopping_at,
            pid=self.main if record.exit is None else None,
            exit=record.exit,
            notices=self._notices(),
            namespace=record.namespace,
            plugin=record.plugin,
            source=record.source,
            config=record.config,
            frozen=record.frozen and record.exit is None,
        )

    def doorways(self) -> tuple[Doorway, ...]:
        """Describe its doors, as long as it may come through them."""
        record = self.record
        if record.exit is not None:
            return ()
        peer = os.geteuid() if record.uid is None else record.uid
        return tuple(
            Doorway(
                door,
                record.namespace,
                record.plugin,
                record.plugin_uid,
                str(record.slot),
                peer,
                self.doors.speaks_tls(door),
            )
            for door in record.doors
        )

    def look(self) -> bool:
        """Find the plugin's main process; False while bubblewrap has not started it."""
        if self.main is None:
            init = self.init()
            for pid in proc.children(init) if init is not None else ():
                # Until it executes the plugin, that process bears bubblewrap's arguments; dead, it has none.
                words = proc.arguments(pid)
                executed = bool(words) and words[0] != self.record.mark.encode()
                if executed and proc.pids_by_namespace(pid)[-1:] == (_MAIN_PID,):
                    self.main = pid
        return self.main is not None

    def init(self) -> int | None:
        """Return the pid of the sandbox's first process; None while there is none.

        The pid comes from bubblewrap's report and may since belong to anyone. Ours bears the mark, is the
        first of a pid namespace, which a plugin cannot make, and began after its monitor.
        """
        known = self.record.init
        if known is not None:
            return known.pid if not self.rebooted and proc.started(known.pid) == known.started else None
        pid = read_status(self.directory).init
        return pid if pid is not None and self._is_init(pid) else None

    def remaining(self) -> frozenset[int]:
        """Return the processes of this instance that are alive, its monitor included."""
        init = self.init()
        found = groups.pids(self.cgroups) | ({init} if init is not None else set())
        monitor = self.record.monitor
        if self.pidfd is not None and monitor is not None and not proc.ended(self.pidfd):
            found |= {monitor.pid}
        if not self.record.cgroups and init is None and not found:
            found |= {pid for pid in proc.all_pids() if self._is_ours(pid)}
        return found

    def has_pipe(self) -> bool:
        """Tell whether its start came as far as making a pipe for its output."""
        return (self.directory / PIPE).exists()

    def tell(self, number: signal.Signals) -> bool:
        """Send a signal to the plugin's main process; False when there is none yet."""
        if not self.look() or self.main is None:
            return False
        held = proc.hold(self.main)
        if held is not None:
            try:
                if proc.pids_by_namespace(self.main)[-1:] == (_MAIN_PID,):
                    proc.tell(held, number)
            finally:
                os.close(held)
        return True

    def hold_plugin(self) -> int | None:
        """Return a pidfd of the plugin's main process; None while there is none. The caller closes it."""
        if self.ended.is_set() or not self.look() or self.main is None:
            return None
        held, init = proc.hold(self.main), self.init()
        if held is not None and (init is None or not self._is_main(self.main, init)):
            os.close(held)
            return None
        return held

    def open_scratch(self) -> tuple[int, ...] | None:
        """Open the plugin's scratch places; None while it has not begun, none where they cannot be opened."""
        held = self.hold_plugin()
        if held is None or self.main is None:
            return None
        try:
            found = open_scratch(self.main)
            if proc.ended(held):  # the number may have been another's by then
                close_scratch(found)
                return ()
        finally:
            os.close(held)
        return found

    async def freeze(self) -> None:
        """Hold every process of this instance still.

        Raises:
            Unsupported: its group cannot.
            Unavailable: some do not come to rest; they are let go on.
        """
        pause = 0.0005
        try:
            async with asyncio.timeout(_FREEZE_SECONDS):
                while not groups.freeze(self.cgroups):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.01)
        except groups.Refused as error:
            raise Unsupported(f"{self.record.name} cannot be held still: {error}") from error
        except TimeoutError as error:
            groups.thaw(self.cgroups)
            raise Unavailable(f"some processes of {self.record.name} do not come to rest") from error
        self.note(frozen=True)

    def thaw(self) -> None:
        """Let it go on, if it is held still.

        Raises:
            Unavailable: the kernel does not take it.
        """
        if self.record.frozen:
            try:
                groups.thaw(self.cgroups)
            except groups.Refused as error:
                raise Unavailable(f"{self.record.name} cannot be let go on: {error}") from error
            self.note(frozen=False)

    def find_frozen(self) -> None:
        """Note whether it is held still, as the kernel says: whoever did it may not have come to say so."""
        frozen = groups.frozen(self.cgroups)
        if frozen is not self.record.frozen:
            self.note(frozen=frozen)

    async def destroy(self) -> None:
        """Kill every process of this instance and wait until none is left.

        Raises:
            Unavailable: some do not end; they are stuck in the kernel.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + _KILL_SECONDS, 0.0005
        while left := self.remaining():
            if loop.time() > deadline:
                raise Unavailable(
                    f"{len(left)} processes of {self.record.name} do not end: {sorted(left)[:5]}"
                )
            self._strike(left)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.01)

    def _strike(self, left: frozenset[int]) -> None:
        groups.kill(self.cgroups)
        if self.pidfd is not None:
            proc.tell(self.pidfd, signal.SIGKILL)
        for pid in left:
            held = proc.hold(pid)
            if held is None:
                continue
            try:
                if pid == self.init() or self._bears_mark(pid):
                    # The first process of a pid namespace takes all the others with it.
                    proc.tell(held, signal.SIGKILL)
            finally:
                os.close(held)

    def _is_main(self, pid: int, init: int) -> bool:
        return pid in proc.children(init) and proc.pids_by_namespace(pid)[-1:] == (_MAIN_PID,)

    def _is_init(self, pid: int) -> bool:
        monitor = self.record.monitor
        began = proc.started(pid)
        if began is None or monitor is None or self.rebooted or began < monitor.started:
            return False
        namespaces = proc.pids_by_namespace(pid)
        return len(namespaces) > 1 and namespaces[-1] == _INIT_PID and self._bears_mark(pid)

    def _is_ours(self, pid: int) -> bool:
        """Tell a process of this instance's sandbox by its mark alone, where there is nothing else to go by.

        A plugin can give its own processes any name. It cannot put one outside every sandbox, nor make it the
        first of one.
        """
        if not self._bears_mark(pid) or proc.started(pid) is None:
            return False
        namespaces = proc.pids_by_namespace(pid)
        return len(namespaces) == 1 or namespaces[-1:] == (_INIT_PID,)

    def _bears_mark(self, pid: int) -> bool:
        return proc.arguments(pid)[:1] == (self.record.mark.encode(),)

    def _state(self) -> State:
        if self.record.exit is not None:
            return State.EXITED
        if self.record.stopping_at is not None:
            return State.STOPPING
        return State.RUNNING if self.main is not None else State.STARTING

    def _notices(self) -> tuple[str, ...]:
        found = []
        if self.output is not None and self.output.throttled:
            found.append(f"output is held to {self.output.rate_text}")
        if self.output is not None and self.output.problem:
            found.append(self.output.problem)
        return tuple(found)


class Lives:
    """The instances of this controller, by plugin."""

    def __init__(self) -> None:
        self._by_plugin: dict[str, dict[Slot, Live]] = {}

    def __iter__(self) -> Iterator[Live]:
        return (live for slots in tuple(self._by_plugin.values()) for live in tuple(slots.values()))

    def of(self, plugin_uid: str) -> Iterator[Live]:
        """Yield the instances of one plugin."""
        return iter(tuple(self._by_plugin.get(plugin_uid, {}).values()))

    def get(self, plugin_uid: str, slot: Slot) -> Live | None:
        """Return the instance with this slot."""
        return self._by_plugin.get(plugin_uid, {}).get(slot)

    def add(self, live: Live) -> None:
        """Take one in."""
        self._by_plugin.setdefault(live.record.plugin_uid, {})[live.record.slot] = live

    def drop(self, live: Live) -> None:
        """Forget one."""
        slots = self._by_plugin.get(live.record.plugin_uid, {})
        slots.pop(live.record.slot, None)
        if not slots:
            self._by_plugin.pop(live.record.plugin_uid, None)

    def clear(self) -> None:
        """Forget all."""
        self._by_plugin.clear()
