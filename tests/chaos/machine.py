"""One machine's control plane, its sandboxes, and every way there is to break them."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import struct
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clearing import clear
from desired import Desired
from disk import Disk
from kinds import ANSWERING, CALLING, FILE, HANDING, PLAIN, SIGNAL
from onlooker import below
from pids import spent_pids
from places import Seen, chosen, pause
from plane import DEADLINE, Plane

from crucible.runtimes.process import proc

if TYPE_CHECKING:
    from ordeal import Step
    from places import Fault

HERE = Path(__file__).parent
BODY = {
    "version": "1.0.0",
    "type": "python",
    "source": {"inline": {"main.py": "import time\nwhile True: time.sleep(3600)\n"}},
    "entrypoint": ["main.py"],
    "update": {"strategy": "recreate"},
    "stopGrace": "500ms",
    "recovery": {"strategy": ["restart"], "backoff": {"initial": "50ms", "max": "1s"}},
    "resources": {"memory": "32Mi"},
}
INTERPRETER = 16
"""Descriptors that a controller has before it listens, at most."""


class Machine:
    """A control plane whose state lies on a small disk of its own, where root may mount one.

    The API server is part of the controller's process here: what kills one kills both.
    """

    patience = 120.0

    def __init__(
        self, folder: Path, roots: Path, *arguments: str, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.roots = roots
        self.disk = Disk(folder / "disk", mounted=os.geteuid() == 0)
        self.clock = folder / "clock"
        self.clock.write_bytes(struct.pack("d", 0.0))
        self.plane = Plane(
            self.disk.state,
            *arguments,
            become=(sys.executable, str(HERE / "clockwork.py"), str(self.clock)),
            environment={"PYTHONFAULTHANDLER": "1", **(environment or {})},
        )
        self.plane._log = folder / "up.log"
        kinds = (ANSWERING, PLAIN, CALLING, HANDING, SIGNAL, FILE)
        self.desired = Desired(self.plane.client, BODY, kinds, freezes=os.geteuid() == 0)
        self.sessions: set[int] = set()
        self._keeper: asyncio.Task[None] | None = None
        self.faults: dict[str, Fault] = {
            "kill controller": self.kill_controller,
            "freeze controller": self.freeze_controller,
            "restart controller": self.restart_controller,
            "crash plugin": self.crash_plugin,
            "freeze plugin": self.freeze_plugin,
            "kill monitor": self.kill_monitor,
            "kill spawner": self.kill_spawner,
            "freeze spawner": self.freeze_spawner,
            "kill broker": self.kill_broker,
            "freeze broker": self.freeze_broker,
            "clock jump": self.clock_jump,
            "few descriptors": self.few_descriptors,
            "lock database": self.lock_database,
            "tear database log": self.tear_log,
            **(
                {
                    "full disk": self.full_disk,
                    "read-only disk": self.read_only_disk,
                    "few pids": self.few_pids,
                }
                if self.disk.mounted
                else {}
            ),
        }

    async def open(self) -> None:
        self.disk.open()
        process = self.disk.state / "process"
        process.mkdir(mode=0o700)
        self.roots.mkdir(exist_ok=True)
        (process / "roots").symlink_to(self.roots)
        self.start()
        await self.plane.ready()
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Start the controller again whenever it ended, as its service does (``Restart=always``)."""
        while True:
            await asyncio.sleep(0.2)
            process = self.plane.process
            if process is not None and process.poll() is not None:
                self.plane.end()
                self.start()

    def start(self) -> None:
        """Start a controller, and remember its session: none of its helpers may outlive it."""
        self.plane.start()
        assert self.plane.process is not None
        self.sessions.add(self.plane.process.pid)

    def log(self) -> str:
        return self.plane.log()

    # Faults of the controller, and of the API server with it.

    async def kill_controller(self, _: Step) -> None:
        self.plane.end(signal.SIGKILL)
        self.start()

    async def restart_controller(self, _: Step) -> None:
        process = self.plane.process
        self.plane.process = None  # it is ours to start again, not its service's
        if process is not None:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, DEADLINE)
        self.start()

    async def freeze_controller(self, step: Step) -> None:
        await self._freeze(self.controller, step)

    async def kill_spawner(self, _: Step) -> None:
        for pid in self._spawners():
            _tell(pid, signal.SIGKILL)

    async def freeze_spawner(self, step: Step) -> None:
        for pid in self._spawners():
            await self._freeze(pid, step)

    # Faults of the bus, on which plugins call each other all the time, and are asked whether they are ready.

    async def kill_broker(self, _: Step) -> None:
        for pid in self._brokers():
            _tell(pid, signal.SIGKILL)

    async def freeze_broker(self, step: Step) -> None:
        for pid in self._brokers():
            await self._freeze(pid, step)

    # Faults of plugins.

    async def crash_plugin(self, step: Step) -> None:
        for _, pid in chosen(self._inits(), step):
            for child in proc.children(pid):
                _tell(child, signal.SIGKILL)

    async def freeze_plugin(self, step: Step) -> None:
        for _, pid in chosen(self._inits(), step):
            for child in proc.children(pid):
                await self._freeze(child, step)

    async def kill_monitor(self, step: Step) -> None:
        for _, pid in chosen(self._monitors(), step):
            _tell(pid, signal.SIGKILL)

    # Faults of the host.

    async def clock_jump(self, step: Step) -> None:
        """Set the clock by up to two hours, either way, until the next jump or the run's end."""
        self._set_clock(float(step.pick % 14400 - 7200))

    async def few_descriptors(self, step: Step) -> None:
        """Leave the controller room for as many descriptors as it has, and one or two more.

        One that has not come so far as to import all it needs is left alone: that would try Python, not us.
        """
        pid = self.controller
        if pid is None:
            return
        with suppress(OSError, ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            held = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
            if held < INTERPRETER:
                return
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (held + 1 + step.pick % 3, hard))
            try:
                await pause(step.lasts)
            finally:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    async def few_pids(self, step: Step) -> None:
        if self.controller is not None:
            await spent_pids([self.controller, *self._spawners()], self.folder.name, step)

    async def full_disk(self, step: Step) -> None:
        self.disk.fill()
        await pause(step.lasts)
        self.disk.make_room()

    async def read_only_disk(self, step: Step) -> None:
        self.disk.cover()
        await pause(step.lasts)
        self.disk.uncover()

    async def lock_database(self, step: Step) -> None:
        """Hold the lock of another writer, as a backup program or a person with ``sqlite3`` would."""
        with suppress(sqlite3.OperationalError):
            link = sqlite3.connect(self.disk.state / "control/control.db", isolation_level=None, timeout=0.2)
            try:
                link.execute("BEGIN IMMEDIATE")
                await pause(step.lasts)
                link.execute("ROLLBACK")
            finally:
                link.close()

    async def tear_log(self, step: Step) -> None:
        """Kill the controller as in the middle of a write: its write-ahead log ends with nonsense."""
        self.plane.end(signal.SIGKILL)
        with suppress(OSError), (self.disk.state / "control/control.db-wal").open("ab") as file:
            file.write(step.pick.to_bytes(4, "big") * 700)
        self.start()

    async def mend(self) -> None:
        """Set the clock right, uncover the disk, make room on it."""
        self._set_clock(0.0)
        self.disk.uncover()
        self.disk.make_room()

    # Looking.

    def alive(self) -> Counter[str]:
        return self.plane.sandboxes() if self._has_begun() else Counter()

    def values(self) -> tuple[tuple[str, int], ...]:
        """Return what each plugin finds in its configuration now."""
        found = []
        for word, pid in self._inits():
            _, uid, slot = word.split("/")
            with suppress(OSError):
                config = json.loads(Path(f"/proc/{pid}/root/config/config.json").read_text())
                if config:  # a controller that starts looks into a sandbox of its own first
                    found.append((f"{uid}/{slot.partition('-')[0]}", int(config["value"])))
        return tuple(found)

    async def look(self) -> Seen:
        things = [(what, _owner(what)) for what in self.plane.leftovers() if str(self.disk.place) not in what]
        root = self.plane.places.root
        things += [
            (str(folder), folder.parent.name)
            for folder in below(root / "process/instances", "*/*")
            if folder.is_dir()
        ]
        things += [(str(path), "") for path in (root / "process").glob("probe-*")]
        things += [(str(path), "") for path in (root / "sources").glob("making-*")]
        digests = {path.name for path in (root / "sources").iterdir()}
        wanted = {
            str(((plugin.get("status") or {}).get("source") or {}).get("digest", "")).removeprefix("sha256:")
            for plugin in await self.desired.plugins()
        }
        things += [(f"snapshot {digest}", "") for digest in digests - wanted]
        things += [(f"process {pid} of a controller that is gone", "") for pid in self._left_by_controllers()]
        things += [(f"broker {pid} besides another", "") for pid in self._brokers()[1:]]
        return Seen(self.alive(), tuple(things), self.values())

    async def close(self) -> list[str]:
        """End the controller and look at what is left; then clear all away, whatever went wrong before."""
        wrong = []
        if self._keeper is not None:
            self._keeper.cancel()
        try:
            await self.mend()
            if (
                self.plane.process is not None
                and await asyncio.to_thread(self.plane.end, signal.SIGTERM) != 0
            ):
                wrong.append("the controller did not end with 0")
            left = [what for what in self._leftovers() if str(self.disk.place) not in what]
            wrong += [f"left at the end: {what}" for what in left]
            wrong += [f"left at the end: process {pid}" for pid in self._left_by_controllers()]
        finally:
            self._clear()
        return wrong

    def _clear(self) -> None:
        """End what runs; the broker too, which would stay for half a minute in case it is needed again."""
        with suppress(ProcessLookupError):
            self.plane.end(signal.SIGKILL)
        if self._has_begun():
            clear(self.plane.mark(), self.sessions)
        self.disk.close()

    def _has_begun(self) -> bool:
        return (self.plane.places.root / "id").exists()

    def _leftovers(self) -> list[str]:
        return self.plane.leftovers() if self._has_begun() else []

    @property
    def controller(self) -> int | None:
        """Return the controller's pid; None while there is none."""
        return self.plane.process.pid if self.plane.process is not None else None

    def _spawners(self) -> list[int]:
        pid = self.controller
        return [] if pid is None else [one for one in proc.children(pid) if _runs(one, b"spawner.py")]

    def _brokers(self) -> list[int]:
        if not self._has_begun():
            return []
        mark = f"crucible-companion:{self.plane.mark()}/bus".encode()
        return [pid for pid in proc.all_pids() if mark in proc.arguments(pid)]

    def _left_by_controllers(self) -> list[int]:
        """Return what controllers that are gone started; a session with nobody left can be anybody's next."""
        gone = self.sessions - {self.controller}
        found = {pid: _session(pid) for pid in proc.all_pids()}
        self.sessions -= gone - set(found.values())
        return [pid for pid, session in found.items() if session in gone and proc.started(pid) is not None]

    def _monitors(self) -> list[tuple[str, int]]:
        return [one for one in self._sandboxed() if len(proc.pids_by_namespace(one[1])) == 1]

    def _inits(self) -> list[tuple[str, int]]:
        return [one for one in self._sandboxed() if proc.pids_by_namespace(one[1])[1:] == (1,)]

    def _sandboxed(self) -> list[tuple[str, int]]:
        prefix = f"crucible:{self.plane.mark()}/".encode()
        found = [(proc.arguments(pid)[:1], pid) for pid in proc.all_pids()]
        return sorted(
            (words[0].decode(), pid) for words, pid in found if words and words[0].startswith(prefix)
        )

    async def _freeze(self, pid: int | None, step: Step) -> None:
        held = None if pid is None else proc.hold(pid)
        if held is None:
            return
        try:
            proc.tell(held, signal.SIGSTOP)
            await pause(step.lasts)
        finally:
            proc.tell(held, signal.SIGCONT)
            os.close(held)

    def _set_clock(self, seconds: float) -> None:
        """Write in place: a file cut short, were it for a moment, would end whoever has it mapped."""
        with self.clock.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", seconds))


def _tell(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _runs(pid: int, name: bytes) -> bool:
    return any(word.endswith(name) for word in proc.arguments(pid))


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _owner(what: str) -> str:
    """Return whose a thing is, from its name: ``uid/slot`` of a process, ``…/uid_slot`` of a cgroup."""
    name = what.rpartition("/")[2]
    return name.rpartition("_")[0] if what.startswith("/sys/fs/cgroup") else what.partition("/")[0]
