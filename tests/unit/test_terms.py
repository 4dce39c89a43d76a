"""A term of leadership that does not end as it should ends the process, and says where it hung."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import virtualclock

from crucible.errors import Unavailable
from crucible.terms import EXIT, Patience, Term, lead, timed_end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

PATIENCE = Patience(beginning=120, ending=30, cutting=15)
SOON = 1.0


class Lease:
    """Ours for some seconds; then lost."""

    def __init__(self, seconds: float) -> None:
        self.released = False
        self.failing: Exception | None = None
        self.deaf = False
        self._seconds = seconds

    async def keep(self, stop: asyncio.Event) -> None:
        await _first(stop, self._seconds)
        if self.failing is not None:
            raise self.failing
        if self.deaf:
            await _unstoppable()

    async def release(self) -> None:
        self.released = True


async def _first(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _obedient(term: Term) -> None:
    term.begun.set()
    await term.over.wait()


async def _unstoppable() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if asyncio.get_running_loop().time() > 10_000:
                raise  # the test is over


class Scene:
    """One term, and whether the process was left."""

    def __init__(
        self, serve: Callable[[Term], Coroutine[Any, Any, None]], *, lasts: float, stop: float = 10_000
    ) -> None:
        self.lease = Lease(lasts)
        self.left: list[str] = []
        self._serve = serve
        self._stop = stop

    async def lead(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(self._stop, stop.set)
        await lead(self.lease, self._serve, stop, patience=PATIENCE, leave=self.left.append)

    async def end(self) -> None:
        """Lead, and let the event loop go beyond what the unstoppable wait for."""
        try:
            await self.lead()
        finally:
            self.took = asyncio.get_running_loop().time()
            await asyncio.sleep(20_000)


def test_a_term_ends_when_the_lease_is_lost_and_the_lease_is_given_up_when_it_is_told_to_stop() -> None:
    lost = Scene(_obedient, lasts=50)
    assert virtualclock.run(lost.lead()) == pytest.approx(50)
    told = Scene(_obedient, lasts=5000, stop=20)
    assert virtualclock.run(told.lead()) == pytest.approx(20)
    assert told.lease.released
    assert not lost.left
    assert not told.left


def test_a_term_that_does_not_end_is_cut_off_and_said_to_be_at_where_it_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def waits_for_what_never_comes(term: Term) -> None:
        term.begun.set()
        await asyncio.get_running_loop().create_future()

    scene = Scene(waits_for_what_never_comes, lasts=50)
    assert virtualclock.run(scene.lead()) == pytest.approx(50 + PATIENCE.ending)
    assert not scene.left
    assert "waits_for_what_never_comes line" in caplog.text


def test_one_that_takes_no_notice_of_one_cancellation_is_cancelled_again() -> None:
    async def drops_the_first(term: Term) -> None:
        term.begun.set()
        for _ in range(2):
            try:
                await asyncio.sleep(5000)
            except asyncio.CancelledError:
                continue

    scene = Scene(drops_the_first, lasts=50)
    assert virtualclock.run(scene.lead()) < 50 + PATIENCE.ending + PATIENCE.cutting
    assert not scene.left


def test_the_process_is_left_when_a_term_can_neither_go_on_nor_end() -> None:
    async def hangs(term: Term) -> None:
        term.begun.set()
        await _unstoppable()

    scene = Scene(hangs, lasts=50)
    virtualclock.run(scene.end())
    assert scene.took == pytest.approx(50 + PATIENCE.ending + PATIENCE.cutting)
    assert len(scene.left) == 1
    assert "_unstoppable line" in scene.left[0]


def test_the_process_is_left_when_the_renewal_cannot_be_ended() -> None:
    scene = Scene(_obedient, lasts=500, stop=5)
    scene.lease.deaf = True
    virtualclock.run(scene.end())
    assert len(scene.left) == 1
    assert "the renewal of the lease" in scene.left[0]


def test_a_term_that_does_not_begin_is_over_and_says_why() -> None:
    async def never_watches(term: Term) -> None:
        await term.over.wait()

    scene = Scene(never_watches, lasts=5000)
    with pytest.raises(Unavailable, match=r"not watched within 120 s.*never_watches line"):
        virtualclock.run(scene.lead())
    assert scene.lease.released
    assert not scene.left


def test_what_nobody_foresaw_is_raised_whoever_of_the_two_it_ended() -> None:
    async def fails(term: Term) -> None:
        term.begun.set()
        raise KeyError("metadata")

    with pytest.raises(KeyError, match="metadata"):
        virtualclock.run(Scene(fails, lasts=50).lead())
    renewal = Scene(_obedient, lasts=50)
    renewal.lease.failing = ValueError("no lease")
    with pytest.raises(ValueError, match="no lease"):
        virtualclock.run(renewal.lead())


def test_an_end_by_a_cancellation_that_nobody_asked_for_is_a_defect() -> None:
    async def cancels_itself(term: Term) -> None:
        term.begun.set()
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="the term was cancelled by itself"):
        virtualclock.run(Scene(cancels_itself, lasts=50).lead())


def _process(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_process_whose_event_loop_stands_still_ends_and_says_where() -> None:
    ended = _process(
        """
import asyncio, threading
from crucible.terms import be_seen_turning
async def stands_still():
    watch = asyncio.create_task(be_seen_turning(0.5))
    await asyncio.sleep(0)
    threading.Event().wait(50)
asyncio.run(stands_still())
"""
    )
    assert ended.returncode == EXIT
    assert "in stands_still" in ended.stderr


def test_a_process_that_does_not_come_to_its_end_is_left_with_a_word() -> None:
    ended = _process(
        """
import asyncio
from crucible.terms import timed_end
async def never():
    while True:
        try: await asyncio.sleep(50)
        except asyncio.CancelledError: pass
async def main(ending):
    task = asyncio.create_task(never())
    await asyncio.sleep(0)
    ending()
    raise KeyError("it failed")
with timed_end(0.3) as ending:
    asyncio.run(main(ending))
"""
    )
    assert ended.returncode == EXIT
    assert "the process has not ended within 0 s: this process ends, to be started anew" in ended.stderr


def test_a_process_that_ends_in_time_is_not_left() -> None:
    left: list[str] = []
    before = set(threading.enumerate())
    with timed_end(3600, left.append) as ending:
        ending()
        (late,) = set(threading.enumerate()) - before
    late.join(30)
    assert not late.is_alive()
    assert not left
