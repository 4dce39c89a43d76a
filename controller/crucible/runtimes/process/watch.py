"""Watches living instances: sees their plugin run, takes their output, writes down their end."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import chain, repeat
from signal import SIGTERM
from typing import TYPE_CHECKING, Final

from crucible.runtimes.process.cgroups import base as groups
from crucible.runtimes.process.ending import Remains, judge
from crucible.runtimes.process.logs import Reader
from crucible.runtimes.process.output import Output
from crucible.runtimes.process.record import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from crucible.model.instance import Exit
    from crucible.runtimes.process.live import Live
    from crucible.runtimes.process.settings import LogLimits

# A fresh sandbox executes its plugin after 5 to 20 ms; looking is cheap, so look often at first.
_LOOKS: Final = (0.006, 0.004, 0.006, 0.01, 0.015, 0.025, 0.05, 0.1, 0.2)
_LATER_LOOKS: Final = 1.0
_TERM_LOOKS: Final = (0.004,) * 1000


class Watch:
    """Watches instances until told to let go. Nothing is polled once an instance runs.

    Attributes:
        changed: called with a plugin's uid when one of its instances changed.
    """

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self.changed: Callable[[str], None] = _nobody
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, changed: Callable[[str], None]) -> None:
        """Say whom to tell that a plugin's instance changed."""
        self.changed = changed

    async def close(self) -> None:
        """End what is going on beside. The instances must be let go one by one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def listen(self, live: Live) -> None:
        """Take an instance's output: before its start, or what one that dies at once says would be lost."""
        live.output = Output(live.directory, self._limits, lambda: self.changed(live.record.plugin_uid))

    def take(self, live: Live) -> None:
        """Await an instance's start, if that has not been seen, and its end."""
        if live.pidfd is None:
            raise ValueError(f"{live.record.name} has no monitor to watch")
        asyncio.get_running_loop().add_reader(live.pidfd, self._monitor_ended, live, live.pidfd)
        if live.look():
            self.changed(live.record.plugin_uid)  # whoever started it does not know it yet
        else:
            self._beside(self._await_running(live))

    def let_go(self, live: Live) -> None:
        """Stop watching one."""
        if live.output is not None:
            live.output.close()
        if live.pidfd is not None:
            asyncio.get_running_loop().remove_reader(live.pidfd)
            os.close(live.pidfd)
            live.pidfd = None
        live.doors.close()
        if live.gauge is not None:
            live.gauge.close()
            live.gauge = None

    def terminate(self, live: Live) -> None:
        """Send SIGTERM to the plugin, now or as soon as it runs; note that it was sent."""
        if live.tell(SIGTERM):
            live.note(asked=True)
        else:
            self._beside(self._terminate_later(live))

    async def bury(self, live: Live, at: float) -> None:
        """Clear what outlived the monitor, keep the last output, write down how it ended, tell."""
        live.look()
        await live.destroy()
        if live.output is None and live.has_pipe():
            live.output = Output(live.directory, self._limits, _silence)
        if live.output is not None:
            live.output.finish()
        last = tuple(Reader(live.directory).last(1))
        remains = Remains(
            at=at,
            code=read_status(live.directory).code,
            oom_kills=groups.oom_kills(live.cgroups),
            killed=live.record.killed,
            ran=live.main is not None,
            rebooted=live.rebooted,
            mark=live.record.mark,
            last_line=last[0].text if last else b"",
        )
        self.conclude(live, judge(remains))

    def conclude(self, live: Live, end: Exit) -> None:
        """Write down how an instance ended, let it go, tell."""
        live.note(exit=end)
        self.let_go(live)
        live.ended.set()
        self.changed(live.record.plugin_uid)

    def _monitor_ended(self, live: Live, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        self._beside(self.bury(live, time.time()))

    async def _await_running(self, live: Live) -> None:
        for pause in chain(_LOOKS, repeat(_LATER_LOOKS)):
            await asyncio.sleep(pause)
            if live.ended.is_set():
                return
            if live.look():
                self.changed(live.record.plugin_uid)
                return

    async def _terminate_later(self, live: Live) -> None:
        for pause in _TERM_LOOKS:
            await asyncio.sleep(pause)
            if live.ended.is_set():
                return
            if live.tell(SIGTERM):
                live.note(asked=True)
                return

    def _beside(self, work: Coroutine[None, None, None]) -> None:
        """Run something beside, kept from being collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nobody(_: str) -> None:
    """Hear nothing: before ``open`` there is no one to tell."""


def _silence() -> None:
    """Say nothing of the output of an instance that has ended."""
