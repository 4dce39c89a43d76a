"""A new revision beside the old one: who serves, who may start, who has to go, and what is said meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import ended, identity, instance, plugin, world

from crucible.cli.waiting import is_ready
from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.errors import InvalidManifest
from crucible.model.decision import Kill, Remove, Start, Stop
from crucible.model.instance import Exit, State
from crucible.model.status import Phase, PluginStatus
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.decision import Decision
    from crucible.model.instance import Instance
    from crucible.model.world import World

ROLLING: dict[str, Any] = {"update": {"strategy": "rolling", "verify": "5s"}}
TWO: dict[str, Any] = {**ROLLING, "replicas": 2}


def wanted(spec: dict[str, Any] | None = None) -> str:
    return decide(world(spec=spec or ROLLING)).status.revision


NEW = wanted()


def scene(*instances: Instance, spec: dict[str, Any] | None = None, **changes: Any) -> World:
    return world(*instances, spec=spec or ROLLING, **changes)


def old(ordinal: int = 0, attempt: int = 1, **changes: Any) -> Instance:
    return instance(attempt, ordinal=ordinal, revision="older", **changes)


def starts(decision: Decision) -> list[Slot]:
    return [action.slot for action in decision.actions if isinstance(action, Start)]


def verified(seen: World) -> Decision:
    """Decide as soon as what is new was seen, and has run for as long as it takes to be trusted."""
    told = decide(seen)
    assert starts(told) == []
    assert told.revisit == seen.now
    again = decide(replace(seen, status=told.status))
    assert starts(again) == []
    assert again.revisit is not None
    assert again.revisit <= seen.now + 5
    return decide(replace(seen, status=told.status, now=again.revisit))


def condition(status: PluginStatus, kind: str) -> tuple[str, str]:
    (found,) = [entry for entry in status.conditions if entry.type == kind]
    return found.status, found.reason


def message(status: PluginStatus, kind: str) -> str:
    (found,) = [entry for entry in status.conditions if entry.type == kind]
    return found.message


def test_the_new_instance_starts_beside_the_old_one_which_goes_on() -> None:
    decision = decide(scene(old()))
    assert [type(action) for action in decision.actions] == [Start]
    assert starts(decision) == [Slot(0, 2)]
    (replica,) = decision.status.instances
    assert (replica.name, replica.incumbent) == ("echo-0-2", "echo-0-1")


def test_the_old_one_is_stopped_once_the_new_one_has_run_for_long_enough() -> None:
    first = decide(scene(old(), instance(2, revision=NEW), now=1000.0))
    assert first.actions == ()
    assert first.revisit == 1005.0
    early = decide(scene(old(), instance(2, revision=NEW), now=1004.9, status=first.status))
    assert early.actions == ()
    assert early.revisit == 1005.0
    verified = decide(scene(old(), instance(2, revision=NEW), now=1005.0, status=first.status))
    assert verified.actions == (Stop(Slot(0, 1)),)
    assert verified.status.instances[0].incumbent == ""


def test_one_that_does_not_run_yet_is_not_being_verified() -> None:
    starting = scene(old(), instance(2, revision=NEW, state=State.STARTING))
    status = decide(starting).status
    assert status.instances[0].running_since is None
    assert decide(replace(starting, now=2000.0, status=status)).actions == ()


@pytest.mark.parametrize(
    ("verify", "seconds"), [({}, 1.0), ({"verify": "0s"}, 0.0), ({"verify": "1m"}, 60.0)]
)
def test_a_second_is_long_enough_unless_the_manifest_says_otherwise(
    verify: dict[str, str], seconds: float
) -> None:
    spec = {"update": {"strategy": "rolling", **verify}}
    decision = decide(scene(old(), instance(2, revision=NEW), spec=spec))
    assert decision.revisit == (1000.0 + seconds if seconds else 1010.0)
    assert bool(decision.actions) == (seconds == 0.0)


def test_while_it_updates_it_is_ready_and_says_to_everyone_that_it_is_not_done() -> None:
    status = decide(scene(old(), instance(2, revision=NEW))).status
    assert status.phase is Phase.UPDATING
    assert status.ready_replicas == 1
    assert status.revision == NEW
    assert condition(status, "Ready") == ("True", "Updating")
    assert condition(status, "Progressing") == ("True", "Updating")
    assert condition(status, "Reconciling") == ("True", "Updating")
    assert condition(status, "Stalled")[0] == "False"
    obj = plugin() | {"status": status.model_dump(mode="json", by_alias=True)}
    assert not is_ready(obj)


def test_when_the_old_one_is_gone_the_update_is_over() -> None:
    stopping = old(state=State.STOPPING, stopping_at=1005.0)
    going = decide(scene(stopping, instance(2, revision=NEW), now=1006.0))
    assert going.status.phase is Phase.UPDATING
    assert going.revisit == 1015.0
    over = decide(scene(instance(2, revision=NEW), now=1006.0))
    assert over.status.phase is Phase.RUNNING
    assert "Reconciling" not in {entry.type for entry in over.status.conditions}
    obj = plugin() | {"status": over.status.model_dump(mode="json", by_alias=True)}
    assert is_ready(obj)


def test_one_that_ignores_the_request_to_stop_is_killed_after_its_grace() -> None:
    stubborn = old(state=State.STOPPING, stopping_at=990.0)
    assert decide(scene(stubborn, instance(2, revision=NEW))).actions == (Kill(Slot(0, 1)),)


def failed(count: int, **spec: Any) -> Decision:
    """Let the new revision end this many times beside the old one, 0.01 s apart."""
    status, decision = PluginStatus(), None
    for attempt in range(2, count + 2):
        at = 999.0 + attempt / 100
        ends = ended(attempt, at=at, revision=NEW)
        decision = decide(scene(old(), ends, now=at, status=status, spec={**ROLLING, **spec}))
        status = decision.status
    assert decision is not None
    return decision


def test_a_new_revision_that_ends_is_tried_again_while_the_old_one_serves() -> None:
    once = failed(1)
    assert starts(once) == [Slot(0, 3)]
    assert not [action for action in once.actions if isinstance(action, Stop)]
    assert condition(once.status, "Degraded") == ("True", "UpdateFailing")
    twice = failed(2)
    assert starts(twice) == []
    assert twice.revisit is not None
    assert twice.status.phase is Phase.UPDATING
    assert condition(twice.status, "Ready")[0] == "True"
    assert condition(twice.status, "Progressing")[0] == "True"
    assert condition(twice.status, "Degraded") == ("True", "UpdateFailing")
    said = message(twice.status, "Degraded")
    assert said.startswith("the new revision of replica 0 exited with status 1; crash 2, started again at ")
    assert said.endswith("; echo-0-1 of the revision before keeps serving")


def test_a_new_revision_that_goes_on_failing_is_given_up_and_the_old_one_serves() -> None:
    decision = failed(6)
    assert decision.actions == ()
    assert [event.reason for event in decision.events] == ["Crashed", "UpdateFailed"]
    status = decision.status
    assert status.phase is Phase.QUARANTINED
    assert status.ready_replicas == 1
    assert condition(status, "Ready") == ("True", "UpdateFailed")
    assert condition(status, "Stalled") == ("True", "UpdateFailed")
    assert condition(status, "Degraded") == ("True", "UpdateFailed")
    assert condition(status, "Progressing")[0] == "False"
    assert "echo-0-1 of the revision before keeps serving" in message(status, "Degraded")
    much_later = decide(scene(old(), ended(7, revision=NEW), now=1_000_000.0, status=status))
    assert much_later.actions == ()
    assert much_later.events == ()


def test_another_manifest_ends_what_was_given_up() -> None:
    given_up = failed(6).status
    changed = scene(old(), ended(7, revision=NEW), status=given_up, spec={**ROLLING, "config": {"a": 1}})
    assert starts(decide(changed)) == [Slot(0, 8)]
    asked = scene(old(), ended(7, revision=NEW), status=given_up, identity=identity(restart="now"))
    assert starts(decide(asked)) == [Slot(0, 8)]


def test_going_back_to_what_serves_stops_the_new_one_at_once() -> None:
    decision = decide(scene(instance(1, revision=NEW), instance(2, revision="newer")))
    assert decision.actions == (Stop(Slot(0, 2)),)


def test_of_three_revisions_the_oldest_serves_and_the_one_in_between_makes_room() -> None:
    decision = decide(scene(old(), instance(2, revision="between")))
    assert decision.actions[0] == Stop(Slot(0, 2))
    assert starts(decision) == [Slot(0, 3)]
    assert decision.status.instances[0].incumbent == "echo-0-1"


def test_one_that_does_not_serve_yet_has_nothing_to_keep() -> None:
    decision = decide(scene(old(state=State.STARTING)))
    assert decision.actions[0] == Stop(Slot(0, 1))
    assert starts(decision) == [Slot(0, 2)]


def test_one_replica_is_updated_at_a_time() -> None:
    assert starts(decide(scene(old(), old(1, 2), spec=TWO))) == [Slot(0, 3)]
    surging = scene(old(), old(1, 2), instance(3, ordinal=1, revision=NEW), spec=TWO)
    assert starts(decide(surging)) == []
    stopping = old(state=State.STOPPING, stopping_at=999.0)
    done = scene(stopping, instance(3, revision=NEW), old(1, 2), spec=TWO)
    assert starts(verified(done)) == [Slot(1, 4)]


def test_the_next_replica_waits_until_every_other_one_serves() -> None:
    starting = instance(3, revision=NEW, state=State.STARTING)
    assert starts(decide(scene(starting, old(1, 2), spec=TWO))) == []
    waiting = decide(scene(starting, old(1, 2), spec=TWO)).status.instances[1]
    assert (waiting.name, waiting.incumbent, waiting.state) == ("echo-1-2", "echo-1-2", "running")
    assert starts(verified(scene(instance(3, revision=NEW), old(1, 2), spec=TWO))) == [Slot(1, 4)]


def test_a_replica_whose_new_revision_failed_keeps_its_turn() -> None:
    third = {**ROLLING, "replicas": 3}
    ends = ended(4, ordinal=1, at=999.5, revision=NEW)
    seen = scene(instance(3, revision=NEW), old(1, 1), ends, old(2, 2), now=999.5, spec=third)
    begun = decide(replace(seen, status=decide(seen).status))
    assert starts(begun) == [Slot(1, 5)]
    again = ended(5, ordinal=1, at=999.6, revision=NEW)
    # Replica 0 lost its new instance's place to one of the old revision: it comes first, but it has to wait.
    late = scene(old(0, 3), old(1, 1), ends, again, old(2, 2), now=999.6, status=begun.status, spec=third)
    waiting = decide(late)
    assert starts(waiting) == []
    assert starts(decide(replace(late, now=1000.0, status=waiting.status))) == [Slot(1, 6)]


def test_an_old_one_that_ends_in_the_middle_is_told_once_and_kept_until_it_was() -> None:
    crash = ended(2, at=999.0, revision=NEW)
    before = decide(scene(old(), crash, now=999.0)).status
    gone = ended(1, at=999.5, revision="older", exit=Exit(at=999.5, code=7))
    first = decide(scene(gone, crash, instance(3, revision=NEW), status=before))
    assert [event.message for event in first.events] == ["echo-0-1 exited with status 7"]
    assert not [action for action in first.actions if action == Remove(Slot(0, 1))]
    second = decide(scene(gone, crash, instance(3, revision=NEW), status=first.status))
    assert second.events == ()
    assert second.actions == (Remove(Slot(0, 2)),), "the one that ended last stays, for its output"
    assert second.status.instances[0].crashes == (999.0,)


def test_fewer_replicas_suspending_and_deleting_stop_both_revisions() -> None:
    both = (old(), old(1, 2), instance(3, ordinal=1, revision=NEW))
    fewer = decide(scene(*both))
    assert {action.slot for action in fewer.actions if isinstance(action, Stop)} == {Slot(1, 2), Slot(1, 3)}
    for going in (
        decide(scene(*both, spec={**TWO, "suspend": True})),
        decide(scene(*both, spec=TWO, identity=identity(deleting=True))),
    ):
        assert going.actions == (Stop(Slot(0, 1)), Stop(Slot(1, 2)), Stop(Slot(1, 3)))


def test_recreating_in_the_middle_of_a_rolling_update_keeps_one_instance() -> None:
    both = world(old(), instance(2, revision=NEW))
    assert decide(both).actions == (Stop(Slot(0, 1)),)
    assert starts(decide(world(old()))) == []


def test_what_was_said_is_enough_for_another_controller_to_go_on() -> None:
    first = decide(scene(old(), instance(2, revision=NEW), now=1000.0)).status
    stored = PluginStatus.model_validate(first.model_dump(mode="json", by_alias=True))
    decision = decide(scene(old(), instance(2, revision=NEW), now=1005.0, status=stored))
    assert decision.actions == (Stop(Slot(0, 1)),)


def test_verifying_belongs_to_rolling() -> None:
    with pytest.raises(InvalidManifest, match=r"spec\.update: verify is for strategies rolling"):
        admit(plugin(update={"verify": "1s"}))


def test_the_time_of_an_instance_that_ended_does_not_count_for_the_next() -> None:
    ran = decide(scene(old(), instance(2, revision=NEW), now=1000.0)).status
    # A controller saw the crash, started the next instance, and died before it could say so.
    unsaid = scene(
        old(), ended(2, at=1001.0, revision=NEW), instance(3, revision=NEW), now=1006.0, status=ran
    )
    decision = decide(unsaid)
    assert not [action for action in decision.actions if isinstance(action, Stop)]
    assert decision.status.instances[0].running_since == 1006.0


def test_a_replica_that_failed_too_stays_as_it_is_until_it_has_the_turn() -> None:
    first = failed(6, replicas=1).status
    (given_up,) = first.instances
    other = given_up.model_copy(update={"ordinal": 1, "incumbent": "echo-1-9"})
    status = first.model_copy(update={"instances": (given_up, other)})
    decision = decide(scene(old(), old(1, 9), status=status, spec=TWO))
    assert decision.actions == ()
    assert [replica.quarantined for replica in decision.status.instances] == [True, True]
