"""The Docker runtime: what is asked of it, carried out by an engine that may come and go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from docker import errors

from crucible.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported
from crucible.model.door import Door
from crucible.model.instance import State
from crucible.model.volume import accesses
from crucible.model.workload import config_digest
from crucible.runtimes.base import Connected
from crucible.runtimes.config import place
from crucible.runtimes.docker.commands import Command, execute
from crucible.runtimes.docker.connection import Connection
from crucible.runtimes.docker.containers import Containers
from crucible.runtimes.docker.enforcement import ASSUMED, capabilities
from crucible.runtimes.docker.engine import Engine
from crucible.runtimes.docker.images import Images
from crucible.runtimes.docker.network import RELAY_USER
from crucible.runtimes.docker.starting import Given, Starter, show_names
from crucible.runtimes.docker.streams import LogStream
from crucible.runtimes.docker.usage import usage_of
from crucible.runtimes.passage import NEW_NET, House, Passage
from crucible.runtimes.secrets import no_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from crucible.model.door import Doorway
    from crucible.model.enforcement import Capabilities
    from crucible.model.instance import Instance
    from crucible.model.usage import Usage
    from crucible.model.workload import Slot, Workload
    from crucible.runtimes.base import ExecSession, LogLine
    from crucible.runtimes.docker.engine import Facts
    from crucible.runtimes.docker.held import Held
    from crucible.runtimes.docker.settings import DockerSettings
    from crucible.runtimes.secrets import SecretsOf

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_FOLLOWERS: Final = 64
_RELAY: Final = "relay"


class DockerRuntime:
    """Runs plugins as containers; keeps the contract of :class:`crucible.runtimes.base.Runtime`."""

    def __init__(
        self,
        settings: DockerSettings,
        source_of: Callable[[str], Path],
        secrets_of: SecretsOf = no_secrets,
    ) -> None:
        """Prepare without asking the engine anything.

        Args:
            settings: which engine, and how.
            source_of: returns the directory that holds a source snapshot, by digest.
            secrets_of: returns what is in a Secret, by namespace and name.
        """
        if not _SAFE_NAME.fullmatch(settings.control_plane):
            raise InvalidInput(f"{settings.control_plane!r} is no id for a control plane")
        self._settings = settings
        self._changed: Callable[[str], None] = lambda _: None
        self._engine = Engine(settings)
        self.images = Images(self._engine, settings, self._tell)
        self._containers = Containers(
            self._engine, settings, lambda: self.images.image_of_type("python"), self._tell
        )
        self._connection = Connection(
            self._engine,
            settings,
            survey=self._containers.survey,
            happened=self._containers.hear,
            turned=self._tell_all,
        )
        self._starter = Starter(
            self._engine, settings, self._containers, self.images, Given(source_of, secrets_of)
        )
        self._starting: dict[tuple[str, Slot], asyncio.Task[Instance]] = {}
        self._passage = Passage()
        self._followers = 0
        self._offered: tuple[Facts | None, Capabilities] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the engine offers; what engines usually do, until it was reached."""
        facts = self._connection.facts
        if self._offered is None or self._offered[0] is not facts:
            found = capabilities(facts.info if facts else ASSUMED, self._containers.memory.problem)
            self._offered = facts, replace(found, volumes=accesses(self._settings.volumes))
        return self._offered[1]

    @property
    def outage(self) -> str:
        """Why the engine does not answer now."""
        return self._connection.outage

    async def open(self, changed: Callable[[str], None]) -> None:
        """Connect and adopt; an engine that does not answer is an outage, and is tried again and again."""
        self._changed = changed
        self._settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        show_names(self._settings.names)
        await self._connection.open()

    async def close(self) -> None:
        """Disconnect. Instances go on running."""
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        await self._connection.close()
        await self._containers.close()
        self._passage.close()
        self._engine.close()

    def instances(self, plugin_uid: str | None = None) -> tuple[Instance, ...]:
        """Return the instances of one plugin, or all, oldest first, as last known."""
        return self._containers.instances(plugin_uid)

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        """Start one instance, or return the one with this slot. Cancelling the caller does not undo it."""
        if not _SAFE_NAME.fullmatch(workload.plugin_uid):
            raise InvalidInput(f"{workload.plugin_uid!r} is no plugin uid")
        key = (workload.plugin_uid, slot)
        held = self._containers.get(*key)
        if key not in self._starting and held is not None:
            return held.instance
        task = self._starting.get(key)
        if task is None:
            self._answering()
            task = asyncio.get_running_loop().create_task(self._starter.start(workload, slot))
            self._starting[key] = task
            task.add_done_callback(lambda task: self._started(key, task))
        return await asyncio.shield(task)

    async def stop(self, plugin_uid: str, slot: Slot) -> None:
        """Send SIGTERM to the container's init process, which hands it on, and note the time."""
        held = await self._settled(plugin_uid, slot)
        if held is None or held.ended.is_set() or held.instance.stopping_at is not None:
            return
        asked = time.time()
        await self._containers.signal(held, "SIGTERM")
        await self._containers.thaw(held)
        # First the signal, then the note: a controller that dies in between asks again, not never.
        held.note_stopping(asked)

    async def kill(self, plugin_uid: str, slot: Slot) -> None:
        """Kill the container's whole tree and wait until it is gone."""
        held = await self._settled(plugin_uid, slot)
        if held is not None:
            await self._containers.kill(held)

    async def remove(self, plugin_uid: str, slot: Slot) -> None:
        """Forget an instance and delete its container; kill it first if it is alive."""
        held = await self._settled(plugin_uid, slot)
        if held is not None:
            self._passage.forget(held.container)
            await self._containers.remove(held)

    async def deliver(self, plugin_uid: str, slot: Slot, config: str, *, signal: bool) -> None:
        """Put a new configuration in the place of the old one, say so if asked to, note that it is done."""
        held = await self._settled(plugin_uid, slot)
        if held is None or held.ended.is_set():
            return
        try:
            place(held.directory, config)
            if signal:
                await self._containers.signal(held, "SIGHUP")
            held.note_config(config_digest(config))
        except OSError as error:
            raise Unavailable(
                f"{held.instance.name} cannot be given its configuration now: {error}"
            ) from error

    async def freeze(self, plugin_uid: str, slot: Slot) -> None:
        """Have the engine pause an instance's container."""
        held = await self._settled(plugin_uid, slot)
        if held is not None and not held.ended.is_set():
            await self._containers.freeze(held)

    async def thaw(self, plugin_uid: str, slot: Slot) -> None:
        """Have the engine let it go on."""
        held = await self._settled(plugin_uid, slot)
        if held is not None and not held.ended.is_set():
            await self._containers.thaw(held)

    async def route(self, plugin_uid: str, slots: Sequence[Slot]) -> None:
        """Have the plugin's relay hand new connections to these."""
        if self._containers.of(plugin_uid):
            await self._containers.relays.route(plugin_uid, slots)

    async def sweep(self) -> tuple[str, ...]:
        """Have the engine surveyed: that adopts, and clears away what belongs to no instance.

        It goes on beside: containers that never ran, relays, networks, folders.
        """
        self._answering()
        self._connection.look_again()
        return ()

    async def logs(
        self, plugin_uid: str, slot: Slot, *, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Yield an instance's output, as the engine keeps it."""
        held = self._held(plugin_uid, slot)
        if not held.container:
            return
        if held.ended.is_set():
            await self._containers.until_told(held)
        if self._followers >= _FOLLOWERS:
            raise Unavailable(f"{_FOLLOWERS} others read output already: try again later")
        self._followers += 1
        try:
            stream = LogStream(self._engine.another(), held.container, tail=tail, follow=follow)
            async with contextlib.aclosing(stream.lines()) as lines:
                async for line in lines:
                    yield line
        finally:
            self._followers -= 1

    async def exec(
        self, plugin_uid: str, slot: Slot, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Run a command inside an instance's container, as its user."""
        held = self._held(plugin_uid, slot)
        if held.ended.is_set() or held.instance.state is State.STARTING:
            raise Conflict(f"{held.instance.name} does not run")
        if held.instance.frozen:
            raise Conflict(f"{held.instance.name} is frozen: run 'crucible thaw' first")
        wanted = Command(tuple(command), user=f"{held.uid}:{held.uid}", stdin=stdin, tty=tty)
        return await execute(self._engine, held.container, wanted)

    @contextlib.asynccontextmanager
    async def connect(self, plugin_uid: str, slot: Slot, port: int) -> AsyncIterator[Connected]:
        """Connect from inside the container's network where that is in reach, else through its relay."""
        held = self._held(plugin_uid, slot)
        if held.ended.is_set() or held.instance.state is State.STARTING:
            raise Conflict(f"{held.instance.name} does not run")
        gauge = self._containers.groups.gauge(held.container) if os.geteuid() == 0 else None
        if gauge is not None:
            house = House(held.container, gauge.process, NEW_NET)
            async with self._passage.connect(house, port) as connected:
                yield connected
            return
        self._answering()
        with socket.socket() as door:
            door.setblocking(False)
            place = _relayed(self._containers.relays.endpoints.get(plugin_uid, ()), port)
            await asyncio.get_running_loop().sock_connect(door, place)
            yield Connected(door, relayed=True)

    async def usage(self, plugin_uid: str, slot: Slot) -> Usage | None:
        """Return what the kernel counts where the engine is on this host, else what the engine does."""
        held = self._containers.get(plugin_uid, slot)
        if held is None or held.ended.is_set() or not held.container:
            return None
        gauge = self._containers.groups.gauge(held.container)
        if gauge is not None:
            return gauge.read(time.time())
        if self.outage:
            return None
        try:
            found = await self._engine.call(
                self._engine.client.stats, held.container, stream=False, one_shot=True
            )
        except (Unavailable, errors.APIError):
            return None
        return usage_of(found)

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return the doors of one plugin's instances, or all."""
        found = {
            doorway: None
            for held in self._containers.of(plugin_uid)
            for own in held.doorways()
            for doorway in (own, *self._relayed_door(own))
        }
        return tuple(found)

    def _relayed_door(self, own: Doorway) -> tuple[Doorway, ...]:
        """Return the door of the relay through which a plugin's containers get out, beside one's own."""
        if own.door is not Door.EGRESS or self._containers.relays.doors(own.plugin_uid) is None:
            return ()
        return (replace(own, place=_RELAY, peer=RELAY_USER),)

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        """Return a door's listening sockets, or bind them anew."""
        relayed = self._containers.relays.doors(doorway.plugin_uid)
        if relayed is not None and doorway.place == _RELAY and doorway in self.doorways(doorway.plugin_uid):
            try:
                relayed.open()
            except OSError as error:
                raise Unavailable(f"cannot open the door of a relay: {error}") from error
            return relayed.listeners(doorway.door)
        for held in self._containers.of(doorway.plugin_uid):
            if doorway in held.doorways():
                try:
                    held.doors.open()
                except OSError as error:
                    raise Unavailable(f"cannot open a door of {held.instance.name}: {error}") from error
                return held.doors.listeners(doorway.door)
        return ()

    async def _settled(self, plugin_uid: str, slot: Slot) -> Held | None:
        """Return an instance once its start, if that is going on, is over.

        Raises:
            Unavailable: the engine does not answer.
        """
        self._answering()
        starting = self._starting.get((plugin_uid, slot))
        if starting is not None:
            await asyncio.wait({starting})
        return self._containers.get(plugin_uid, slot)

    def _started(self, key: tuple[str, Slot], task: asyncio.Task[Instance]) -> None:
        del self._starting[key]
        if task.cancelled() or task.exception() is not None:
            self._connection.look_again()  # the engine may have started it all the same

    def _held(self, plugin_uid: str, slot: Slot) -> Held:
        held = self._containers.get(plugin_uid, slot)
        if held is None:
            raise NotFound(f"no instance {slot} of plugin {plugin_uid}")
        return held

    def _answering(self) -> None:
        if self.outage:
            raise Unavailable(self.outage)

    def _tell(self, plugin_uid: str) -> None:
        self._changed(plugin_uid)

    def _tell_all(self) -> None:
        for plugin_uid in {held.instance.plugin_uid for held in self._containers.of(None)}:
            self._changed(plugin_uid)


def _relayed(endpoints: tuple[str, ...], port: int) -> tuple[str, int]:
    """Return where a relay takes connections to a port.

    Raises:
        Unsupported: it takes none to that one.
    """
    for endpoint in endpoints:
        inner, _, place = endpoint.partition(" at ")
        host, _, number = place.rpartition(":")
        if inner == str(port):
            return host, int(number)
    raise Unsupported(f"port {port} cannot be reached from here: add it to spec.capabilities.network.listen")
