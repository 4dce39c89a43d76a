"""A runtime in memory, for tests of whatever stands above one.

What runs is a :class:`FakeHost`; a :class:`FakeRuntime` is one controller's view of it. A second runtime on
the same host is what a controller's restart looks like::

    host = FakeHost()
    runtime = FakeRuntime(host)
    await runtime.open(changed)
    await runtime.start(workload, Slot(0, 1))
    host.crash(workload.plugin_uid, Slot(0, 1), code=3)   # calls ``changed``
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from crucible.errors import Conflict, NotFound, Unavailable
from crucible.model.door import Doorway
from crucible.model.enforcement import Capabilities, Control, Enforcement, Level
from crucible.model.instance import Exit, Instance, State
from crucible.model.workload import config_digest
from crucible.runtimes.base import Connected, LogLine
from crucible.runtimes.fake_session import KILLED, FakeSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from crucible.model.usage import Usage
    from crucible.model.workload import Slot, Workload

_TERM = 15
_KILL = 9


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a plugin does once started.

    Attributes:
        comes_up: it reaches ``RUNNING`` by itself; otherwise it waits for :meth:`FakeHost.come_up`.
        output: lines it prints at once.
        code: the status it exits with at once; None to go on running.
        signal: the signal that ends it at once.
        oom: it is killed at once for its memory limit.
        problem: why it cannot start at all.
        obeys: SIGTERM ends it.
        listens: what it says at once to whoever connects to a port, by port; None: nothing, but it accepts.
    """

    comes_up: bool = True
    output: tuple[bytes, ...] = ()
    code: int | None = None
    signal: int | None = None
    oom: bool = False
    problem: str = ""
    obeys: bool = True
    listens: Mapping[int, bytes | None] = field(default_factory=dict)

    @property
    def ends(self) -> bool:
        """It does not stay."""
        return self.code is not None or self.signal is not None or self.oom or bool(self.problem)


STAYS = Behaviour()
FULL = Capabilities(
    runtime="fake",
    types=frozenset({"python", "javascript", "binary"}),
    isolation=frozenset({"process", "container"}),
    controls=tuple(Enforcement(control, Level.ENFORCED, "the fake") for control in Control),
)


@dataclass(slots=True)
class Cell:
    """One instance on the host, whoever's it is."""

    owner: str
    instance: Instance
    behaviour: Behaviour
    output: list[LogLine] = field(default_factory=list)
    sessions: list[FakeSession] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    doorways: tuple[Doorway, ...] = ()

    def wake(self) -> None:
        """Let those who follow its output go on."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class FakeHost:
    """What runs, and the hooks that make things happen to it.

    Attributes:
        behave: says what a workload's plugin does; replace it at will.
        now: the clock, in unix seconds.
        up: the runtime answers; set False to have every verb raise ``Unavailable``.
        started: how many instances were ever started.
        cells: every instance, of every control plane.
        listeners: whom to tell of a change, by control plane.
        routes: who is reached from outside, by control plane and plugin; of others all are.
        usage: what every running instance uses; None to have the host not know.
    """

    def __init__(
        self,
        behave: Callable[[Workload], Behaviour] = lambda _: STAYS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.behave = behave
        self.now = now
        self.up = True
        self.started = 0
        self.cells: dict[tuple[str, str, Slot], Cell] = {}
        self.listeners: dict[str, Callable[[str], None]] = {}
        self.usage: Usage | None = None
        self.routes: dict[tuple[str, str], frozenset[Slot]] = {}

    def cell(self, plugin_uid: str, slot: Slot) -> Cell:
        """Return an instance by name, whoever's it is; with two of that name, the first."""
        return next(cell for key, cell in self.cells.items() if key[1:] == (plugin_uid, slot))

    def come_up(self, plugin_uid: str, slot: Slot) -> None:
        """Let an instance reach ``RUNNING``."""
        self.change(self.cell(plugin_uid, slot), state=State.RUNNING)

    def crash(
        self, plugin_uid: str, slot: Slot, *, code: int | None = None, signal: int | None = None
    ) -> None:
        """End an instance with a status, or by a signal."""
        self.end(plugin_uid, slot, Exit(at=self.now(), code=code, signal=signal))

    def end(self, plugin_uid: str, slot: Slot, end: Exit) -> None:
        """End an instance in any way, and tell its controller."""
        self.finish(self.cell(plugin_uid, slot), end)

    def finish(self, cell: Cell, end: Exit) -> None:
        """End an instance unless it has ended."""
        if cell.instance.alive:
            self.change(cell, state=State.EXITED, exit=end, pid=None, frozen=False)
            for session in cell.sessions:
                session.end(KILLED)

    def say(self, plugin_uid: str, slot: Slot, *lines: bytes) -> None:
        """Let an instance print lines."""
        cell = self.cell(plugin_uid, slot)
        cell.output.extend(LogLine(self.now(), line) for line in lines)
        cell.wake()

    def notice(self, plugin_uid: str, slot: Slot, *notices: str) -> None:
        """Raise notices about an instance, or lift them all."""
        self.change(self.cell(plugin_uid, slot), notices=notices)

    def change(self, cell: Cell, **changes: object) -> None:
        """Change an instance, and tell its controller."""
        cell.instance = replace(cell.instance, **changes)  # type: ignore[arg-type] # names are Instance's own
        cell.wake()
        if cell.owner in self.listeners:
            self.listeners[cell.owner](cell.instance.plugin_uid)


class FakeRuntime:
    """One controller's view of a host; keeps the contract of :class:`crucible.runtimes.base.Runtime`."""

    def __init__(
        self, host: FakeHost, control_plane: str = "fake", capabilities: Capabilities = FULL
    ) -> None:
        self.host = host
        self._owner = control_plane
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What it was told to claim."""
        return self._capabilities

    @property
    def outage(self) -> str:
        """What it was told to say."""
        return "" if self.host.up else "the fake runtime was told not to answer"

    async def open(self, changed: Callable[[str], None]) -> None:
        """Begin to listen to the host."""
        self._answering()
        self.host.listeners[self._owner] = changed

    async def close(self) -> None:
        """Stop listening."""
        self.host.listeners.pop(self._owner, None)

    def instances(self, plugin_uid: str | None = None) -> tuple[Instance, ...]:
        """Return what runs or ended, oldest first."""
        found = (cell.instance for cell in self._cells() if plugin_uid in {None, cell.instance.plugin_uid})
        return tuple(sorted(found, key=lambda instance: instance.created_at))

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        """Start an instance, which then does what the host's ``behave`` says."""
        self._answering()
        found = self._cell(workload.plugin_uid, slot)
        if found is not None:
            return found.instance
        self.host.started += 1
        behaviour = self.host.behave(workload)
        instance = Instance(
            plugin_uid=workload.plugin_uid,
            name=f"{workload.plugin}-{slot}",
            slot=slot,
            revision=workload.revision,
            state=State.RUNNING if behaviour.comes_up else State.STARTING,
            created_at=self.host.now(),
            pid=self.host.started,
            namespace=workload.namespace,
            plugin=workload.plugin,
            source=workload.source,
            config=config_digest(workload.config),
            reached=slot in self.host.routes.get((self._owner, workload.plugin_uid), {slot}),
        )
        cell = Cell(self._owner, instance, behaviour)
        cell.output.extend(LogLine(self.host.now(), line) for line in behaviour.output)
        cell.doorways = tuple(
            Doorway(door, workload.namespace, workload.plugin, workload.plugin_uid, str(slot))
            for door in workload.doors
        )
        self.host.cells[self._owner, workload.plugin_uid, slot] = cell
        if behaviour.ends:
            self.host.finish(
                cell,
                Exit(
                    at=self.host.now(),
                    code=behaviour.code,
                    signal=_KILL if behaviour.oom else behaviour.signal,
                    oom=behaviour.oom,
                    problem=behaviour.problem,
                ),
            )
        elif behaviour.comes_up:
            self.host.come_up(workload.plugin_uid, slot)
        return cell.instance

    async def stop(self, plugin_uid: str, slot: Slot) -> None:
        """Note the time, and end the instance if it obeys."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        if cell is None or not cell.instance.alive or cell.instance.stopping_at is not None:
            return
        cell.instance = replace(
            cell.instance, state=State.STOPPING, stopping_at=self.host.now(), frozen=False
        )
        if cell.behaviour.obeys:
            self.host.finish(cell, Exit(at=self.host.now(), signal=_TERM))

    async def kill(self, plugin_uid: str, slot: Slot) -> None:
        """End the instance."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        if cell is not None:
            self.host.finish(cell, Exit(at=self.host.now(), signal=_KILL))

    async def remove(self, plugin_uid: str, slot: Slot) -> None:
        """Forget the instance."""
        await self.kill(plugin_uid, slot)
        cell = self._cell(plugin_uid, slot)
        if cell is not None:
            del self.host.cells[self._owner, plugin_uid, slot]
            cell.wake()

    async def deliver(self, plugin_uid: str, slot: Slot, config: str, *, signal: bool) -> None:  # noqa: ARG002
        """Have the instance print what it was given, as one that notices does."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        if cell is not None and cell.instance.alive:
            self.host.say(plugin_uid, slot, config.encode())
            self.host.change(cell, config=config_digest(config))

    async def freeze(self, plugin_uid: str, slot: Slot) -> None:
        """Note that it is held still."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        if cell is not None and cell.instance.alive:
            self.host.change(cell, frozen=True)

    async def thaw(self, plugin_uid: str, slot: Slot) -> None:
        """Note that it goes on."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        if cell is not None:
            self.host.change(cell, frozen=False)

    async def route(self, plugin_uid: str, slots: Sequence[Slot]) -> None:
        """Note who is reached from now on."""
        self._answering()
        self.host.routes.pop((self._owner, plugin_uid), None)
        if slots:
            self.host.routes[self._owner, plugin_uid] = frozenset(slots)
        for cell in self._cells():
            if cell.instance.plugin_uid == plugin_uid:
                self.host.change(cell, reached=not slots or cell.instance.slot in slots)

    async def sweep(self) -> tuple[str, ...]:
        """Find nothing: whatever is in memory is on record."""
        self._answering()
        return ()

    async def logs(
        self, plugin_uid: str, slot: Slot, *, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Yield what the instance printed."""
        cell = self._cell(plugin_uid, slot)
        if cell is None:
            raise NotFound(f"no instance {slot} of plugin {plugin_uid}")
        said = 0 if tail is None else max(len(cell.output) - tail, 0)
        while True:
            while said < len(cell.output):
                said += 1
                yield cell.output[said - 1]
            if not (follow and cell.instance.alive and self._cell(plugin_uid, slot) is cell):
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            cell.waiting.append(future)
            await future

    async def exec(
        self, plugin_uid: str, slot: Slot, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> FakeSession:
        """Do what a few programs would: see :class:`FakeSession`."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        if cell is None:
            raise NotFound(f"no instance {slot} of plugin {plugin_uid}")
        if not cell.instance.alive:
            raise Conflict(f"{cell.instance.name} has ended")
        if cell.instance.frozen:
            raise Conflict(f"{cell.instance.name} is frozen: run 'crucible thaw' first")
        session = FakeSession(tuple(command), stdin=stdin, tty=tty)
        cell.sessions.append(session)
        return session

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return the doors its living instances were started with."""
        found = (cell for cell in self._cells() if plugin_uid in {None, cell.instance.plugin_uid})
        return tuple(doorway for cell in found if cell.instance.alive for doorway in cell.doorways)

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        """Return a socket that nobody comes through: nobody is inside."""
        if doorway not in self.doorways(doorway.plugin_uid):
            return ()
        one = socket.socket(socket.AF_UNIX)
        one.bind("")  # the kernel makes up a name
        one.listen()
        return (one,)

    @asynccontextmanager
    async def connect(self, plugin_uid: str, slot: Slot, port: int) -> AsyncIterator[Connected]:
        """Hand out one end of a connection whose other end has said what the instance says."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        if cell is None:
            raise NotFound(f"no instance {slot} of plugin {plugin_uid}")
        if cell.instance.state is State.EXITED:
            raise Conflict(f"{cell.instance.name} has ended")
        if port not in cell.behaviour.listens:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            said = cell.behaviour.listens[port]
            if said is not None:
                theirs.sendall(said)
                theirs.shutdown(socket.SHUT_WR)
            yield Connected(ours)

    async def usage(self, plugin_uid: str, slot: Slot) -> Usage | None:
        """Return what the host was told to say."""
        self._answering()
        cell = self._cell(plugin_uid, slot)
        return self.host.usage if cell is not None and cell.instance.alive else None

    def _answering(self) -> None:
        if self.outage:
            raise Unavailable(self.outage)

    def _cells(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.host.cells.values() if cell.owner == self._owner)

    def _cell(self, plugin_uid: str, slot: Slot) -> Cell | None:
        return self.host.cells.get((self._owner, plugin_uid, slot))
