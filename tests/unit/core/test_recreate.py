"""The step of recovery that deletes all that was made for a replica before it is started again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from build import ended, instance, world

from crucible.core.decide import decide
from crucible.model.decision import Remove, Start
from crucible.model.instance import State
from crucible.model.status import Phase
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.world import World

SPEC: dict[str, Any] = {"recovery": {"strategy": ["restart", "recreate", "quarantine"], "maxRestarts": 1}}
REVISION = decide(world(spec=SPEC)).status.revision


def crashed_twice() -> World:
    """Return the world after the second crash: the restart is used up, both ends are there to look at."""
    first = decide(world(ended(1, revision=REVISION), spec=SPEC))
    again = world(ended(1, revision=REVISION), ended(2, at=999.5, revision=REVISION), spec=SPEC, now=1001.0)
    return replace(again, status=first.status)


def test_nothing_is_started_before_all_is_deleted_and_nothing_deleted_before_its_end_is_on_record() -> None:
    seen = crashed_twice()
    told = decide(seen)
    assert told.actions == (Remove(Slot(0, 1)),)
    assert told.revisit == 1001.0
    gone = replace(seen, instances=seen.instances[1:], status=told.status)
    cleared = decide(gone)
    assert cleared.actions == (Remove(Slot(0, 2)),)
    assert cleared.revisit == 1001.0
    again = decide(replace(gone, instances=(), status=cleared.status))
    assert [action.slot for action in again.actions if isinstance(action, Start)] == [Slot(0, 3)]
    (event,) = again.events
    assert (event.type, event.reason) == ("Warning", "Recreated")
    assert "ended 2 times" in event.message


def test_a_restart_leaves_what_explains_the_end() -> None:
    decision = decide(world(ended(1, revision=REVISION), spec=SPEC))
    assert not [action for action in decision.actions if isinstance(action, Remove)]
    assert any(isinstance(action, Start) for action in decision.actions)


def test_it_waits_out_the_backoff_and_keeps_what_explains_the_end_meanwhile() -> None:
    early = replace(crashed_twice(), now=999.55)
    decision = decide(early)
    assert Remove(Slot(0, 2)) not in decision.actions
    assert decision.status.phase is Phase.BACK_OFF


def test_after_it_comes_the_next_step() -> None:
    status = crashed_twice().status
    for attempt in (2, 3):
        at = 998.0 + attempt
        scene = world(ended(attempt, at=at, revision=REVISION), spec=SPEC, now=at + 0.01, status=status)
        status = decide(scene).status
    assert status.phase is Phase.QUARANTINED


def test_the_other_replicas_are_left_alone() -> None:
    spec = {**SPEC, "replicas": 2}
    first = decide(world(ended(1, revision=REVISION), instance(2, ordinal=1, revision=REVISION), spec=spec))
    others = (instance(2, ordinal=1, revision=REVISION), ended(3, at=999.5, revision=REVISION))
    seen = world(*others, spec=spec, now=1001.0, status=first.status)
    told = decide(seen)
    cleared = decide(replace(seen, status=told.status))
    assert cleared.actions == (Remove(Slot(0, 3)),)
    assert cleared.status.instances[1].state == State.RUNNING.value
