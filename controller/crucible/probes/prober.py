"""Goes on asking instances what their probes say, and rings when an answer may change a decision."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from crucible.core.health import pause_before, tally
from crucible.probes.asking import Subject, ask
from crucible.probes.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crucible.model.health import Check, Streak, Watch
    from crucible.probes.asking import Call
    from crucible.runtimes.base import Runtime

_RETRY: Final = 10.0
"""Seconds until a probe is asked again that could not even be asked."""

log = logging.getLogger(__name__)

_STEP: Final = 0.05
"""Seconds between two moments at which askings begin that are not urgent."""
_LONG: Final = 0.5
"""Seconds from which a pause counts as long."""

_Key = tuple[int, "Check"]


class Prober:
    """Asks what it was told to watch. What it knows can be told anew: the status keeps what counts."""

    def __init__(self, runtime: Runtime, now: Callable[[], float], call: Call | None = None) -> None:
        """Begin with nothing to watch.

        Args:
            runtime: what runs the instances.
            now: unix seconds.
            call: calls a plugin over the bus; None: there is none.
        """
        self._call = call
        self._runtime = runtime
        self._now = now
        self._streaks: dict[str, dict[_Key, Streak]] = {}
        self._tasks: dict[str, dict[_Key, tuple[Watch, asyncio.Task[None]]]] = {}
        self._turns = Turns()

    def streaks(self, plugin_uid: str) -> Mapping[_Key, Streak]:
        """Return the newest answers of a plugin's instances."""
        return self._streaks.get(plugin_uid, {})

    def attend(self, plugin_uid: str, watches: Sequence[Watch], news: Callable[[], None]) -> None:
        """Watch these probes of a plugin, and no others; call ``news`` when a streak of theirs changed."""
        running = self._tasks.setdefault(plugin_uid, {})
        wanted = {watch.key: watch for watch in watches}
        for key in tuple(running):
            known, task = running[key]
            watch = wanted.get(key)
            if watch is None or watch.probe != known.probe or watch.settled != known.settled:
                task.cancel()
                del running[key]
                if watch is None or watch.probe != known.probe:
                    self._streaks.get(plugin_uid, {}).pop(key, None)
        for key, watch in wanted.items():
            if key not in running:
                task = asyncio.create_task(self._watch(plugin_uid, watch, news))
                running[key] = (watch, task)
        if not running:
            self._tasks.pop(plugin_uid, None)
            self._streaks.pop(plugin_uid, None)

    def _others(self, plugin_uid: str, watch: Watch) -> dict[str, bool]:
        """Return what the other probes of an instance say."""
        return {
            check.value: streak.ok
            for (attempt, check), streak in self.streaks(plugin_uid).items()
            if attempt == watch.slot.attempt and check is not watch.check
        }

    async def close(self) -> None:
        """Ask no more."""
        tasks = [task for running in self._tasks.values() for _, task in running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._streaks.clear()

    async def _watch(self, plugin_uid: str, watch: Watch, news: Callable[[], None]) -> None:
        """Ask one probe for ever; what nobody foresaw is told, and the probe asked again."""
        while True:
            try:
                await self._ask_on(plugin_uid, watch, news)
            except Exception:
                log.exception("a probe of %s cannot be asked; next try in %.0f s", plugin_uid, _RETRY)
                await asyncio.sleep(_RETRY)
                known = self.streaks(plugin_uid).get(watch.key)
                watch = watch if known is None else replace(watch, known=known)

    async def _ask_on(self, plugin_uid: str, watch: Watch, news: Callable[[], None]) -> None:
        subject = Subject(self._runtime, plugin_uid, watch.slot, watch.since, call=self._call)
        loop, judges = asyncio.get_running_loop(), watch.probe.kind in {"resource", "custom"}
        tries, ok = 0, watch.known.ok if watch.known is not None else False
        while True:
            pause = pause_before(watch, tries, ok=ok)
            if tries == 0 and watch.known is None:
                pause -= max(self._now() - watch.since, 0.0)  # the clock may have been put back
            await asyncio.sleep(in_step(loop.time(), pause))
            tries += 1
            if judges:
                subject = replace(subject, others=self._others(plugin_uid, watch))
            async with self._turns.turn(plugin_uid):
                asked = await ask(watch.probe, subject)
            answer = asked.answer
            if judges:
                subject = replace(subject, before=asked.usage)
            if answer is None:
                continue
            ok = answer.ok
            streaks = self._streaks.setdefault(plugin_uid, {})
            known = streaks.get(watch.key, watch.known)
            streak = tally(known, answer, self._now(), watch)
            streaks[watch.key] = streak
            if streak is not known:
                news()


def in_step(now: float, pause: float) -> float:
    """Return a pause after which others are over too, where a moment more or less changes nothing.

    To wake for each of three hundred askings a second costs more than to ask: most of it is the way there.

    Args:
        now: seconds of a clock that never stands still.
        pause: seconds.
    """
    if pause < _LONG:
        return max(pause, 0)
    return math.ceil((now + pause) / _STEP) * _STEP - now
