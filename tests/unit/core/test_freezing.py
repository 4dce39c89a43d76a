"""A Plugin that is held still, and one that goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import capabilities, ended, identity, instance, world

from crucible.core.decide import decide
from crucible.model.decision import Freeze, Kill, Start, Stop, Thaw
from crucible.model.instance import State
from crucible.model.status import Phase
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.decision import Decision
    from crucible.model.instance import Instance
    from crucible.model.world import World

STILL = identity(frozen="2026-01-01T00:00:00Z")
REVISION = decide(world()).status.revision
RUNS = instance(1, revision=REVISION)
PROBED: dict[str, Any] = {"health": {"ready": {"tcp": {"port": 1}}, "live": {"tcp": {"port": 1}}}}


def frozen(*instances: Instance, **changes: Any) -> World:
    return world(*instances, identity=STILL, **changes)


def condition(decision: Decision, kind: str) -> tuple[str, str]:
    (found,) = [entry for entry in decision.status.conditions if entry.type == kind]
    return found.status, found.reason


def test_what_runs_is_held_still_and_said_to_be() -> None:
    decision = decide(frozen(RUNS))
    assert decision.actions == (Freeze(Slot(0, 1)),)
    assert decision.revisit == 1000.0
    done = decide(frozen(replace(RUNS, frozen=True), status=decision.status))
    assert (done.actions, done.events, done.revisit) == ((), (), None)
    assert done.status.phase is Phase.FROZEN
    assert condition(done, "Ready") == ("False", "Frozen")
    assert condition(done, "Progressing") == ("False", "Frozen")
    assert [event.reason for event in decision.events] == ["Frozen"]


def test_one_that_starts_is_held_still_once_it_runs() -> None:
    starting = decide(frozen(replace(RUNS, state=State.STARTING)))
    assert starting.actions == ()
    assert condition(starting, "Progressing") == ("True", "Frozen")


def test_it_goes_on_when_nobody_asks_any_more_and_only_then_is_it_looked_after() -> None:
    before = decide(frozen(RUNS)).status
    decision = decide(world(replace(RUNS, frozen=True), status=before, spec={"config": {"a": 1}}))
    assert decision.actions == (Thaw(Slot(0, 1)),)
    assert decision.revisit == 1000.0
    after = decide(world(RUNS, status=decision.status))
    assert after.status.phase is Phase.RUNNING
    assert after.status.instances[0].crashes == ()


def test_its_probes_are_not_asked_and_what_they_came_to_is_kept() -> None:
    revision = decide(world(spec=PROBED)).status.revision
    runs = instance(1, revision=revision)
    first = decide(world(runs, spec=PROBED))
    assert first.watches
    told = first.status.instances[0].model_copy(update={"ready_since": 990.0})
    status = first.status.model_copy(update={"instances": (told,)})
    decision = decide(frozen(replace(runs, frozen=True), spec=PROBED, status=status, now=5000.0))
    assert decision.watches == ()
    assert decision.status.instances[0].probes == told.probes
    assert decision.status.instances[0].ready_since == 990.0
    assert not decision.status.instances[0].ready


def test_one_that_ends_meanwhile_is_not_started_and_no_end_is_lost() -> None:
    before = decide(world(RUNS)).status
    gone = ended(1, revision=REVISION)
    held = decide(frozen(gone, status=before))
    assert held.actions == ()
    after = decide(world(gone, status=held.status))
    assert [event.reason for event in after.events] == ["Crashed", "Started"]
    assert after.status.instances[0].crashes == (999.0,)


def test_a_changed_manifest_waits() -> None:
    decision = decide(frozen(replace(RUNS, revision="older", frozen=True)))
    assert decision.actions == ()


@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({"spec": {"suspend": True}}, Stop),
        ({"identity": replace(STILL, deleting=True)}, Stop),
        ({"capabilities": replace(capabilities(), types=frozenset())}, Stop),
    ],
)
def test_what_has_to_end_goes_on_first(changes: dict[str, Any], follows: type) -> None:
    seen = world(replace(RUNS, frozen=True), **{"identity": STILL, **changes})
    thawing = decide(seen)
    assert thawing.actions == (Thaw(Slot(0, 1)),)
    (action,) = decide(replace(seen, instances=(RUNS,), status=thawing.status)).actions
    assert isinstance(action, follows)


def test_one_that_was_asked_to_stop_before_is_ended_in_time() -> None:
    stopping = replace(RUNS, state=State.STOPPING, stopping_at=980.0)
    assert decide(frozen(stopping)).actions == (Kill(Slot(0, 1)),)


def test_a_runtime_that_cannot_says_why_and_the_plugin_goes_on() -> None:
    here = replace(capabilities(), no_freezer="a pod cannot be frozen")
    decision = decide(frozen(RUNS, capabilities=here))
    assert decision.actions == ()
    assert decision.status.phase is Phase.RUNNING
    assert condition(decision, "Degraded") == ("True", "FreezeUnavailable")
    assert [event.reason for event in decision.events] == ["FreezeUnavailable"]
    assert decide(frozen(RUNS, capabilities=here, status=decision.status)).events == ()
    assert any(isinstance(action, Start) for action in decide(frozen(capabilities=here)).actions)


def test_time_spent_frozen_does_not_count_against_a_revision_on_trial() -> None:
    careful = {"update": {"rollbackOnFailure": True}, "health": {"ready": {"tcp": {"port": 1}}}}
    spec = {**careful, "config": {"a": 1}}
    good = decide(world(instance(1, revision=decide(world()).status.revision))).status
    wanted = decide(world(spec=spec, status=good)).status
    fresh = instance(2, revision=wanted.revision, created_at=1000.0)
    begun = decide(world(fresh, spec=spec, status=wanted)).status
    still = decide(frozen(replace(fresh, frozen=True), spec=spec, status=begun, now=1001.0)).status
    thawed = decide(world(replace(fresh, frozen=True), spec=spec, status=still, now=5000.0)).status
    after = decide(world(fresh, spec=spec, status=thawed, now=5001.0))
    assert after.status.rollback is None
    late = decide(world(fresh, spec=spec, status=after.status, now=5031.0))
    assert late.status.rollback is not None


def test_only_what_moves_is_held_still_and_only_what_is_held_still_goes_on() -> None:
    held = replace(RUNS, frozen=True)
    moving = instance(2, ordinal=1, revision=REVISION)
    gone = replace(ended(3), frozen=True)
    spec = {"replicas": 2}
    freezing = decide(frozen(held, moving, gone, spec=spec))
    assert freezing.actions == (Freeze(Slot(1, 2)),)
    (message,) = {each.message for each in freezing.status.conditions if each.type == "Ready"}
    assert message == "1 of 2 instances frozen; run 'crucible thaw' to go on"
    thawing = decide(world(held, moving, gone, spec=spec, status=freezing.status))
    assert thawing.actions == (Thaw(Slot(0, 1)),)
    assert [(event.type, event.reason, event.message) for event in thawing.events] == [
        ("Normal", "Thawed", "1 frozen instances go on")
    ]


def test_what_is_said_of_replicas_stays_but_that_none_of_them_serves() -> None:
    before = decide(world(RUNS))
    assert before.status.instances[0].ready
    still = decide(frozen(RUNS, status=before.status))
    assert [event.message for event in still.events] == ["held still until 'crucible thaw'"]
    assert [event.type for event in still.events] == ["Normal"]
    (replica,) = still.status.instances
    assert replica == before.status.instances[0].model_copy(update={"ready": False})
    thawing = decide(world(replace(RUNS, frozen=True), status=still.status))
    assert thawing.status.instances == still.status.instances
    assert condition(thawing, "Progressing") == ("True", "Thawed")
    assert thawing.status.phase is Phase.STARTING
