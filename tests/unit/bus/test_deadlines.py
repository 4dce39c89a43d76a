"""Calls are told when their time is over, and let go when they ended before."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

from crucible.bus.call import Call
from crucible.bus.deadlines import Deadlines
from crucible.bus.roster import Seat
from crucible.bus.wire import Frame, Kind
from crucible.model.bus import Grants, Member

if TYPE_CHECKING:
    from collections.abc import Callable

SEAT = Seat(Member("here", "caller", "uid-caller", Grants()))


class Clock:
    """A loop's time, and its one timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: float | None = None
        self.due: Callable[[], None] | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, due: Callable[[], None]) -> Clock:
        self.at, self.due = when, due
        return self

    def when(self) -> float:
        assert self.at is not None
        return self.at

    def cancel(self) -> None:
        self.at = self.due = None

    def reach(self, when: float) -> None:
        while self.at is not None and self.at <= when:
            self.now, due = self.at, self.due
            self.cancel()
            assert due is not None
            due()
        self.now = when


def begun() -> tuple[Clock, Deadlines, list[str]]:
    clock, over = Clock(), list[str]()
    loop: Any = clock
    return clock, Deadlines(loop, lambda call: over.append(call.frame.name)), over


def call(name: str) -> Call:
    return Call(Frame(Kind.CALL, 1, name), "method", SEAT, None)


def test_whose_time_is_over_is_told_in_order_and_once() -> None:
    clock, deadlines, over = begun()
    for name, when in (("late", 3.0), ("soon", 1.0), ("next", 2.0)):
        deadlines.add(when, call(name))
    clock.reach(2.5)
    assert over == ["soon", "next"]
    clock.reach(10.0)
    assert over == ["soon", "next", "late"]


def test_what_is_forgotten_is_told_never_and_others_are() -> None:
    clock, deadlines, over = begun()
    first = deadlines.add(1.0, call("first"))
    deadlines.add(1.0, call("second"))
    deadlines.forget(first)
    deadlines.forget(first)
    clock.reach(2.0)
    assert over == ["second"]


def test_a_call_that_ended_is_let_go_at_once() -> None:
    _, deadlines, _ = begun()

    class Watched(Call):
        __slots__ = ("__weakref__",)

    made = Watched(Frame(Kind.CALL, 1, "echo.say"), "say", SEAT, None)
    seen = weakref.ref(made)
    number = deadlines.add(30.0, made)
    gc.disable()
    try:
        del made
        assert seen() is not None
        deadlines.forget(number)
        assert seen() is None
    finally:
        gc.enable()


def test_what_is_kept_of_calls_that_ended_is_bounded_and_the_rest_is_kept() -> None:
    clock, deadlines, over = begun()
    deadlines.add(50.0, call("open"))
    for _ in range(20_000):
        deadlines.forget(deadlines.add(30.0, call("ended")))
    assert deadlines.kept <= 2048
    clock.reach(60.0)
    assert over == ["open"]


async def test_nothing_is_told_after_the_end() -> None:
    over: list[Call] = []
    deadlines = Deadlines(asyncio.get_running_loop(), over.append)
    deadlines.add(asyncio.get_running_loop().time(), call("echo.say"))
    deadlines.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert over == []
