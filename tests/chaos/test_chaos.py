"""A few runs of the chaos suite; ``make chaos`` does many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from fleet import Fleet
from lifetime import Life, live
from machine import Machine
from ordeal import CHANGES, LIVES, SECONDS, ground_of, plan_of
from records import Book, Record, summary_of
from soak import DESCRIPTORS, Used, grown, medians

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


def test_what_went_well_is_not_done_again_and_what_did_not_is(tmp_path: Path) -> None:
    path = tmp_path / "chaos-7.jsonl"
    well = [Record(number, "process", faults=3, converged=float(number)) for number in range(5)]
    wrong = Record(5, "cluster", faults=4, converged=120.0, lost=("p1 does not run",))
    Book(path, go_on=False).enter([*well, wrong])
    again = Book(path, go_on=True)
    assert again.has("process", range(5))
    assert not again.has("docker", range(5))  # it was asked for elsewhere
    assert not again.has("cluster", range(5, 6))
    assert not again.has("process", range(4, 7))
    summary = summary_of(again.records.values())
    assert list(summary.values()) == [6, 19, 0, 0, 1, 3.0, 120.0]
    counted = ["runs", "faults", "duplicates", "orphans", "lost", "converge_p50_s", "converge_p99_s"]
    assert list(summary) == counted
    again.enter([Record(5, "cluster", faults=4, converged=1.0)])
    assert Book(path, go_on=True).has("cluster", range(5, 6))
    assert Book(path, go_on=False).records == {}


def test_a_soak_tells_growth_from_noise() -> None:
    assert medians([1, 2, 9, 4, 5, 6, 7, 8, 3], 3) == [2, 5, 7]
    flat = [50, 51, 49] * 30
    assert grown("descriptors", flat, DESCRIPTORS) == []
    leaks = [50 + number for number in range(90)]
    assert grown("descriptors", leaks, DESCRIPTORS) == ["descriptors: from 94 to 124"]
    used = Used()
    used.memory, used.descriptors = [*range(100_000, 130_000, 1_000)], [50] * 30
    assert used.problems(60.0) == []
    assert used.problems(1800.0) == ["memory in KiB: from 114500 to 124500"]
    used.controllers = {1, 2}
    assert "the controller ended 1 times" in used.problems(60.0)
    assert grown("descriptors", [1, 1], DESCRIPTORS) == ["descriptors: too few samples"]


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
