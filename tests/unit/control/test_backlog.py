from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crucible.control.backlog import Backlog

if TYPE_CHECKING:
    import pytest


async def test_nobody_waits_and_each_plugins_own_are_done_in_order() -> None:
    done: list[tuple[str, int]] = []
    gate = asyncio.Event()

    async def note(uid: str, number: int) -> None:
        await gate.wait()
        done.append((uid, number))

    async with Backlog() as backlog:
        for number in range(20):
            for uid in ("a", "b", "c"):
                assert backlog.put(uid, lambda uid=uid, number=number: note(uid, number))  # type: ignore[misc]
        assert done == []
        gate.set()
    for uid in ("a", "b", "c"):
        assert [number for each, number in done if each == uid] == list(range(20))


async def test_there_is_an_end_of_room() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async with Backlog(room=2, patience=0) as backlog:
        assert [backlog.put("a", forever) for _ in range(3)] == [True, True, False]
        assert backlog.waiting == 2


async def test_what_cannot_be_done_is_told_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()

    async def fail() -> None:
        raise ValueError("no")

    async def succeed() -> None:
        done.set()

    async with Backlog() as backlog:
        backlog.put("a", fail)
        backlog.put("a", succeed)
        await asyncio.wait_for(done.wait(), 30)
    assert "could not be done" in caplog.text


async def test_the_end_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    backlog = Backlog(patience=0.05)
    async with asyncio.timeout(30):
        async with backlog:
            for _ in range(3):
                backlog.put("a", forever)
    assert "2 Events are lost" in caplog.text
