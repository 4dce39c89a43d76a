"""Every container of this control plane: what is known of each, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from docker import errors

from crucible.errors import Conflict, CrucibleError, Unavailable
from crucible.model.instance import Exit, State
from crucible.runtimes.docker import held as translate
from crucible.runtimes.docker import labels as marks
from crucible.runtimes.docker.deaths import Deaths
from crucible.runtimes.docker.groups import Groups
from crucible.runtimes.docker.held import Held
from crucible.runtimes.docker.memory import Memory
from crucible.runtimes.docker.network import cut_off
from crucible.runtimes.docker.relays import Relays
from crucible.runtimes.docker.streams import lines_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from pathlib import Path

    from crucible.model.instance import Instance
    from crucible.model.workload import Slot
    from crucible.runtimes.docker.body import Image
    from crucible.runtimes.docker.deaths import Death
    from crucible.runtimes.docker.engine import Engine
    from crucible.runtimes.docker.events import Happened
    from crucible.runtimes.docker.settings import DockerSettings

_GONE: Final = frozenset({304, 404, 409})
"""Answers that mean it is so already: not modified, not there, not running."""
_END_SECONDS: Final = 10.0
_RESUMED_SECONDS: Final = 5.0
_RESUMED_LOOK: Final = 0.02

_log = logging.getLogger(__name__)


class Containers:
    """The registry, kept true by events and, after a gap, by a survey."""

    def __init__(
        self,
        engine: Engine,
        settings: DockerSettings,
        relay_image: Callable[[], Awaitable[Image]],
        changed: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._changed = changed
        self._held: dict[tuple[str, Slot], Held] = {}
        self._of: dict[str, dict[Slot, Held]] = {}
        self._by_container: dict[str, Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.groups = Groups(engine.url)
        self.deaths = Deaths(self.groups, self._died)
        self.memory = Memory(settings.memory, settings.control_plane)
        self.relays = Relays(
            engine,
            settings.control_plane,
            settings.state_dir / "relays",
            image=relay_image,
            needed=lambda plugin_uid: bool(self.of(plugin_uid)),
            changed=changed,
        )

    def get(self, plugin_uid: str, slot: Slot) -> Held | None:
        """Return an instance."""
        return self._held.get((plugin_uid, slot))

    def instances(self, plugin_uid: str | None) -> tuple[Instance, ...]:
        """Return what is known of them, oldest first."""
        relays = self.relays
        found = [
            replace(
                held.instance,
                endpoints=relays.endpoints.get(held.instance.plugin_uid, ()),
                reached=relays.routes.lead_to(held.instance.plugin_uid, held.instance.slot),
            )
            for held in self.of(plugin_uid)
        ]
        return tuple(sorted(found, key=lambda instance: instance.created_at))

    def of(self, plugin_uid: str | None) -> tuple[Held, ...]:
        """Return the instances of one plugin, or all."""
        if plugin_uid is None:
            return tuple(self._held.values())
        return tuple(self._of.get(plugin_uid, {}).values())

    def add(self, held: Held) -> None:
        """Take an instance in."""
        instance = held.instance
        self._held[instance.plugin_uid, instance.slot] = held
        self._of.setdefault(instance.plugin_uid, {})[instance.slot] = held

    def know(self, held: Held, container: str) -> None:
        """Note an instance's container. May be called from another thread: it stores two references."""
        held.container = container
        self._by_container[container] = held

    def drop(self, held: Held) -> None:
        """Forget an instance, and what is kept for it on this host."""
        self.let_go(held)
        self.memory.discard(held.instance.plugin_uid, held.instance.slot)
        shutil.rmtree(held.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            held.directory.parent.rmdir()

    def let_go(self, held: Held) -> None:
        """Forget an instance; what is kept for it stays until a survey finds no container of it."""
        instance = held.instance
        self._held.pop((instance.plugin_uid, instance.slot), None)
        siblings = self._of.get(instance.plugin_uid, {})
        siblings.pop(instance.slot, None)
        if not siblings:
            self._of.pop(instance.plugin_uid, None)
        self._by_container.pop(held.container, None)
        self.deaths.forget(held.container)
        self.groups.drop(held.container)
        held.doors.close()

    def directory(self, plugin_uid: str, slot: Slot) -> Path:
        """Return where an instance's files are."""
        return self._settings.state_dir / "instances" / plugin_uid / str(slot)

    def free_uid(self) -> int:
        """Return a user id that no other instance has.

        Raises:
            Unavailable: all are in use.
        """
        used = {held.uid for held in self._held.values()}
        base = self._settings.first_uid
        for uid in range(base, base + self._settings.uid_count):
            if uid not in used:
                return uid
        raise Unavailable(f"all {self._settings.uid_count} user ids for plugins are in use")

    def came_up(self, held: Held) -> None:
        """Note that it runs, unless its end was heard of first."""
        if not held.ended.is_set() and held.instance.state is State.STARTING:
            held.become(State.RUNNING)
            self.deaths.watch(held.container)
            self._changed(held.instance.plugin_uid)

    def conclude(self, held: Held, how: Exit) -> None:
        """Note how it ended, by what the engine says."""
        held.told.set()
        self.deaths.forget(held.container)
        held.end(how)
        self._changed(held.instance.plugin_uid)

    async def until_told(self, held: Held) -> None:
        """Wait until the engine, too, knows of an end; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await held.told.wait()

    def hear(self, event: Happened) -> bool:
        """Take one event of the engine; return False where only a survey can tell what it means."""
        held = self._by_container.get(event.container)
        if held is None:
            # A relay came up or went, or an instance that a lost answer or a survey under way left out.
            return event.kind not in {"start", "die"} or (event.role == "relay" and self.relays.busy)
        match event.kind:
            case "oom":
                held.went_over()
                self._changed(held.instance.plugin_uid)
            case "die" | "destroy" if held.ended.is_set():
                held.told.set()  # the kernel told of the end itself
            case "die":
                self._spawn(self._bury(held, event))
            case "destroy":
                self.conclude(held, Exit(at=event.at, problem="its container was removed by someone else"))
            case _:
                pass
        return True

    async def close(self) -> None:
        """Wait for what is being looked at."""
        self.relays.close()
        self.deaths.close()
        for held in self._held.values():
            held.doors.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.groups.close()

    async def survey(self) -> None:
        """Find out what there is: adopt, bury, clear away. Told from what is being started right now."""
        known = {key for key, held in self._held.items() if held.container}
        found: set[tuple[str, Slot]] = set()
        entries = await self._engine.call(
            self._engine.client.containers,
            all=True,
            filters={"label": f"{marks.CONTROL_PLANE}={self._settings.control_plane}"},
        )
        instances = [entry for entry in entries if entry["Labels"].get(marks.ROLE) == "instance"]
        for entry in instances:
            key = await self._adopt(entry)
            if key is not None:
                found.add(key)
        for key in known - found:
            held = self._held.get(key)
            if held is not None and not held.told.is_set():
                self.conclude(held, Exit(at=time.time(), problem="its container was removed by someone else"))
        self._clear_directories()
        networks = await self.relays.survey()
        for entry in instances:
            if cut_off(entry, networks):
                self._spawn(self._end_doomed(entry["Id"], "its network was removed by someone else"))

    async def signal(self, held: Held, name: str) -> None:
        """Send a signal to the container's init process; one that has ended takes none.

        Raises:
            Unavailable: the engine does not answer.
        """
        await self._quietly(self._engine.client.kill, held.container, name)

    async def freeze(self, held: Held) -> None:
        """Pause a container; one that is paused is left alone.

        Raises:
            Unavailable: the engine does not answer, or cannot.
        """
        try:
            await self._engine.call(self._engine.client.pause, held.container)
        except errors.APIError as error:
            if not await self._paused(held):
                raise Unavailable(f"{held.instance.name} cannot be frozen: {error.explanation}") from error
        held.note_frozen(still=True)

    async def thaw(self, held: Held) -> None:
        """Let a paused container go on; one that is not paused does.

        Raises:
            Unavailable: the engine does not answer, or cannot.
        """
        if not held.instance.frozen:
            return
        try:
            await self._engine.call(self._engine.client.unpause, held.container)
        except errors.APIError as error:
            if not await self._goes_on(held):
                raise Unavailable(f"{held.instance.name} cannot be thawed: {error.explanation}") from error
        held.note_frozen(still=False)

    async def _goes_on(self, held: Held) -> bool:
        """Whether it is not paused: an engine resumes by itself what it stops, and says so a little later."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _RESUMED_SECONDS
        while await self._paused(held):
            if loop.time() >= until:
                return False
            await asyncio.sleep(_RESUMED_LOOK)
        return True

    async def _paused(self, held: Held) -> bool:
        try:
            found = await self._engine.call(self._engine.client.inspect_container, held.container)
        except errors.NotFound:
            return False
        return bool(found["State"].get("Paused"))

    async def kill(self, held: Held) -> None:
        """Kill the whole container, and wait for its end.

        Raises:
            Unavailable: the engine does not answer, or cannot end it.
        """
        if held.ended.is_set():
            return
        held.killed = True
        await self.signal(held, "SIGKILL")
        await self.thaw(held)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await held.ended.wait()
        except TimeoutError:
            await self._look_at_end(held)
        if not held.ended.is_set():
            raise Unavailable(f"the Docker engine does not end {held.instance.name}: look at its log")

    async def remove(self, held: Held) -> None:
        """Delete a container and forget it; kill it first if it is alive.

        Raises:
            Unavailable: the engine does not answer.
        """
        await self.kill(held)
        await self.until_told(held)
        await self.discard(held)
        self.drop(held)
        await self.relays.remove(held.instance.plugin_uid)

    async def discard(self, held: Held) -> None:
        """Delete a container, if there is one, and keep what is known of the instance."""
        if held.container:
            await self._quietly(self._engine.client.remove_container, held.container, force=True, v=True)

    async def clear_name(self, name: str) -> None:
        """Delete the container of a name we need, if it is ours: what a start that was cut off left.

        Raises:
            Conflict: it is not ours.
        """
        found = await self._engine.call(self._engine.client.inspect_container, name)
        labels = found["Config"].get("Labels") or {}
        if marks.slot_of(labels, found["Name"], self._settings.control_plane) is None:
            raise Conflict(f"a container that is not ours is named {name}: rename or remove it")
        await self._quietly(self._engine.client.remove_container, found["Id"], force=True, v=True)

    async def _adopt(self, entry: Mapping[str, Any]) -> tuple[str, Slot] | None:
        """Take in one listed container; return which instance it is, None where it is none."""
        labels = entry["Labels"]
        slots = [marks.slot_of(labels, name, self._settings.control_plane) for name in entry["Names"]]
        slot = next((slot for slot in slots if slot is not None), None)
        if slot is None:
            _log.warning("container %s bears our labels and is not ours: it is left alone", entry["Names"])
            return None
        key = (labels[marks.PLUGIN_UID], slot)
        held = self._held.get(key)
        if held is not None and held.container != entry["Id"]:
            return key  # it is being started right now
        if entry["State"] == "created" and (held is None or not held.ended.is_set()):
            if held is None:  # of a start that was cut off: it never ran
                await self._quietly(self._engine.client.remove_container, entry["Id"], force=True, v=True)
            return key
        taken_over = held is None
        if held is None:
            held = self._take_over(entry, slot)
        if taken_over or entry["State"] in {"exited", "dead"}:
            # A list can be older than an end that was told before anyone listened; this is not.
            await self._look_at_end(held)
        self.came_up(held)
        if not held.ended.is_set():
            self.deaths.watch(held.container)
        if not held.directory.is_dir():
            self._spawn(self._end_doomed(entry["Id"], "what it is shown of this host is gone"))
        return key

    def _take_over(self, entry: Mapping[str, Any], slot: Slot) -> Held:
        """Begin to hold a container that an earlier controller made."""
        labels = entry["Labels"]
        uid = labels.get(marks.UID, "")
        held = Held(
            translate.listed_instance(entry, slot),
            int(uid) if uid.isdecimal() else 0,
            self.directory(labels[marks.PLUGIN_UID], slot),
            names=marks.doors_of(labels),
        )
        held.recall_stopping()
        held.recall_config()
        held.note_frozen(still=entry["State"] == "paused")
        self.add(held)
        self.know(held, entry["Id"])
        self._changed(held.instance.plugin_uid)
        return held

    async def _look_at_end(self, held: Held) -> None:
        """Ask the engine how a container ended, where no event told."""
        if held.ended.is_set():
            held.told.set()
            return
        try:
            found = await self._engine.call(self._engine.client.inspect_container, held.container)
        except errors.NotFound:
            self.conclude(held, Exit(at=time.time(), problem="its container was removed by someone else"))
            return
        if not found["State"].get("Running"):
            self.conclude(held, await self._explained(held, translate.exit_of_inspection(found, time.time())))

    async def _end_doomed(self, container: str, why: str) -> None:
        """End an instance that is of no use any more; the next survey tries again where that fails."""
        held = self._by_container.get(container)
        if held is None or held.ended.is_set():
            return
        held.fate = why
        try:
            await self.kill(held)
        except CrucibleError as error:
            _log.warning("%s cannot be ended yet, though %s: %s", held.instance.name, why, error)

    def _died(self, container: str, death: Death) -> None:
        """Note an end of which the kernel told; the engine will."""
        held = self._by_container.get(container)
        if held is not None and not held.ended.is_set():
            held.end(translate.exit_of_code(death.code, time.time(), oom=held.oom or death.oom))
            self._changed(held.instance.plugin_uid)

    async def _bury(self, held: Held, event: Happened) -> None:
        """Note an end that was heard of; ask why where the event does not say."""
        how = translate.exit_of_code(event.code, event.at, oom=held.oom)
        self.conclude(held, await self._explained(held, how))

    async def _explained(self, held: Held, how: Exit) -> Exit:
        """Tell a program that could not be executed from one that ended with such a code by itself."""
        if how.code is None or not translate.may_be_init(how.code):
            return how
        try:
            raw = await self._engine.call(
                self._engine.client.logs, held.container, stream=False, timestamps=True, tail=1
            )
        except (CrucibleError, errors.APIError):
            return how
        problem = translate.init_problem(next((line.text for line in lines_of([raw])), b""))
        return Exit(at=how.at, problem=problem) if problem else how

    async def _quietly(self, function: Callable[..., object], *arguments: object, **options: object) -> None:
        """Ask for what may be so already.

        Raises:
            Unavailable: the engine does not answer, or refuses for another reason.
        """
        try:
            await self._engine.call(function, *arguments, **options)
        except errors.APIError as error:
            if error.status_code not in _GONE:
                raise Unavailable(f"the Docker engine refuses: {error.explanation}") from error

    def _clear_directories(self) -> None:
        """Delete what was kept for instances that are no more."""
        kept = {held.directory for held in self._held.values()}
        self.memory.sweep({(uid, str(slot)) for uid, slot in self._held})
        top = self._settings.state_dir / "instances"
        for plugin in top.iterdir() if top.is_dir() else ():
            for directory in plugin.iterdir():
                if directory not in kept:
                    shutil.rmtree(directory, ignore_errors=True)
            with contextlib.suppress(OSError):
                plugin.rmdir()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
