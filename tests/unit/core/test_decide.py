from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import DIGEST, capabilities, ended, identity, instance, world

from crucible.core.decide import ENDPOINT_INTERVAL, OUTAGE_RETRY, SOURCE_RETRY, decide
from crucible.core.render import render
from crucible.errors import Violation
from crucible.model.decision import Event, Hold, Kill, Remove, Start, Stop
from crucible.model.enforcement import Control, Enforcement, Level
from crucible.model.instance import Exit, State
from crucible.model.manifest import PluginSpec
from crucible.model.status import Phase, PluginStatus, SourceReport
from crucible.model.workload import Slot
from crucible.model.world import Reach

if TYPE_CHECKING:
    from crucible.model.world import World


def revision(of: World) -> str:
    assert isinstance(of.spec, PluginSpec)
    return render(of.identity, of.spec, SourceReport(digest=DIGEST, resolved_for="inline")).revision


def condition(status: PluginStatus, kind: str) -> tuple[str, str]:
    (found,) = [entry for entry in status.conditions if entry.type == kind]
    return found.status, found.reason


def reasons(of: World) -> list[str]:
    return [event.reason for event in decide(of).events]


REVISION = revision(world())


def test_a_new_plugin_is_started_once_for_each_replica() -> None:
    decision = decide(world(spec={"replicas": 3}))
    assert [action.slot for action in decision.actions if isinstance(action, Start)] == [
        Slot(0, 1),
        Slot(1, 2),
        Slot(2, 3),
    ]
    assert len(decision.actions) == 3
    assert decision.status.phase is Phase.STARTING
    assert condition(decision.status, "Ready") == ("False", "Starting")


def test_an_object_that_could_disappear_is_held_before_the_first_start() -> None:
    first, second = decide(world(identity=identity(finalizers=("other/one",)))).actions
    assert first == Hold()
    assert isinstance(second, Start)
    running = world(instance(revision=REVISION), identity=identity(finalizers=()))
    assert decide(running).actions == ()


def test_a_running_plugin_needs_nothing() -> None:
    decision = decide(world(instance(revision=REVISION)))
    assert decision.actions == ()
    assert decision.events == ()
    assert decision.revisit is None
    assert decision.status.phase is Phase.RUNNING
    assert condition(decision.status, "Ready") == ("True", "Running")
    assert decision.status.ready_replicas == 1


def test_an_instance_that_is_still_starting_is_not_ready() -> None:
    decision = decide(world(instance(revision=REVISION, state=State.STARTING)))
    assert decision.actions == ()
    assert decision.status.ready_replicas == 0
    assert condition(decision.status, "Ready")[0] == "False"


def test_the_first_crash_is_answered_by_an_immediate_start_of_the_next_attempt() -> None:
    decision = decide(world(ended(4, revision=REVISION)))
    (start,) = decision.actions
    assert isinstance(start, Start)
    assert start.slot == Slot(0, 5)
    assert [event.reason for event in decision.events] == ["Crashed", "Started"]
    (replica,) = decision.status.instances
    assert replica.restarts == 1
    assert replica.crashes == (999.0,)
    assert replica.last_exit is not None
    assert replica.last_exit.message == "exited with status 1"


def test_an_end_is_counted_once_however_often_it_is_seen() -> None:
    first = decide(world(ended(1, revision=REVISION)))
    again = decide(
        world(
            ended(1, revision=REVISION),
            instance(2, revision=REVISION, created_at=1000.0),
            status=first.status,
        )
    )
    assert again.status.instances[0].crashes == (999.0,)
    assert again.status.instances[0].restarts == 1
    assert again.events == ()


def test_later_crashes_wait_and_say_until_when() -> None:
    before = decide(world(ended(1, revision=REVISION))).status
    later = world(
        ended(1, revision=REVISION), ended(2, at=999.5, revision=REVISION), now=999.5, status=before
    )
    decision = decide(later)
    assert not [action for action in decision.actions if isinstance(action, Start)]
    assert decision.revisit is not None
    assert 999.5 < decision.revisit <= 999.6
    assert decision.status.phase is Phase.BACK_OFF
    assert decision.status.instances[0].next_start == decision.revisit
    assert condition(decision.status, "Degraded") == ("True", "BackOff")


def test_a_wait_that_is_over_ends_in_a_start() -> None:
    before = decide(world(ended(1, revision=REVISION))).status
    waiting = decide(world(ended(2, at=999.5, revision=REVISION), now=999.5, status=before)).status
    decision = decide(world(ended(2, at=999.5, revision=REVISION), now=999.7, status=waiting))
    assert [action.slot for action in decision.actions if isinstance(action, Start)] == [Slot(0, 3)]


def crash_loop(count: int, **spec: Any) -> PluginStatus:
    status = PluginStatus()
    for attempt in range(1, count + 1):
        scene = world(ended(attempt, at=999.0 + attempt / 100, revision=REVISION), now=1000.0, spec=spec)
        status = decide(replace(scene, status=status)).status
    return status


def test_a_crash_loop_ends_in_quarantine_and_says_how_to_leave_it() -> None:
    status = crash_loop(6)
    assert status.phase is Phase.QUARANTINED
    assert condition(status, "Stalled") == ("True", "CrashLoop")
    assert "crucible restart" in status.conditions[0].message


def test_crashes_older_than_the_window_are_forgotten_by_what_runs() -> None:
    again = instance(4, revision=REVISION, created_at=1000.0)
    running = decide(world(again, now=1010.0, status=crash_loop(3)))
    (replica,) = running.status.instances
    assert replica.crashes == (999.01, 999.02, 999.03)
    assert running.status.conditions[2].message == (
        "every control holds; replica 0 ended 3 times within the recovery window"
    )
    assert running.revisit == pytest.approx(999.01 + 600.0)
    later = decide(world(again, now=1599.025, status=running.status))
    assert later.status.instances[0].crashes == (999.03,)
    assert later.revisit is not None
    last = decide(world(again, now=later.revisit, status=later.status))
    assert last.status.instances[0].crashes == ()
    assert last.status.conditions[2].message == "every control holds and nothing crashed lately"
    assert (last.revisit, last.status.restarts) == (None, running.status.restarts)


def test_quarantine_outlasts_the_window_in_which_its_crashes_count() -> None:
    status = crash_loop(6)
    decision = decide(world(ended(6, revision=REVISION), now=1_000_000.0, status=status))
    assert decision.actions == ()
    assert decision.status.phase is Phase.QUARANTINED
    assert decision.events == ()


def test_a_requested_restart_releases_from_quarantine() -> None:
    asked = identity(restart="now")
    decision = decide(world(ended(6, revision=REVISION), status=crash_loop(6), identity=asked))
    assert [action.slot for action in decision.actions if isinstance(action, Start)] == [Slot(0, 7)]
    assert decision.status.instances[0].crashes == ()


def test_without_quarantine_a_crash_loop_backs_off_for_ever() -> None:
    status = crash_loop(30, recovery={"strategy": ["restart"], "maxRestarts": 1})
    assert status.phase is Phase.BACK_OFF


def test_a_stopped_instance_is_no_crash() -> None:
    stopped = ended(1, revision="older", stopping_at=990.0)
    decision = decide(world(stopped))
    assert decision.status.instances[0].crashes == ()
    assert [event.reason for event in decision.events] == ["Stopped", "Started"]


def test_a_changed_revision_stops_the_old_instance_before_the_new_one_starts() -> None:
    old = instance(1, revision="older")
    assert decide(world(old)).actions == (Stop(Slot(0, 1)),)
    stopping = replace(old, state=State.STOPPING, stopping_at=1000.0)
    waiting = decide(world(stopping, now=1001.0))
    assert waiting.actions == ()
    assert waiting.revisit == 1010.0
    assert waiting.status.phase is Phase.STOPPING
    gone = ended(1, revision="older", stopping_at=1000.0)
    assert any(isinstance(action, Start) for action in decide(world(gone)).actions)


def test_an_instance_that_ignores_the_request_to_stop_is_killed_after_the_grace_period() -> None:
    stubborn = instance(1, revision="older", state=State.STOPPING, stopping_at=990.0)
    assert decide(world(stubborn, now=999.9)).actions == ()
    assert decide(world(stubborn, now=1000.0)).actions == (Kill(Slot(0, 1)),)


def test_a_clock_that_was_set_back_delays_no_kill_and_no_restart_by_more_than_their_own_time() -> None:
    asked = world(instance(state=State.STOPPING, stopping_at=9000.0), spec={"suspend": True}, now=1000.0)
    assert decide(asked).actions == (Kill(Slot(0, 1)),)
    status = crash_loop(2)
    crashed = status.instances[0].model_copy(update={"crashes": (8000.0, 9000.0), "next_start": 9000.1})
    ahead = status.model_copy(update={"instances": (crashed,)})
    waiting = decide(world(status=ahead, now=1000.0))
    assert waiting.revisit is not None
    assert waiting.revisit <= 1000.1
    assert decide(world(status=waiting.status, now=1000.2)).actions != ()


def test_of_two_instances_for_one_replica_the_newer_stays() -> None:
    decision = decide(world(instance(1, revision=REVISION), instance(2, revision=REVISION)))
    assert decision.actions == (Stop(Slot(0, 1)),)


def test_a_plugin_without_replicas_waits_for_no_moment() -> None:
    assert decide(world(spec={"replicas": 0})).revisit is None


def test_fewer_replicas_stop_the_surplus() -> None:
    scene = world(instance(1, revision=REVISION), instance(1, ordinal=1, revision=REVISION))
    assert decide(scene).actions == (Stop(Slot(1, 1)),)


def test_replicas_policy_and_description_do_not_touch_what_runs() -> None:
    changed = {"recovery": {"maxRestarts": 1}, "description": "x", "version": "2.0.0"}
    assert decide(world(instance(revision=REVISION), spec=changed)).actions == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"a": 1}},
        {"env": [{"name": "A", "value": "1"}]},
        {"resources": {"memory": "64Mi"}},
        {"entrypoint": ["main.py", "--fast"]},
        {"stopGrace": "1s"},
    ],
)
def test_whatever_the_plugin_would_notice_replaces_its_instances(changed: dict[str, Any]) -> None:
    assert decide(world(instance(revision=REVISION), spec=changed)).actions == (Stop(Slot(0, 1)),)


def test_ended_instances_are_cleared_away_but_the_newest_and_those_not_yet_on_record() -> None:
    ends = (ended(1, revision=REVISION, at=900.0), ended(2, revision=REVISION, at=950.0))
    first = decide(world(*ends, instance(3, revision=REVISION)))
    assert not [action for action in first.actions if isinstance(action, Remove)]
    assert first.revisit == 1000.0
    second = decide(world(*ends, instance(3, revision=REVISION), status=first.status))
    assert second.actions == (Remove(Slot(0, 1)),)


def test_deletion_winds_down_and_then_releases() -> None:
    going = identity(deleting=True)
    assert decide(world(instance(), identity=going)).actions == (Stop(Slot(0, 1)),)
    left = decide(world(ended(), identity=going))
    assert left.actions == (Remove(Slot(0, 1)),)
    assert not left.released
    assert left.status.phase is Phase.TERMINATING
    assert decide(world(identity=going)).released


def test_an_invalid_plugin_that_is_deleted_is_still_released() -> None:
    going = identity(deleting=True)
    assert decide(world(identity=going, spec=(Violation("spec", "is wrong"),))).released


def test_an_invalid_plugin_never_runs() -> None:
    wrong = (Violation("spec.type", "is required"),)
    assert decide(world(spec=wrong)).actions == ()
    decision = decide(world(instance(), spec=wrong))
    assert decision.actions == (Stop(Slot(0, 1)),)
    assert decision.status.phase is Phase.REFUSED
    assert condition(decision.status, "Stalled") == ("True", "Invalid")
    assert decision.status.conditions[0].message == "spec.type: is required"


def test_a_refusal_is_told_once() -> None:
    wrong = (Violation("spec.type", "is required"),)
    first = decide(world(spec=wrong))
    assert [event.reason for event in first.events] == ["Invalid"]
    assert reasons(world(spec=wrong, status=first.status)) == []
    other = (Violation("spec.version", "is required"),)
    assert reasons(world(spec=other, status=first.status)) == ["Invalid"]


@pytest.mark.parametrize("level", [Level.DEGRADED, Level.UNAVAILABLE])
def test_a_control_that_does_not_hold_stops_the_plugin_unless_it_accepts_that(level: Level) -> None:
    weak = capabilities(MEMORY=level)
    decision = decide(world(instance(revision=REVISION), capabilities=weak))
    assert decision.actions == (Stop(Slot(0, 1)),)
    assert condition(decision.status, "Stalled") == ("True", "NotEnforceable")
    assert "allowDegraded: [memory]" in decision.status.conditions[0].message
    accepted = {"sandbox": {"allowDegraded": ["memory"]}}
    allowed = decide(world(instance(revision=REVISION), capabilities=weak, spec=accepted))
    assert allowed.actions == ()
    assert condition(allowed.status, "Ready")[0] == "True"
    assert condition(allowed.status, "Degraded") == ("True", "WeakerThanPromised")


def test_accepting_one_gap_accepts_no_other() -> None:
    weak = capabilities(MEMORY=Level.DEGRADED, PIDS=Level.UNAVAILABLE)
    decision = decide(world(capabilities=weak, spec={"sandbox": {"allowDegraded": ["memory"]}}))
    assert "allowDegraded: [pids]" in decision.status.conditions[0].message


def test_controls_that_fail_for_one_reason_are_named_together() -> None:
    why = "no cgroup was delegated; run it with Delegate=yes"
    here = capabilities()
    both = {Control.CPU, Control.MEMORY}
    weak = tuple(
        Enforcement(entry.control, Level.UNAVAILABLE, why) if entry.control in both else entry
        for entry in here.controls
    )
    message = decide(world(capabilities=replace(here, controls=weak))).status.conditions[0].message
    assert message.startswith(f"cpu, memory are unavailable: {why}. Mend the host")
    assert message.endswith("allowDegraded: [cpu, memory]")


def test_a_crash_of_an_older_revision_does_not_count_against_the_new_one() -> None:
    decision = decide(world(ended(1, revision="older")))
    assert decision.status.instances[0].crashes == ()
    assert decision.status.instances[0].restarts == 0
    assert [(event.type, event.reason) for event in decision.events] == [
        ("Warning", "Crashed"),
        ("Normal", "Started"),
    ]


def test_an_end_that_was_asked_for_is_told_as_such() -> None:
    (told, _) = decide(world(ended(1, revision="older", stopping_at=990.0))).events
    assert told == Event("Normal", "Stopped", "echo-0-1 stopped")


def test_a_changed_revision_remembers_how_the_last_instance_ended() -> None:
    before = decide(world(ended(3, revision=REVISION))).status
    changed = world(ended(3, revision=REVISION), spec={"config": {"a": 1}}, status=before)
    (replica,) = decide(changed).status.instances
    assert replica.last_exit == before.instances[0].last_exit
    assert (replica.attempt, replica.crashes, replica.restarts) == (5, (), 0)


def test_a_replica_that_waits_is_described_without_a_process() -> None:
    before = decide(world(instance(1, revision=REVISION, pid=77))).status
    once = decide(world(ended(1, revision=REVISION), now=999.0, status=before)).status
    later = world(ended(1, revision=REVISION), ended(2, at=999.5, revision=REVISION), now=999.5, status=once)
    (replica,) = decide(later).status.instances
    assert (replica.state, replica.pid, replica.attempt) == ("exited", None, 2)
    back = decide(world(instance(3, revision=REVISION), now=1001.0, status=decide(later).status))
    assert back.status.instances[0].next_start is None
    assert back.status.instances[0].restarts == 2


def test_quarantine_ends_the_wait() -> None:
    status = crash_loop(5)
    waiting = status.instances[0].model_copy(update={"next_start": 1005.0})
    before = status.model_copy(update={"instances": (waiting,)})
    held = decide(world(ended(6, at=999.5, revision=REVISION), status=before)).status.instances[0]
    assert held.quarantined
    assert held.next_start is None


def test_a_refused_plugin_is_looked_at_again_while_it_winds_down() -> None:
    wrong = (Violation("spec", "is wrong"),)
    decision = decide(world(instance(), spec=wrong))
    assert decision.revisit == 1010.0
    assert [replica.state for replica in decision.status.instances] == ["stopping"]


def test_a_type_this_host_cannot_run_is_refused() -> None:
    bare = replace(capabilities(), types=frozenset({"binary"}))
    decision = decide(world(capabilities=bare))
    assert condition(decision.status, "Stalled") == ("True", "TypeUnavailable")


def test_an_isolation_the_runtime_does_not_offer_is_refused() -> None:
    decision = decide(world(spec={"sandbox": {"isolation": "vm"}}))
    assert condition(decision.status, "Stalled") == ("True", "IsolationUnavailable")


def test_without_its_source_a_plugin_waits_and_what_runs_goes_on() -> None:
    lost = Violation("spec.source", "path /x cannot be opened")
    decision = decide(world(instance(revision="older"), source=lost))
    assert decision.actions == ()
    assert decision.revisit == 1000.0 + SOURCE_RETRY
    assert condition(decision.status, "Ready") == ("False", "SourceUnavailable")
    assert [event.reason for event in decision.events] == ["SourceUnavailable"]
    assert reasons(world(source=lost, status=decision.status)) == []


def test_suspending_stops_everything_and_resuming_starts_it_again() -> None:
    at_rest = {"suspend": True}
    running = world(instance(revision=REVISION), spec=at_rest)
    assert decide(running).actions == (Stop(Slot(0, 1)),)
    rested = decide(world(spec=at_rest, status=decide(running).status))
    assert rested.status.phase is Phase.SUSPENDED
    resumed = decide(world(status=rested.status))
    assert [action.slot for action in resumed.actions if isinstance(action, Start)] == [Slot(0, 2)]


def test_out_of_memory_and_failed_starts_have_their_own_reasons() -> None:
    assert "OOMKilled" in reasons(world(ended(revision=REVISION, exit=Exit(at=1.0, signal=9, oom=True))))
    assert "StartFailed" in reasons(
        world(ended(revision=REVISION, exit=Exit(at=1.0, problem="no such file")))
    )


def test_a_notice_degrades_and_says_what() -> None:
    loud = instance(revision=REVISION, notices=("output is held to 1 MiB/s",))
    decision = decide(world(loud))
    assert condition(decision.status, "Ready")[0] == "True"
    assert condition(decision.status, "Degraded") == ("True", "Limited")


def test_a_condition_keeps_its_transition_time_until_it_flips() -> None:
    first = decide(world(instance(revision=REVISION), now=1000.0)).status
    same = decide(world(instance(revision=REVISION), now=2000.0, status=first)).status
    assert [entry.last_transition_time for entry in same.conditions] == [1000.0] * 4
    flipped = decide(world(ended(revision=REVISION), now=3000.0, status=same)).status
    assert {entry.type: entry.last_transition_time for entry in flipped.conditions}["Ready"] == 3000.0


def test_whoever_is_asked_to_stop_is_looked_at_again_when_the_grace_period_is_over() -> None:
    assert decide(world(instance(1, revision="older"))).revisit == 1010.0


def test_the_status_speaks_of_the_generation_it_saw() -> None:
    newer = identity(generation=7)
    decision = decide(world(identity=newer))
    assert decision.status.observed_generation == 7
    assert {entry.observed_generation for entry in decision.status.conditions} == {7}


def test_zero_replicas_are_ready() -> None:
    decision = decide(world(spec={"replicas": 0}))
    assert decision.actions == ()
    assert condition(decision.status, "Ready") == ("True", "Running")


def test_while_the_runtime_does_not_answer_nothing_is_done_and_the_status_says_why() -> None:
    before = decide(world(instance(revision=REVISION))).status
    out = world(instance(revision=REVISION), status=before, outage="the engine is down: start it")
    decision = decide(out)
    assert decision.actions == ()
    assert condition(decision.status, "Ready") == ("False", "RuntimeUnavailable")
    assert decision.status.instances == before.instances
    assert decision.revisit == out.now + OUTAGE_RETRY
    assert reasons(out) == ["RuntimeUnavailable"]
    assert reasons(replace(out, status=decision.status)) == []


def test_a_plugin_that_is_deleted_during_an_outage_is_not_let_go() -> None:
    assert not decide(world(identity=identity(deleting=True), outage="down")).released


def test_a_runtime_is_asked_for_what_it_offers_before_anything_starts() -> None:
    image = {"type": "binary", "source": {"image": "x"}, "entrypoint": []}
    listens = {"capabilities": {"network": {"listen": [80]}}}
    assert condition(decide(world(spec=image)).status, "Ready")[1] == "SourceUnsupported"
    deaf = capabilities(LISTEN=Level.UNAVAILABLE)
    assert condition(decide(world(spec=listens, capabilities=deaf)).status, "Ready")[1] == "ListenUnavailable"
    both = replace(capabilities(), sources=frozenset({"image"}))
    (_, start) = decide(
        world(spec={**image, **listens}, capabilities=both, identity=identity(finalizers=()))
    ).actions
    assert isinstance(start, Start)
    assert start.workload.listen == (80,)


def test_an_endpoint_needs_no_runtime_but_what_it_was_before_is_wound_down_first() -> None:
    url = {"type": "service", "source": {"url": "https://x"}, "entrypoint": []}
    reach = Reach(ok=True, message="https://x answers")
    of = world(spec=url, reach=reach, outage="down")
    assert condition(decide(of).status, "Ready") == ("True", "Reachable")
    assert decide(of).revisit == of.now + ENDPOINT_INTERVAL
    assert decide(replace(of, instances=(instance(),))).actions == ()
    assert decide(replace(of, instances=(instance(),), outage="")).actions == (Stop(Slot(0, 1)),)
