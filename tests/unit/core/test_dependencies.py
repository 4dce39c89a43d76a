"""Who waits for whom, and what is said meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import ended, identity, instance, world
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.decide import decide
from crucible.core.restart import STARTS_A_SECOND
from crucible.model.decision import Start, Stop
from crucible.model.neighbour import Around, Neighbour
from crucible.model.status import Phase
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.decision import Decision

NEEDS: dict[str, Any] = {"dependencies": [{"name": "base", "version": ">=2,<3"}]}
BASE = Neighbour("base", "2.1.0", ready=True)
REVISION = decide(world(spec=NEEDS)).status.revision


def claim(decision: Decision, kind: str) -> tuple[str, str]:
    (found,) = [entry for entry in decision.status.conditions if entry.type == kind]
    return found.status, found.reason


def message(decision: Decision) -> str:
    return decision.status.conditions[0].message


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "waits: base is not there"),
        ({"base": replace(BASE, version="1.9.0")}, "waits: base is version 1.9.0, and >=2,<3 is needed"),
        ({"base": replace(BASE, ready=False, message="CrashLoop")}, "waits: base is not ready: CrashLoop"),
        ({"base": replace(BASE, deleting=True)}, "waits: base is being deleted"),
    ],
)
def test_nothing_starts_without_what_it_needs(found: dict[str, Neighbour], words: str) -> None:
    decision = decide(world(spec=NEEDS, around=Around(found)))
    assert decision.actions == ()
    assert decision.status.phase is Phase.WAITING
    assert claim(decision, "Ready") == ("False", "WaitingForDependency")
    assert message(decision) == words
    assert [event.reason for event in decision.events] == ["WaitingForDependency"]
    again = decide(world(spec=NEEDS, around=Around(found), status=decision.status))
    assert again.events == ()


def test_it_starts_once_that_is_ready_and_says_what_it_found() -> None:
    decision = decide(world(spec=NEEDS, around=Around({"base": BASE})))
    assert [type(action) for action in decision.actions] == [Start]
    (report,) = decision.status.dependencies
    assert (report.name, report.version, report.fits) == ("base", "2.1.0", True)


def test_what_is_optional_is_done_without() -> None:
    spec = {"dependencies": [{"name": "base", "optional": True}]}
    decision = decide(world(spec=spec))
    assert [type(action) for action in decision.actions] == [Start]
    assert decision.status.dependencies[0].message == "is not there"


def test_what_runs_goes_on_without_and_is_called_degraded() -> None:
    decision = decide(world(instance(revision=REVISION), spec=NEEDS))
    assert decision.actions == ()
    assert claim(decision, "Ready") == ("True", "Running")
    assert claim(decision, "Degraded") == ("True", "WaitingForDependency")


def test_an_end_while_it_waits_is_not_held_against_it() -> None:
    decision = decide(world(ended(revision=REVISION), spec=NEEDS))
    assert decision.status.phase is Phase.WAITING
    assert decision.status.instances[0].crashes == ()
    back = decide(
        world(ended(revision=REVISION), spec=NEEDS, status=decision.status, around=Around({"base": BASE}))
    )
    assert [type(action) for action in back.actions] == [Start]


def test_those_that_need_each_other_are_told_so() -> None:
    found = {
        "base": Neighbour("base", "2.0.0", ready=False, needs=("middle",)),
        "middle": Neighbour("middle", "1.0.0", ready=False, needs=("base", "echo")),
    }
    decision = decide(world(spec=NEEDS, around=Around(found)))
    assert decision.actions == ()
    assert claim(decision, "Stalled") == ("True", "DependencyCycle")
    assert "echo needs base needs middle needs echo" in message(decision)


def test_a_cycle_elsewhere_or_an_optional_one_is_none_of_its_own() -> None:
    elsewhere = {
        "base": Neighbour("base", "2.0.0", ready=False, needs=("middle",)),
        "middle": Neighbour("middle", "1.0.0", ready=False, needs=("base",)),
    }
    assert claim(decide(world(spec=NEEDS, around=Around(elsewhere))), "Ready")[1] == "WaitingForDependency"
    spec = {"dependencies": [{"name": "base", "optional": True}]}
    back = {"base": Neighbour("base", "1.0.0", ready=False, needs=("echo",))}
    assert [type(action) for action in decide(world(spec=spec, around=Around(back))).actions] == [Start]


def test_it_goes_after_those_that_need_it_and_go_too() -> None:
    going = Neighbour("web", "1.0.0", ready=True, needs=("echo",), deleting=True, instances=1)
    held = decide(world(instance(), identity=identity(deleting=True), around=Around({}, (going,))))
    assert held.actions == ()
    assert not held.released
    assert held.status.phase is Phase.TERMINATING
    assert "web" in message(held)
    gone = replace(going, instances=0)
    then = decide(world(instance(), identity=identity(deleting=True), around=Around({}, (gone,))))
    assert then.actions == (Stop(Slot(0, 1)),)


def test_those_that_stay_do_not_hold_it_and_are_named_once() -> None:
    staying = Neighbour("web", "1.0.0", ready=True, needs=("echo",), instances=1)
    first = decide(world(instance(), identity=identity(deleting=True), around=Around({}, (staying,))))
    assert first.actions == (Stop(Slot(0, 1)),)
    assert [event.reason for event in first.events] == ["StillNeeded"]
    again = world(
        instance(), identity=identity(deleting=True), around=Around({}, (staying,)), status=first.status
    )
    assert decide(again).events == ()


def test_of_those_that_need_each_other_none_waits_to_go() -> None:
    other = Neighbour("base", "2.0.0", ready=True, needs=("echo",), deleting=True, instances=1)
    around = Around({"base": other}, (other,))
    decision = decide(world(instance(), spec=NEEDS, identity=identity(deleting=True), around=around))
    assert decision.actions == (Stop(Slot(0, 1)),)


def test_one_that_crashed_waits_for_its_turn_while_many_are_started() -> None:
    revision = decide(world()).status.revision
    crowded = decide(world(ended(revision=revision), started_lately=STARTS_A_SECOND))
    assert crowded.actions == ()
    assert crowded.revisit is not None
    assert 1000.25 <= crowded.revisit <= 1000.5
    assert crowded.status.phase is Phase.BACK_OFF
    later = decide(world(ended(revision=revision), status=crowded.status, now=crowded.revisit))
    assert [type(action) for action in later.actions] == [Start]
    fresh = decide(world(started_lately=STARTS_A_SECOND))
    assert [type(action) for action in fresh.actions] == [Start]


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_any_graph_has_an_answer(needs: dict[str, list[str]]) -> None:
    found = {name: Neighbour(name, "1.0.0", ready=True, needs=tuple(more)) for name, more in needs.items()}
    spec = {"dependencies": [{"name": name} for name in sorted(needs)[:2]]}
    decision = decide(world(spec=spec, around=Around(found), identity=identity(name="a")))
    assert decision.status.phase in {Phase.STARTING, Phase.WAITING}
