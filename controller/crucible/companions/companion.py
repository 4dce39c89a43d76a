"""One companion, as the controller keeps it: running while something needs it, and told what it serves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible import __version__
from crucible.companions import starting
from crucible.companions.link import Link
from crucible.errors import CrucibleError, Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from crucible.companions.starting import Found, Program
    from crucible.model.door import Door, Doorway

_RETRY_FIRST: Final = 0.1
_RETRY_LONGEST: Final = 10.0
_TROUBLE: Final = 3
"""Failures in a row that people are told of: fewer pass by themselves."""
_PAGES_MOST: Final = 1000

log = logging.getLogger(__name__)


class Doorways(Protocol):
    """What a companion needs of a runtime."""

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return the doors of one plugin's instances that may run, or of all."""
        ...

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        """Return duplicates of a door's listening sockets."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What the companion was told last of a door; no grant: it held the door before this controller came."""

    doorway: Doorway | None = None
    grant: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the controller is with a companion.

    Attributes:
        beat: seconds between two looks whether it still answers.
        answer: seconds it has to answer anything.
        linger: seconds for which it stays when nothing needs it.
        calm: seconds for which it has to stay before it counts as one that does.
    """

    beat: float = 10.0
    answer: float = 30.0
    linger: float = 10.0
    calm: float = 60.0


class Companion:
    """Keeps one companion. ``keep`` does the work; the other verbs say what is wanted and wake it."""

    def __init__(
        self,
        program: Program,
        door: Door,
        runtime: Doorways,
        heard: Callable[[Mapping[str, Any]], None],
        pace: Pace = Pace(),
    ) -> None:
        """Begin with nothing to do.

        Args:
            program: what to run.
            door: the doors it serves.
            runtime: who knows of instances and their doors.
            heard: called with what the companion tells by itself.
            pace: how long it waits for what.
        """
        self.trouble = ""
        """Why those who need it have to do without for longer than a moment; empty while they have it."""
        self.troubled: Callable[[], None] = lambda: None
        """Called when ``trouble`` is another."""
        self.problem = ""
        """Why it does not run although something needs it; empty while it does."""
        self._program = program
        self._door = door
        self._runtime = runtime
        self._heard = heard
        self._pace = pace
        self._grants: dict[str, Mapping[str, Any]] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._link: Link | None = None
        self._pidfd: int | None = None
        self._told: dict[str, dict[str, Told]] = {}
        self._ends: list[float] = []
        self._ending = False
        self._hello: asyncio.Future[Mapping[str, Any]] | None = None
        self._questions: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._numbers = itertools.count(1)

    @property
    def running(self) -> bool:
        """Whether it runs and is told what is new."""
        return self._link is not None

    def grant(self, plugin_uid: str, grant: Mapping[str, Any]) -> None:
        """Say what a plugin may do behind its doors; empty: nothing.

        Until this is said once, a door that the companion holds from before keeps the grant it has, and a new
        one has none.
        """
        if grant != self._grants.get(plugin_uid):
            self._grants[plugin_uid] = grant
            self.refresh(plugin_uid)

    def forget(self, plugin_uid: str) -> None:
        """Say that a plugin is gone."""
        self._grants.pop(plugin_uid, None)

    def refresh(self, plugin_uid: str) -> None:
        """Say that a plugin's instances, or what it may do, changed."""
        if plugin_uid in self._told or self._doorways(plugin_uid):
            self._dirty.add(plugin_uid)
            self._wake.set()

    async def ask(self, words: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the companion something.

        Raises:
            Unavailable: it does not run, or does not answer.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            async with asyncio.timeout(self._pace.answer):
                await self._send({"ask": number, "words": words})
                return await answer
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"the companion {self._program.name} does not answer") from error
        finally:
            self._questions.pop(number, None)

    async def keep(self) -> None:
        """Keep the companion as it should be, for ever; cancelled, the companion goes on."""
        failures = 0
        try:
            while True:
                try:
                    await self._turn()
                except Exception as error:  # a boundary: this outlives any fault
                    failures += 1
                    self.problem = str(error) or type(error).__name__
                    foreseen = isinstance(error, CrucibleError | OSError)
                    log.warning(
                        "companion %s: %s",
                        self._program.name,
                        self.problem,
                        exc_info=None if foreseen else error,
                    )
                    self._let_go()
                    self._note_trouble(self.problem if failures >= _TROUBLE else self.trouble)
                    await asyncio.sleep(min(_RETRY_FIRST * 2.0 ** (failures - 1), _RETRY_LONGEST))
                else:
                    failures = 0
                    self.problem = ""
                    ends = self._ends_lately()
                    self._note_trouble(self._restless(ends))
                    if self._link is None and ends > _TROUBLE:  # a start costs more than a moment without it
                        await asyncio.sleep(min(_RETRY_FIRST * 2.0 ** (ends - _TROUBLE), _RETRY_LONGEST))
        finally:
            self._let_go()

    async def figures(self) -> list[Mapping[str, Any]]:
        """Return all that it counted.

        Raises:
            Unavailable: it does not run, or does not answer.
        """
        found: list[Mapping[str, Any]] = []
        for _ in range(_PAGES_MOST):
            answer = await self.ask({"figures": len(found)})
            found += answer["figures"]
            if not answer["more"]:
                break
        return found

    def _ends_lately(self) -> int:
        """Return how often it ended by itself within the time in which it should have stayed."""
        since = asyncio.get_running_loop().time() - self._pace.calm
        self._ends = [at for at in self._ends if at > since]
        return len(self._ends)

    def _restless(self, ends: int) -> str:
        """Say that it serves and ends again and again; empty where it does not."""
        if ends < _TROUBLE:
            return ""
        # In words that stay while it goes on: each other word would be told anew.
        return f"it ends by itself again and again, {_TROUBLE} times or more within {self._pace.calm:g} s"

    def _note_trouble(self, words: str) -> None:
        if words != self.trouble:
            self.trouble = words
            self.troubled()

    async def _turn(self) -> None:
        """Start, find or end it, tell it what is new, wait."""
        if self._link is None:
            found = starting.reach(self._program)
            if found is None and not self._wanted():
                await self._wait(None)
                return
            await self._open(found or await starting.start(self._program))
        await self._sync()
        wanted = self._wanted()
        if await self._wait(self._pace.beat if wanted else self._pace.linger) or self._link is None:
            return
        if wanted:
            await self._beat()
        elif not self._wanted():
            await self._end()

    def _wanted(self) -> bool:
        return bool(self._doorways())

    def _doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return the doors that this companion serves."""
        return tuple(one for one in self._runtime.doorways(plugin_uid) if one.door == self._door)

    async def _wait(self, seconds: float | None) -> bool:
        """Wait until something is new; False when nothing was within this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _open(self, found: Found) -> None:
        """Meet a companion; one of another release is ended, and the next turn starts ours."""
        self._pidfd = found.pidfd
        self._ending = False
        self._told = {}
        self._hello = asyncio.get_running_loop().create_future()
        self._link = Link(found.one, self._hear, self._lost)
        try:
            async with asyncio.timeout(self._pace.answer):
                hello = await self._hello
        except TimeoutError:
            hello = {}
        if hello.get("version") != __version__:
            await self._kill()
            raise Unavailable("the one that ran was of another release, or did not answer: it was ended")
        self._dirty = {*self._told, *(one.plugin_uid for one in self._doorways())}
        log.info("companion %s serves", self._program.name)

    async def _sync(self) -> None:
        """Tell the companion what it does not know yet."""
        dirty, self._dirty = self._dirty, set()
        for plugin_uid in sorted(dirty):
            here = {one.key: one for one in self._doorways(plugin_uid)}
            told = self._told.setdefault(plugin_uid, {})
            for key in told.keys() - here.keys():
                await self._send({"dismiss": key})
                del told[key]
            for doorway in here.values():
                try:
                    await self._admit(told, doorway)
                except CrucibleError as error:
                    log.warning("a door of %s: %s", doorway.plugin, error)
                    self._dirty.add(plugin_uid)  # at the next beat
            if not told:
                del self._told[plugin_uid]

    async def _admit(self, told: dict[str, Told], doorway: Doorway) -> None:
        before, grant = told.get(doorway.key), self._grants.get(doorway.plugin_uid)
        now = Told(doorway, {} if grant is None else grant)
        if before == now or (before is not None and grant is None):
            return
        listeners = () if before is not None else await self._runtime.listeners(doorway)
        try:
            if before is not None or listeners:
                await self._send({"admit": asdict(doorway), "grant": now.grant}, listeners)
                told[doorway.key] = now
        finally:
            for one in listeners:
                one.close()

    async def _send(self, packet: Mapping[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
        if self._link is None:
            raise BrokenPipeError(f"the companion {self._program.name} is gone")
        await self._link.send(packet, sockets)

    async def _beat(self) -> None:
        """Find out whether it still answers; one that hangs is ended."""
        try:
            await self.ask({})
        except Unavailable:
            await self._kill()
            raise

    async def _end(self) -> None:
        """End a companion that nothing needs."""
        self._ending = True
        with contextlib.suppress(OSError):
            await self._send({"end": True})
            if self._pidfd is not None:
                await starting.gone(self._pidfd, self._pace.answer)
        await self._kill()
        log.info("companion %s ended: nothing needs it", self._program.name)

    async def _kill(self) -> None:
        pidfd, self._pidfd = self._pidfd, None
        self._let_go()
        if pidfd is not None:
            try:
                await starting.kill(pidfd)
            finally:
                os.close(pidfd)

    def _let_go(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        for answer in (*self._questions.values(), *([self._hello] if self._hello else [])):
            if not answer.done():
                answer.set_exception(Unavailable(f"the companion {self._program.name} is gone"))
        self._questions.clear()

    def _lost(self) -> None:
        if not self._ending:
            log.warning("companion %s is gone", self._program.name)
            self._ends.append(asyncio.get_running_loop().time())
        self._let_go()
        self._wake.set()

    def _hear(self, packet: Mapping[str, Any], sockets: tuple[socket.socket, ...]) -> None:
        for one in sockets:
            one.close()
        match packet:
            case {"serves": list(keys)}:
                for key in keys:
                    self._told.setdefault(str(key).partition("/")[0], {})[key] = Told()
            case {"hello": dict(hello)} if self._hello is not None and not self._hello.done():
                self._hello.set_result(hello)
            case {"answer": int(number), "words": dict(words)}:
                answer = self._questions.get(number)
                if answer is not None and not answer.done():  # it may come when nobody waits for it any more
                    answer.set_result(words)
            case {"tell": dict(words)}:
                self._heard(words)
            case _:
                log.warning("companion %s says what is not understood", self._program.name)
