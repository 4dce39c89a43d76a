"""Keeps whoever is behind the doors told, of every Plugin; and the host application's own door.

Behind the doors are the bus and the way out. What a Plugin may do there follows from its manifest alone
(``core.bus``, ``core.egress``); this only carries it, and carries back what there is to say of a Plugin.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import uuid
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible.bus import asking
from crucible.bus.liaison import Liaison
from crucible.bus.linedoor import LineDoor
from crucible.companions import starting
from crucible.companions.companion import Companion
from crucible.companions.crew import Crew
from crucible.companions.starting import Program
from crucible.core.bus import member_of, refusal_event
from crucible.core.cloudevents import cloud_event, subject_of
from crucible.core.egress import denial_event, grant_of
from crucible.errors import CrucibleError, Unavailable
from crucible.model.backbone import LINES
from crucible.model.bus import HOST
from crucible.model.decision import Event
from crucible.model.door import Door, Doorway
from crucible.model.usage import Traffic
from crucible.runtimes.doors import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from crucible.model.backbone import Joining
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.status import PluginStatus
    from crucible.model.workload import Slot
    from crucible.ports import Voice
    from crucible.runtimes.base import Runtime
    from crucible.settings import Places


_SPOKEN: Final = {"bus": "broker", "egress": "egress proxy"}

log = logging.getLogger(__name__)


class Doorkeeper:
    """Keeps broker and egress proxy running while something needs them, and told."""

    def __init__(
        self,
        runtime: Runtime,
        places: Places,
        control_plane: str,
        *,
        host_always: bool = False,
        seal: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Begin with nobody.

        Args:
            runtime: knows the instances and their doors.
            places: where the broker keeps its things.
            control_plane: whose broker it is.
            host_always: the host application is served even when no plugin uses the bus.
            seal: returns the certificate and key with which the broker shows who it is.
        """
        of = programs(places, control_plane)
        self._entrances = Entrances(runtime, places, always=host_always)
        self._runtime = runtime
        self._seal = seal
        self._bus = Companion(of[Door.BUS], Door.BUS, self._entrances, self._hear)
        self._egress = Companion(of[Door.EGRESS], Door.EGRESS, runtime, self._denied)
        self._bus.troubled = lambda: self._troubled(Door.BUS)
        self._egress.troubled = lambda: self._troubled(Door.EGRESS)
        self._logs = {door: program.log for door, program in of.items()}
        self._crew = Crew({Door.BUS: self._bus, Door.EGRESS: self._egress})
        self.liaison = Liaison(self._bus, self._noticed)
        self.liaison.refused = self._refused
        self._ring: Callable[[str], None] = lambda _: None
        self._say: Callable[[str, Event], None] = lambda _, __: None
        self._missing: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(
        self, ring: Callable[[str], None], say: Callable[[str, Event], None] = lambda _, __: None
    ) -> None:
        """Begin; the runtime must be open.

        Args:
            ring: wakes the loop of a Plugin, by uid.
            say: records an event of a Plugin, by uid.
        """
        self._ring, self._say = ring, say
        self._crew.open()
        self._spawn(self.liaison.keep())

    @property
    def serves(self) -> bool:
        """The broker runs."""
        return self._bus.running

    @property
    def shut(self) -> str:
        """Why other machines cannot come to the broker directly though they may; empty: they can."""
        return self._entrances.lines.problem

    async def close(self) -> None:
        """Let go. The broker goes on."""
        await self._crew.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def attend(self, identity: Identity, spec: PluginSpec | None, status: PluginStatus) -> None:
        """Say what a Plugin may do now, and how it is."""
        member = member_of(identity, spec, status)
        self.liaison.know(member)
        out = {} if spec is None else grant_of(spec)
        bus = {"grants": asdict(member.grants), **self._sealed(identity.uid, spec)}
        self._crew.grant(identity.uid, {Door.BUS: bus, Door.EGRESS: out})

    def _sealed(self, plugin_uid: str, spec: PluginSpec | None) -> Mapping[str, Any]:
        """Return how the broker shows who it is, where an instance's door speaks TLS, or will."""
        asked = spec is not None and spec.capabilities.bus.encrypt_local
        if not asked and not any(way.tls for way in self._runtime.doorways(plugin_uid)):
            return {}
        try:
            return {"tls": self._seal()}
        except CrucibleError as error:
            log.warning("nobody can come through encrypted doors: %s", error)
            return {}

    def join(self, joining: Joining | None) -> None:
        """Say how other machines are reached, and let them in where they may come directly."""
        self.liaison.join(joining)
        if self._entrances.lines.move(joining):
            self._bus.refresh(LINES)

    async def configure(self, plugin_uid: str, slot: Slot, config: str) -> str:
        """Call an instance on the bus with its new configuration.

        Raises:
            Unavailable: it, or a broker, cannot be called now.
        """
        return await asking.configure(self.liaison, plugin_uid, slot, config)

    async def open_calls(self, plugin_uid: str, slots: Sequence[Slot]) -> Mapping[int, int | None]:
        """Ask how many calls instances have that are given no new ones; None where nobody can say."""
        return await asking.open_calls(self.liaison, plugin_uid, slots)

    def forget(self, plugin_uid: str) -> None:
        """Say that a Plugin is gone."""
        self.liaison.forget(plugin_uid)
        self._crew.forget(plugin_uid)

    def refresh(self, plugin_uid: str) -> None:
        """Say that one of a Plugin's instances came up or ended."""
        self._crew.refresh(plugin_uid)
        self._crew.refresh(HOST)

    def notices(self, plugin_uid: str) -> tuple[str, ...]:
        """Return what the broker has to say of a Plugin."""
        return self.liaison.notices(plugin_uid)

    def lacks(self, plugin_uid: str) -> tuple[str, ...]:
        """Return which companions a Plugin has to do without, and why."""
        doors = {way.door for way in self._runtime.doorways(plugin_uid)}
        return tuple(words for door in sorted(doors) if (words := self._trouble(door)))

    async def traffic(self) -> Mapping[str, Traffic]:
        """Return what went through the egress proxy, by Plugin; nothing where it does not run."""
        if not self._egress.running:
            return {}
        try:
            figures = await self._egress.figures()
        except Unavailable:  # it goes just now
            return {}
        names = [field.name for field in fields(Traffic)]
        return {str(each["uid"]): Traffic(**{name: int(each[name]) for name in names}) for each in figures}

    async def compare(self, uids: Collection[str]) -> None:
        """Forget every Plugin that is not among all there are, and the stores that go with theirs.

        One that came after the list was made is not on it either: it is gone when it is missing twice.
        """
        self.liaison.expect(uids)
        missing = self.liaison.uids() - set(uids)
        for uid in missing & self._missing:
            self.forget(uid)
        self._missing = missing
        try:
            await self.liaison.keep_stores(self.liaison.uids() | set(uids))
        except Unavailable:  # it does not run: the next sweep that finds it running says so again
            return

    def publish(self, identity: Identity, event: Event, now: float) -> None:
        """Publish an event to whoever listens; where no broker runs, nobody does."""
        body = cloud_event(identity, event, str(uuid.uuid4()), now)
        self._spawn(self._publish(identity.namespace, subject_of(identity, event), body))

    async def _publish(self, namespace: str, subject: str, body: Mapping[str, Any]) -> None:
        try:
            await self.liaison.publish(namespace, subject, body)
        except Unavailable:  # the same is a Kubernetes Event, which is not lost
            return

    def _hear(self, words: Mapping[str, Any]) -> None:
        self.liaison.hear(words)

    def _denied(self, words: Mapping[str, Any]) -> None:
        """Hear that a plugin was refused a way out; the proxy says each only once in a while."""
        event = denial_event(words)
        log.warning("%s/%s: %s", words.get("namespace"), words.get("plugin"), event.message)
        self._say(str(words.get("pluginUid", "")), event)

    def _refused(self, plugin_uid: str, what: str) -> None:
        """Hear that a plugin was refused something on the bus; the broker says each only once in a while."""
        self._say(plugin_uid, refusal_event(what))

    def _trouble(self, door: Door) -> str:
        """Return what people are told of a companion that does not run; empty where it does."""
        words = {Door.BUS: self._bus, Door.EGRESS: self._egress}[door].trouble
        return (
            f"the {_SPOKEN[door]} does not run as it should: {words}; its log is {self._logs[door]}"
            if words
            else ""
        )

    def _troubled(self, door: Door) -> None:
        """Tell every Plugin that needs a companion that it does not run, or does again."""
        words = self._trouble(door)
        again = Event("Normal", "CompanionServes", f"the {_SPOKEN[door]} serves again")
        event = Event("Warning", "CompanionFailed", words) if words else again
        uids = {way.plugin_uid for way in self._runtime.doorways() if way.door is door}
        for uid in sorted(uids):
            self._say(uid, event)
            self._ring(uid)

    def _noticed(self, plugin_uid: str) -> None:
        self._ring(plugin_uid)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def programs(places: Places, control_plane: str) -> dict[Door, Program]:
    """Return what serves each kind of door."""
    python = (sys.executable, "-I", "-m")
    return {
        Door.BUS: Program("bus", (*python, "crucible.bus"), places.bus, control_plane, keeps=True),
        Door.EGRESS: Program("egress", (*python, "crucible.egress"), places.egress, control_plane),
    }


def broker_runs(places: Places, control_plane: str) -> bool:
    """Return whether the broker of a control plane runs, be that stopped or not."""
    found = starting.reach(programs(places, control_plane)[Door.BUS])
    if found is None:
        return False
    found.one.close()
    if found.pidfd is not None:
        os.close(found.pidfd)
    return True


async def end_companions(places: Places, control_plane: str, told: Callable[[str], None]) -> None:
    """End whatever serves doors; the controller and all instances are gone.

    Args:
        places: the state folder.
        control_plane: whose companions.
        told: called with what is going on, for people.

    Raises:
        Unavailable: something does not end.
    """
    for program in programs(places, control_plane).values():
        found = starting.reach(program)
        if found is None:
            continue
        found.one.close()
        if found.pidfd is not None:
            told(f"stopping the {_SPOKEN[program.name]}")
            try:
                await starting.kill(found.pidfd)
            finally:
                os.close(found.pidfd)


class Entrances:
    """The doors of all instances, one more for the host application, and one for other machines."""

    def __init__(self, runtime: Runtime, places: Places, *, always: bool) -> None:
        self._runtime = runtime
        self._places = places
        self._always = always
        self._host = Doorway(Door.BUS, "", HOST, HOST, "host", os.geteuid())
        self.lines = LineDoor()

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return the doors of one plugin's instances, or of all; ours while they lead somewhere."""
        if plugin_uid not in (None, HOST, LINES):
            return self._runtime.doorways(plugin_uid)
        ways = self._runtime.doorways()
        needed = self._always or any(way.door is Door.BUS for way in ways)
        ours = (self._host, *self.lines.doorways()) if needed else ()
        if plugin_uid is not None:
            return tuple(way for way in ours if way.plugin == plugin_uid)
        return (*ways, *ours)

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        """Return duplicates of a door's listening sockets; ours are bound anew."""
        if doorway.plugin == LINES:
            return self.lines.listeners()
        if doorway.plugin != HOST:
            return await self._runtime.listeners(doorway)
        self._places.host.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return (bind(self._places.host, Door.BUS),)
        except OSError as error:
            raise Unavailable(f"cannot open the host application's door to the bus: {error}") from error


class Publisher(Protocol):
    """Tells the bus."""

    def publish(self, identity: Identity, event: Event, now: float) -> None:
        """Publish an event to whoever listens."""


class TellingVoice:
    """A voice whose events are heard on the bus too."""

    def __init__(self, voice: Voice, doorkeeper: Publisher, now: Callable[[], float]) -> None:
        self._voice = voice
        self._doorkeeper = doorkeeper
        self._now = now

    async def report(self, identity: Identity, status: PluginStatus) -> None:
        """Replace the Plugin's status."""
        await self._voice.report(identity, status)

    async def tell(self, identity: Identity, event: Event) -> None:
        """Record an event, and publish it."""
        self._doorkeeper.publish(identity, event, self._now())
        await self._voice.tell(identity, event)

    async def hold(self, identity: Identity) -> None:
        """Keep the Plugin from disappearing."""
        await self._voice.hold(identity)

    async def release(self, identity: Identity) -> None:
        """Let the Plugin disappear."""
        await self._voice.release(identity)
