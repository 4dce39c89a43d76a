"""Takes a plugin's output from its pipe, no faster than the limit, and keeps it.

The pipe has a name in the instance's directory, so that a later controller finds it again, and is open for
reading on the plugin's side too, so that no controller's end can break it. What a plugin prints while no
controller runs waits in the pipe, and the plugin with it once that is full.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Final

from crucible.runtimes.process.logs import LogFiles, Unfinished, frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crucible.runtimes.process.settings import LogLimits

PIPE: Final = "output"
_USABLE: Final = 0o600
_CHUNK: Final = 1 << 16
_LEAST: Final = 1 << 12
_READ_COST: Final = 1 << 10
"""What reading once counts for, in bytes: many small writes cost the controller as much as one large."""
_BREATH: Final = 0.005
"""Seconds in which what a plugin prints piles up, to be read at once."""
# The largest pipe an ordinary user may make: more cannot be left in one whose writers have all ended.
_MOST_LEFT: Final = 1 << 20


def make_pipe(directory: Path, uid: int | None) -> None:
    """Make the pipe; the instance's own user, if any, may open it again through ``/dev/stdout``."""
    os.mkfifo(directory / PIPE, 0o600)
    if uid is not None:
        os.chown(directory / PIPE, uid, uid)


def open_pipe(directory: Path) -> int:
    """Open the pipe, whatever its plugin, whose standard output it is, did to its mode.

    What is looked at is what is opened: a link, a file or a device in its place is neither changed nor read.

    Raises:
        OSError: it is not there, or no pipe.
    """
    found = os.open(directory / PIPE, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = os.fstat(found).st_mode
        if not stat.S_ISFIFO(mode):
            raise OSError(errno.EINVAL, "not a pipe", str(directory / PIPE))
        same = f"/proc/self/fd/{found}"
        if stat.S_IMODE(mode) & _USABLE != _USABLE:
            os.chmod(same, _USABLE)  # noqa: PTH101 - that very pipe
        return os.open(same, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)


class Allowance:
    """How many bytes may be read now: a bucket that fills at ``rate`` up to ``burst``."""

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._at = now

    def level(self, now: float) -> float:
        """Return what may be taken at ``now``, in bytes."""
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def take(self, count: int) -> None:
        """Use up some of it."""
        self._level -= count

    def until(self, level: float) -> float:
        """Return the seconds until it holds that much."""
        return max(level - self._level, 0) / self._rate

    @property
    def rested(self) -> bool:
        """It has filled up by a quarter: whoever emptied it has slowed down."""
        return self._level >= self._burst / 4


class Output:
    """The output of one living instance."""

    def __init__(self, directory: Path, limits: LogLimits, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipe = open_pipe(directory)
        self._files = LogFiles(directory, limits)
        self._limits = limits
        self._changed = changed
        self._unfinished = Unfinished()
        self._allowance = Allowance(limits.rate, limits.burst, self._loop.time())
        self._pause: asyncio.TimerHandle | None = None
        self._relief: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.rate_text = f"{limits.rate / (1 << 20):g} MiB/s"
        self.throttled = False
        self.problem = ""
        self.ended = False
        self._loop.add_reader(self._pipe, self._read)

    async def more(self) -> None:
        """Wait until something was stored, or nothing will be any more."""
        if self.ended:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        await future

    def finish(self) -> None:
        """Store all that is left once every writer has ended, then close."""
        left = _MOST_LEFT
        while not self.ended and left > 0:
            chunk = self._take(_CHUNK)
            if not chunk:
                break
            left -= len(chunk)
            self._store(chunk)
        self.close()

    def close(self) -> None:
        """Stop taking output; what comes waits in the pipe. A line that has no end yet is stored as it is."""
        if self.ended:
            return
        self.ended = True
        if self._unfinished.text:
            self._append([self._unfinished.text])
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        for timer in (self._pause, self._relief):
            if timer is not None:
                timer.cancel()
        self._wake()

    def _read(self) -> None:
        level = self._allowance.level(self._loop.time())
        if level < _LEAST:
            self._loop.remove_reader(self._pipe)
            self._pause = self._loop.call_later(self._allowance.until(_CHUNK), self._resume)
            self._throttle(held=True)
            return
        chunk = self._take(min(_CHUNK, int(level)))
        if chunk:
            self._allowance.take(_READ_COST + self._store(chunk))
            self._loop.remove_reader(self._pipe)
            self._pause = self._loop.call_later(_BREATH, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._pipe, self._read)

    def _relent(self) -> None:
        """Lift the notice once the plugin has slowed down; else look again later."""
        self._relief = None
        self._allowance.level(self._loop.time())
        self._throttle(held=not self._allowance.rested)

    def _throttle(self, *, held: bool) -> None:
        if held and self._relief is None:
            self._relief = self._loop.call_later(self._limits.burst / self._limits.rate / 2, self._relent)
        if self.throttled != held:
            self.throttled = held
            self._changed()

    def _take(self, most: int) -> bytes:
        try:
            return os.read(self._pipe, most)
        except BlockingIOError:
            return b""

    def _store(self, chunk: bytes) -> int:
        """Keep a chunk; return the bytes it takes, which for short lines are mostly their times."""
        lines, self._unfinished = frame(self._unfinished, chunk, self._limits.line_bytes)
        stored = self._append(lines)
        self._wake()
        return max(stored, len(chunk))

    def _append(self, lines: list[bytes]) -> int:
        """Keep lines where the disk takes them; where it does not, the plugin goes on and they are lost."""
        try:
            stored, problem = self._files.append(lines, time.time()), ""
        except OSError as error:
            stored, problem = 0, f"output is not kept: {error.strerror}"
        if (lines or problem) and problem != self.problem:
            self.problem = problem
            self._changed()
        return stored

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
