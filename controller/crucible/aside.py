"""What takes a while and may hold up no Plugin's loop: hooks, and asking instances to take a configuration.

Nothing in here decides. What came of the work is looked at by the loop, which is woken for it; until when it
may take is in the status, and a controller that comes back begins it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Literal

from crucible.errors import CrucibleError
from crucible.listening import beginning
from crucible.model.world import Hooked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from crucible.model.workload import Slot
    from crucible.runtimes.base import Runtime

log = logging.getLogger(__name__)

Kind = Literal["hook", "config"]
Work = Callable[[], Coroutine[object, object, str]]


class Aside:
    """Work of Plugins that goes on beside their loops, one of a kind for each instance at a time."""

    def __init__(self) -> None:
        self._work: dict[str, dict[tuple[Kind, int], asyncio.Task[str]]] = {}
        self._news: dict[str, Callable[[], None]] = {}

    def attend(self, plugin_uid: str, news: Callable[[], None]) -> None:
        """Call ``news`` whenever something of a plugin's is over that its loop should look at."""
        self._news[plugin_uid] = news

    def begin(self, plugin_uid: str, kind: Kind, slot: Slot, work: Work) -> None:
        """Begin it, unless that instance is at it already.

        Args:
            plugin_uid: the Plugin.
            kind: what it is.
            slot: the instance.
            work: does it, and returns what is to be said of it.
        """
        mine = self._work.setdefault(plugin_uid, {})
        key = (kind, slot.attempt)
        if key not in mine or (kind == "config" and mine[key].done()):
            mine[key] = asyncio.get_running_loop().create_task(work())
            mine[key].add_done_callback(lambda task: self._over(plugin_uid, kind, task))

    def _over(self, plugin_uid: str, kind: Kind, task: asyncio.Task[str]) -> None:
        if task.cancelled():
            return
        words = _outcome(task)
        if (kind == "hook" or words) and plugin_uid in self._news:
            self._news[plugin_uid]()

    def hooks(self, plugin_uid: str) -> Mapping[int, Hooked]:
        """Return how far the hooks of a plugin's instances are, by attempt."""
        return {
            attempt: Hooked(task.done(), _outcome(task) if task.done() else "")
            for (kind, attempt), task in self._work.get(plugin_uid, {}).items()
            if kind == "hook"
        }

    def keep(self, plugin_uid: str, hooks: Collection[int]) -> None:
        """Go on with the hooks of these attempts alone; others are ended, and what came of them forgotten."""
        mine = self._work.get(plugin_uid, {})
        for key, task in list(mine.items()):
            kind, attempt = key
            if (kind == "hook" and attempt not in hooks) or (kind == "config" and task.done()):
                task.cancel()
                del mine[key]

    async def forget(self, plugin_uid: str) -> None:
        """End all of a plugin's."""
        self._news.pop(plugin_uid, None)
        tasks = list(self._work.pop(plugin_uid, {}).values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _outcome(task: asyncio.Task[str]) -> str:
    if task.cancelled():
        return "was ended"
    error = task.exception()
    if error is None:
        return task.result()
    log.error("what goes on beside a loop failed", exc_info=error)
    return f"failed: {error}"


async def run_hook(
    runtime: Runtime, plugin_uid: str, slot: Slot, command: Sequence[str], seconds: float
) -> str:
    """Run a command in an instance; return why it did not do its part, empty when it did."""
    try:
        async with asyncio.timeout(seconds):
            session = await runtime.exec(plugin_uid, slot, command, stdin=False, tty=False)
            try:
                await beginning(
                    session, 0
                )  # it goes nowhere, and would hold up the command if nobody took it
                code = await session.wait()
            finally:
                await session.close()
    except TimeoutError:
        return f"did not end within {seconds:g} s"
    except CrucibleError as error:
        return f"cannot be run: {error}"
    return f"ended with status {code}" if code else ""
