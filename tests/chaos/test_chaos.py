"""A few runs of the chaos suite; ``make chaos`` does many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from fleet import Fleet
from lifetime import Life, live
from machine import Machine
from ordeal import CHANGES, LIVES, SECONDS, ground_of, plan_of

if TYPE_CHECKING:
    from pathlib import Path

    from places import Place

SEED = int(os.environ.get("CRUCIBLE_SEED", "7"))
FAULTS = ("a", "b", "c", "d")


def test_the_same_seed_gives_the_same_plan() -> None:
    for number in range(20):
        assert plan_of(7, number, "process", FAULTS) == plan_of(7, number, "process", FAULTS)
    assert plan_of(7, 1, "process", FAULTS) != plan_of(8, 1, "process", FAULTS)


def test_plans_meet_every_fault_and_stay_within_their_time() -> None:
    plans = [plan_of(7, number, "process", FAULTS) for number in range(20)]
    assert {step.what for plan in plans for step in plan.faults} == set(FAULTS)
    assert {step.what for plan in plans for step in plan.changes} == set(CHANGES)
    steps = [step for plan in plans for step in (*plan.faults, *plan.changes)]
    assert all(0 <= step.at <= SECONDS and step.lasts > 0 for step in steps)
    assert {ground_of(number) for number in range(25)} == set(LIVES)


@pytest.mark.parametrize("ground", ["process", "cluster"])
async def test_whatever_fails_each_wanted_plugin_runs_once_and_nothing_else_is_left(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, ground: str
) -> None:
    place: Place = (
        Machine(tmp_path, tmp_path_factory.mktemp("roots")) if ground == "process" else Fleet(tmp_path)
    )
    results = await live(place, Life(ground, SEED, range(2 if ground == "process" else 1)))
    for result in results:
        assert result.wrong == [], (result.plan, place.log()[-6000:])
