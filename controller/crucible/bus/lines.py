"""The operator's lines to the brokers of a cluster, at the operator's end: one to each that there is."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crucible.bus.alive import watch
from crucible.bus.host import Client, Streams
from crucible.bus.line import ASK, NOTICES
from crucible.bus.wire import Code
from crucible.errors import CrucibleError, Unavailable
from crucible.model.door import Door

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

log = logging.getLogger(__name__)

_CONNECT: Final = 10.0
_ANSWER: Final = 5.0
"""Seconds for a broker to do what is no call to a plugin."""
_PLUGINS: Final = 0.9
"""Of the time of a call, what the plugin has."""
_BROKERS: Final = 0.98
"""Of the same, when a broker has to have said how it ended: one that hangs is no plugin that does."""
_RETRY_FIRST: Final = 0.2
_RETRY_LONGEST: Final = 5.0
_ON_THE_WAY: Final = 10.0
"""Seconds after a broker came or went in which who was connected to it may be on the way to another."""
_SILENT: Final = (5, 3, 3)
"""A broker whose node is gone says nothing of it: after 14 seconds it counts as gone."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker is."""

    host: str
    port: int


class Lines:
    """Connected to every broker, as long as this process may act. ``keep`` does the work."""

    def __init__(
        self,
        trust: Callable[[], Awaitable[str]],
        may: Callable[[], bool],
        hear: Callable[[Mapping[str, Any]], None] = lambda _: None,
        changed: Callable[[], None] = lambda: None,
        on_the_way: float = _ON_THE_WAY,
    ) -> None:
        """Begin with no broker.

        Args:
            trust: returns the certificates of who vouches for brokers, in PEM.
            may: whether this process leads still; asked before each word.
            hear: called with what a broker has to say of a plugin.
            changed: called when :attr:`trouble` may have changed.
            on_the_way: seconds after a broker came or went in which nobody counts as not connected.
        """
        self._trust = trust
        self._may = may
        self._hear = hear
        self._changed = changed
        self._on_the_way = on_the_way
        self._open: dict[Place, Client] = {}
        self._kept: frozenset[Place] = frozenset()
        self._problems: dict[Place, str] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._moved = -math.inf

    @property
    def trouble(self) -> str:
        """Why not every broker that there is can be spoken to; empty while each can."""
        if not self._tasks:
            return "no broker is there"
        return next((self._problems[place] for place in self._tasks if place in self._problems), "")

    def become(self, places: Collection[Place], kept: Collection[Place] = ()) -> None:
        """Speak to these brokers, and no others.

        Args:
            places: where they are.
            kept: where one lets in nobody new: it still has those who came before, and what it knows of them
                nobody else does. A line that stands there stays until it falls; none is begun.
        """
        self._kept = frozenset(kept).difference(places)
        for place in tuple(self._tasks):
            if place not in places and not (place in self._kept and place in self._open):
                self._tasks[place].cancel()
                self._leave(place)
        for place in places:
            if place not in self._tasks:
                self._problems[place] = "it was not reached yet"
                self._begin(place)
        self._changed()

    def _leave(self, place: Place) -> None:
        """Be done with a broker; its task ends by itself, or was cancelled."""
        self._tasks.pop(place, None)
        self._problems.pop(place, None)
        if self._open.pop(place, None) is not None:
            self._moved = asyncio.get_running_loop().time()

    def _begin(self, place: Place, pause: float = 0.0) -> None:
        task = asyncio.get_running_loop().create_task(self._hold(place, pause))
        task.add_done_callback(partial(self._over, place))
        self._tasks[place] = task

    def _over(self, place: Place, task: asyncio.Task[None]) -> None:
        """Begin anew what nobody foresaw the end of; what was cancelled has ended as it should."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self._tasks.get(place) is task:
            log.error("the line to %s failed", place.host, exc_info=error)
            self._say(place, f"the line to the broker at {place.host} failed: {error}")
            self._begin(place, _RETRY_LONGEST)

    async def close(self) -> None:
        """Hang up."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(self, key: str, method: str, payload: str, seconds: float) -> tuple[str, str]:
        """Call a method of the instance behind a door; return the code of an error and the text.

        Raises:
            Unavailable: a broker cannot be asked, and the instance may be connected to it; or it may still be
                on its way to one.
        """
        left = int(seconds * _PLUGINS * 1000)
        words = {"call": key, "method": method, "payload": payload, "milliseconds": left}
        loop = asyncio.get_running_loop()
        asking = [loop.create_task(self._ask(bus, words, seconds)) for bus in self._all()]
        code, text, problem = "", "", None
        try:
            async with asyncio.timeout(seconds * _BROKERS):
                for one in asyncio.as_completed(asking):
                    try:
                        answer = await one
                    except Unavailable as error:  # another may have it
                        problem = error
                        continue
                    code, text = str(answer.get("code", "")), str(answer.get("text", ""))
                    if code != Code.UNAVAILABLE:
                        return code, text
        except TimeoutError:
            raise Unavailable("a broker does not answer") from None
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if problem is not None:
            raise problem
        if loop.time() - self._moved < self._on_the_way:
            raise Unavailable(f"a broker came or went just now: who was there may be on the way ({text})")
        return code, text

    async def publish(self, namespace: str, subject: str, event: Mapping[str, Any]) -> None:
        """Publish an event of the controller's at each broker that can be reached.

        Raises:
            Unavailable: at least one cannot.
        """
        words = {"event": event, "namespace": namespace, "subject": subject}
        problem = self.trouble
        for bus in tuple(self._open.values()):
            try:
                await self._ask(bus, words)
            except Unavailable as error:
                problem = str(error)
        if problem:
            raise Unavailable(problem)

    async def open_calls(self, keys: Sequence[str]) -> Mapping[str, int | None]:
        """Return how many calls are open with who is behind doors, by door.

        None: some broker has not heard yet that nothing new goes there.

        Raises:
            Unavailable: a broker cannot be asked.
        """
        answers = [(await self._ask(bus, {"open": list(keys)})).get("open") or {} for bus in self._all()]
        return {key: _sum([each.get(key) for each in answers]) for key in keys}

    def _all(self) -> tuple[Client, ...]:
        problem = self.trouble
        if problem:
            raise Unavailable(problem)
        return tuple(self._open.values())

    async def _ask(
        self, bus: Client, words: Mapping[str, Any], seconds: float = _ANSWER
    ) -> Mapping[str, Any]:
        if not self._may():
            raise Unavailable("this replica is not the leader")
        payload = json.dumps(words, separators=(",", ":")).encode()
        try:
            answer = await bus.call(ASK, payload, timeout=seconds)
            found = json.loads(answer.payload)
        except CrucibleError as error:
            raise Unavailable(str(error)) from error
        except ValueError as error:
            raise Unavailable(f"the broker answers what is not understood: {error}") from error
        return found if isinstance(found, dict) else {}

    async def _hold(self, place: Place, pause: float) -> None:
        """Stay connected to one broker, after some seconds, until cancelled."""
        bus: Client | None = None
        failures = 0
        while True:
            await asyncio.sleep(pause)
            try:
                if not self._may():
                    raise Unavailable("this replica is not the leader")
                async with Client(partial(_connect, place, await self._trust()), "") as bus:
                    heard = await bus.subscribe(NOTICES)
                    self._open[place] = bus
                    self._moved = asyncio.get_running_loop().time()
                    failures = 0
                    self._say(place, "")
                    async for frame in heard:
                        self._take(frame.payload)
            except CrucibleError as error:
                pause = min(_RETRY_FIRST * 2.0**failures, _RETRY_LONGEST)
                failures += 1
                self._say(place, f"the broker at {place.host} cannot be spoken to: {error}")
            finally:
                if self._open.get(place) is bus:  # there may be another line by now
                    self._open.pop(place, None)
                    self._moved = asyncio.get_running_loop().time()
            if place in self._kept:
                self._leave(place)
                self._changed()
                return

    def _say(self, place: Place, problem: str) -> None:
        if place in self._tasks and self._problems.get(place, "") != problem:
            log.log(logging.WARNING if problem else logging.INFO, "%s", problem or f"speaks to {place.host}")
            self._problems.pop(place, None)
            if problem:
                self._problems[place] = problem
            self._changed()

    def _take(self, payload: bytes) -> None:
        try:
            found = json.loads(payload)
        except (ValueError, RecursionError):
            log.warning("a broker says what is not understood")
            return
        if isinstance(found, dict):
            self._hear(found)


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


async def _connect(place: Place, authority: str) -> Streams:
    """Connect to a broker that shows that it is one."""
    try:
        context = ssl.create_default_context(cadata=authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        async with asyncio.timeout(_CONNECT):
            streams = await asyncio.open_connection(
                place.host, place.port, ssl=context, server_hostname=Door.BUS.value
            )
    except (OSError, ValueError) as error:  # of which ssl.SSLError and TimeoutError are some
        raise Unavailable(str(error) or "it does not answer in time") from error
    watch(streams[1].get_extra_info("socket"), *_SILENT)
    return streams
