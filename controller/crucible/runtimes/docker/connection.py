"""Keeps in touch with an engine that may restart, hang or be absent: one task, for as long as it is open."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Final

from docker import errors

from crucible.errors import CrucibleError, Unavailable
from crucible.runtimes.docker.engine import silent
from crucible.runtimes.docker.events import Events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from crucible.runtimes.docker.engine import Engine, Facts
    from crucible.runtimes.docker.events import Happened
    from crucible.runtimes.docker.settings import DockerSettings

_RETRY_FIRST: Final = 0.1
_RETRY_LONGEST: Final = 2.0
_BEATS: Final = 12
"""Heartbeats between two surveys: what an answer that was lost left behind is found in a minute."""
_PULSE: Final = 5
"""Seconds an engine has to show that it is alive."""

_log = logging.getLogger(__name__)


class Connection:
    """Connects, subscribes, has the world surveyed; when the engine goes, says so and begins again."""

    def __init__(
        self,
        engine: Engine,
        settings: DockerSettings,
        *,
        survey: Callable[[], Awaitable[None]],
        happened: Callable[[Happened], bool],
        turned: Callable[[], None],
    ) -> None:
        """Prepare; nothing is asked of the engine yet.

        Args:
            engine: to keep in touch with.
            settings: of the runtime.
            survey: finds out what there is; awaited after each subscription, so that nothing falls between.
            happened: told of every event; returns False where only a survey can tell what it means.
            turned: called when an outage begins or ends.
        """
        self.facts: Facts | None = None
        self.outage = "the Docker engine was not asked yet"
        self._engine = engine
        self._settings = settings
        self._survey = survey
        self._happened = happened
        self._turned = turned
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._stir = asyncio.Event()
        self._unclear = False

    async def open(self) -> None:
        """Begin; returns once the engine answered, or did not."""
        self._task = asyncio.get_running_loop().create_task(self._keep())
        first = asyncio.ensure_future(self._first.wait())
        await asyncio.wait({first, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            first.cancel()
            self._task.result()

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def look_again(self) -> None:
        """Have the world surveyed soon."""
        self._unclear = True
        self._stir.set()

    async def _keep(self) -> None:
        pause = _RETRY_FIRST
        while True:
            try:
                await self._once()
            except CrucibleError as error:
                self._turn(str(error))
            except errors.APIError as error:
                text = error.explanation or error
                self._turn(f"the Docker engine at {self._engine.url} refuses: {text}: look at its log")
            else:
                pause = _RETRY_FIRST
            self._first.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_LONGEST)

    async def _once(self) -> None:
        """Connect and stay connected; return or raise once that is over."""
        self.facts = await self._engine.connect()
        broke = asyncio.Event()
        self._stir.clear()

        def tear() -> None:
            broke.set()
            self._stir.set()

        events = await self._engine.call(
            Events, self._engine.another(), self._settings.control_plane, self._hear, tear
        )
        events.run(asyncio.get_running_loop())
        try:
            self._unclear = False
            await self._survey()
            self._turn("")
            self._first.set()
            await self._listen(broke)
        finally:
            events.close()
        raise Unavailable(f"the Docker engine at {self._engine.url} went away: start it again")

    def _hear(self, event: Happened) -> None:
        if not self._happened(event):
            self.look_again()

    async def _listen(self, broke: asyncio.Event) -> None:
        """Return when the stream broke; raise when the engine shows no pulse. Survey now and then."""
        client = self._engine.another(_PULSE)
        try:
            for beat in itertools.count(1):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.heartbeat):
                        await self._stir.wait()
                self._stir.clear()
                if broke.is_set():
                    return
                if self._unclear or beat % _BEATS == 0:
                    self._unclear = False
                    await self._survey()
                else:
                    await self._pulse(client.ping)
        finally:
            client.close()

    async def _pulse(self, ping: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(2 * _PULSE):
                await self._engine.call_aside(ping)
        except TimeoutError:
            raise Unavailable(silent(self._engine.url)) from None

    def _turn(self, outage: str) -> None:
        if outage == self.outage:
            return
        if outage:
            _log.warning("%s", outage)
        elif self.outage and self._first.is_set():
            _log.warning("the Docker engine at %s answers again", self._engine.url)
        self.outage = outage
        self._turned()
