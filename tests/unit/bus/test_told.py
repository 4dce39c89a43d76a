"""What the broker makes of what the controller tells it, in whatever order it comes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from crucible.bus.service import BusService
from crucible.model.bus import Grants, Member
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def service() -> AsyncIterator[BusService]:
    made = BusService(lambda _: None)
    yield made
    made._joined.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await made._joined


def door(plugin: str) -> Doorway:
    return Doorway(Door.BUS, "default", plugin, f"uid-{plugin}", "0-1", 1000)


async def test_the_end_of_one_does_not_cut_off_another_that_has_just_come(service: BusService) -> None:
    old = Member("default", "old", "uid-old", Grants())
    await service.answer({"know": [old.to_json()], "gone": []})
    service.admit(door("new"), {}, ())  # let in by its door before it is told of
    seat = service.broker.roster.find("default", "new")
    assert seat is not None
    await service.answer({"know": [], "gone": ["uid-old"]})
    assert service.broker.roster.find("default", "new") is seat
    assert service.broker.roster.find("default", "old") is None


async def test_whoever_has_the_name_of_one_that_is_gone_stays(service: BusService) -> None:
    again = Member("default", "old", "uid-again", Grants())
    await service.answer({"know": [again.to_json()], "gone": ["uid-old"]})
    seat = service.broker.roster.find("default", "old")
    assert seat is not None
    assert seat.member.uid == "uid-again"
