"""From answers to verdicts, and what follows from those."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import ended, instance, plugin, world
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import admit, violations_of
from crucible.core.decide import decide
from crucible.core.health import pause_before, tally
from crucible.core.restart import recent
from crucible.model.decision import Start, Stop
from crucible.model.health import Answer, Check, Streak, Watch
from crucible.model.instance import State
from crucible.model.probe import KINDS, Probe
from crucible.model.status import Phase, PluginStatus
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.decision import Decision
    from crucible.model.world import World

HTTP: dict[str, Any] = {"http": {"port": 8080}, "interval": "1s"}
READY: dict[str, Any] = {"health": {"ready": HTTP}}
LIVE: dict[str, Any] = {"health": {"live": HTTP}}
STARTUP: dict[str, Any] = {"health": {"startup": {"tcp": {"port": 1}}, "ready": HTTP, "live": HTTP}}
WELL = Streak(ok=True, count=1, at=999.0)
ILL = Streak(ok=False, count=3, message="status 503", at=999.0)


EXPRESSION = "spec.health.live.custom.expression:"


def custom(expression: str) -> dict[str, Any]:
    return {"live": {"custom": {"expression": expression}}}


def scene(spec: dict[str, Any], streaks: dict[Check, Streak], **changes: Any) -> World:
    """Return a world in which one instance of the wanted revision runs."""
    here = {key: changes[key] for key in ("capabilities",) if key in changes}
    revision = decide(world(spec=spec, **here)).status.revision
    attempt = changes.pop("attempt", 1)
    found = instance(attempt, revision=revision, state=changes.pop("state", State.RUNNING))
    said = {(attempt, check): streak for check, streak in streaks.items()}
    return world(found, spec=spec, streaks=said, **changes)


def claim(decision: Decision, kind: str) -> tuple[str, str]:
    (found,) = [entry for entry in decision.status.conditions if entry.type == kind]
    return found.status, found.reason


def asked(decision: Decision) -> list[Check]:
    return [watch.check for watch in decision.watches]


def test_a_plugin_is_not_ready_before_its_probe_passes() -> None:
    waiting = decide(scene(READY, {}))
    assert claim(waiting, "Ready") == ("False", "Starting")
    assert waiting.status.ready_replicas == 0
    assert asked(waiting) == [Check.READY]
    passed = decide(scene(READY, {Check.READY: WELL}, status=waiting.status))
    assert claim(passed, "Ready") == ("True", "Running")
    assert [event.reason for event in passed.events] == ["Ready"]
    assert passed.status.phase is Phase.RUNNING


def test_nothing_is_asked_of_one_that_does_not_run_yet_or_any_more() -> None:
    assert asked(decide(scene(READY, {}, state=State.STARTING))) == []
    assert asked(decide(world(ended(), spec=READY))) == []


def test_a_failing_ready_probe_takes_readiness_away_and_nothing_else() -> None:
    before = decide(scene(READY, {Check.READY: WELL})).status
    once = decide(scene(READY, {Check.READY: replace(ILL, count=2)}, status=before))
    assert claim(once, "Ready") == ("True", "Running")
    thrice = decide(scene(READY, {Check.READY: ILL}, status=once.status))
    assert claim(thrice, "Ready") == ("False", "NotReady")
    assert claim(thrice, "Degraded") == ("True", "NotReady")
    assert thrice.actions == ()
    assert thrice.status.instances[0].crashes == ()
    assert [event.reason for event in thrice.events] == ["NotReady"]
    assert "status 503" in thrice.events[0].message
    again = decide(scene(READY, {Check.READY: WELL}, status=thrice.status))
    assert claim(again, "Ready") == ("True", "Running")


def test_what_was_found_out_outlives_the_controller() -> None:
    before = decide(scene(READY, {Check.READY: WELL})).status
    reborn = decide(scene(READY, {}, status=before))
    assert claim(reborn, "Ready") == ("True", "Running")
    (watch,) = reborn.watches
    assert watch.known == WELL
    failing = decide(scene(READY, {Check.READY: replace(ILL, count=2)}, status=before)).status
    (watch,) = decide(scene(READY, {}, status=failing)).watches
    assert watch.known is not None
    assert tally(watch.known, Answer(ok=False, message="x"), 1000.0, watch).count == 3


def test_startup_comes_first_and_alone() -> None:
    first = decide(scene(STARTUP, {Check.READY: WELL}))
    assert asked(first) == [Check.STARTUP]
    assert claim(first, "Ready")[0] == "False"
    started = decide(scene(STARTUP, {Check.STARTUP: WELL}, status=first.status))
    assert asked(started) == [Check.READY, Check.LIVE]
    later = decide(scene(STARTUP, {Check.READY: WELL}, status=started.status))
    assert claim(later, "Ready") == ("True", "Running")
    assert asked(later) == [Check.READY, Check.LIVE]


def test_one_that_is_not_alive_is_condemned_on_record_and_only_then_stopped() -> None:
    before = decide(scene(LIVE, {Check.LIVE: WELL})).status
    condemned = decide(scene(LIVE, {Check.LIVE: ILL}, status=before))
    assert condemned.actions == ()
    assert condemned.revisit == 1000.0
    assert [event.reason for event in condemned.events] == ["Unhealthy"]
    (replica,) = condemned.status.instances
    assert (replica.condemned, replica.crashes) == (1, (1000.0,))
    stopped = decide(scene(LIVE, {}, status=condemned.status))
    assert stopped.actions == (Stop(Slot(0, 1)),)
    assert stopped.watches == ()
    assert not [action for action in stopped.actions if isinstance(action, Start)]


def test_the_end_of_a_condemned_instance_counts_once_and_says_why() -> None:
    condemned = decide(scene(LIVE, {Check.LIVE: ILL})).status
    gone = ended(1, at=1001.0, revision=condemned.revision, stopping_at=1000.5)
    after = decide(world(gone, spec=LIVE, status=condemned, now=1001.0))
    (start,) = after.actions
    assert isinstance(start, Start)
    (replica,) = after.status.instances
    assert replica.crashes == (1000.0,)
    assert replica.last_exit is not None
    assert replica.last_exit.reason == "Unhealthy"
    assert replica.last_exit.message == "is not alive: status 503"
    assert replica.restarts == 1


def test_one_that_never_starts_is_condemned() -> None:
    streak = Streak(ok=False, count=60, message="connection refused", at=999.0)
    decision = decide(scene(STARTUP, {Check.STARTUP: streak}))
    assert [event.message for event in decision.events] == [
        "echo-0-1 did not start: connection refused",
    ]


def test_unhealthy_ends_in_quarantine_like_any_crash() -> None:
    spec = {**LIVE, "recovery": {"maxRestarts": 0}}
    condemned = decide(scene(spec, {Check.LIVE: ILL})).status
    gone = ended(1, at=1001.0, revision=condemned.revision, stopping_at=1000.5)
    after = decide(world(gone, spec=spec, status=condemned, now=1001.0))
    assert after.actions == ()
    assert after.status.phase is Phase.QUARANTINED
    assert "is not alive: status 503" in after.status.conditions[0].message


def test_a_new_revision_is_verified_from_the_moment_it_is_ready() -> None:
    spec = {**READY, "update": {"strategy": "rolling", "verify": "5s"}}
    revision = decide(world(spec=spec)).status.revision
    both = (instance(1, revision="older"), instance(2, revision=revision))
    first = decide(world(*both, spec=spec))
    assert first.revisit is None
    late = decide(world(*both, spec=spec, now=2000.0, status=first.status))
    assert late.actions == ()
    ready = decide(world(*both, spec=spec, now=2000.0, status=late.status, streaks={(2, Check.READY): WELL}))
    assert ready.actions == ()
    assert ready.revisit == 2005.0
    verified = decide(world(*both, spec=spec, now=2005.0, status=ready.status))
    assert verified.actions == (Stop(Slot(0, 1)),)
    assert claim(verified, "Ready")[0] == "True"


def test_the_next_replica_is_updated_only_once_the_one_before_is_ready() -> None:
    spec = {**READY, "replicas": 2, "update": {"strategy": "rolling", "verify": "0s"}}
    revision = decide(world(spec=spec)).status.revision
    there = (instance(2, ordinal=1, revision="older"), instance(3, revision=revision))
    first = decide(world(*there, spec=spec))
    again = decide(world(*there, spec=spec, status=first.status))
    assert again.actions == ()
    ready = decide(world(*there, spec=spec, status=again.status, streaks={(3, Check.READY): WELL}))
    then = decide(world(*there, spec=spec, status=ready.status))
    assert [type(action) for action in then.actions] == [Start]


def test_a_runtime_that_asks_by_itself_is_believed() -> None:
    spec = {"health": {"ready": HTTP}}
    here = replace(world().capabilities, asks=frozenset({"http"}))
    found = scene(spec, {}, capabilities=here)
    for ready, expected in ((True, "True"), (False, "False")):
        told = replace(found, instances=tuple(replace(each, ready=ready) for each in found.instances))
        assert claim(decide(told), "Ready")[0] == expected
        assert decide(told).watches == ()


def test_what_a_runtime_asks_and_what_is_asked_here_both_count() -> None:
    """The runtime's startup probe holds back what is asked here, until it has passed once."""
    spec = {"health": {"startup": HTTP, "ready": {"resource": {"pids": 9}}, "live": HTTP}}
    here = replace(world().capabilities, asks=frozenset({"http"}))

    def told(ready: bool, streaks: dict[Any, Any], status: Any = None) -> Decision:
        found = scene(spec, streaks, capabilities=here, **({"status": status} if status else {}))
        return decide(replace(found, instances=tuple(replace(each, ready=ready) for each in found.instances)))

    held = told(False, {})
    assert (held.watches, claim(held, "Ready")[0]) == ((), "False")
    asking = told(True, {}, held.status)
    assert ([each.check for each in asking.watches], claim(asking, "Ready")[0]) == ([Check.READY], "False")
    well = told(True, {Check.READY: WELL}, asking.status)
    assert claim(well, "Ready")[0] == "True"
    lost = told(False, {Check.READY: WELL}, well.status)
    assert ([each.check for each in lost.watches], claim(lost, "Ready")[0]) == ([Check.READY], "False")


def test_a_probe_that_asks_only_whether_the_instance_runs_needs_no_asking() -> None:
    spec = {"health": {"startup": {"process": {}}, "ready": {"process": {}}, "live": {"process": {}}}}
    decision = decide(scene(spec, {}))
    assert decision.watches == ()
    assert claim(decision, "Ready") == ("True", "Running")


def test_a_kind_the_runtime_cannot_ask_is_refused() -> None:
    here = replace(world().capabilities, probes=frozenset({"process"}))
    decision = decide(world(spec=READY, capabilities=here))
    assert decision.status.phase is Phase.REFUSED
    assert claim(decision, "Ready") == ("False", "ProbeUnavailable")
    assert decision.status.conditions[0].message.startswith("spec.health.ready: ")


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ({"ready": {}}, "spec.health.ready: give exactly one of process, http"),
        ({"ready": {"tcp": {"port": 1}, "process": {}}}, "spec.health.ready: give exactly one of"),
        ({"live": {**HTTP, "successes": 2}}, "spec.health: live: one success is all it needs"),
        ({"startup": {**HTTP, "successes": 2}}, "spec.health: startup: one success is all it needs"),
        ({"ready": {"http": {"port": 0}}}, "spec.health.ready.http.port: "),
        ({"ready": {"http": {"port": 1, "path": "x"}}}, "spec.health.ready.http.path: "),
        ({"ready": {"http": {"port": 1, "path": "/a b"}}}, "spec.health.ready.http.path: "),
        ({"ready": {"http": {"port": 1, "path": "/\r\nX: y"}}}, "spec.health.ready.http.path: "),
        ({"ready": {"exec": {"command": []}}}, "spec.health.ready.exec.command: "),
        ({"ready": {"exec": {"command": ["a\0"]}}}, "spec.health.ready: exec.command contains a NUL"),
        ({"ready": {**HTTP, "interval": "10ms"}}, "spec.health.ready.interval: "),
        ({"ready": {**HTTP, "timeout": "61s"}}, "spec.health.ready.timeout: "),
        ({"live": {"resource": {}}}, "spec.health.live.resource: give memory, cpu or pids"),
        (custom("usage.memory <"), "spec.health.live.custom.expression: is no CEL expression"),
        (custom("secret > 1"), "spec.health.live.custom.expression: speaks of secret; there is age, probes"),
        (
            custom("age < 9.0 || usage.memry < 9"),
            f"{EXPRESSION} speaks of usage.memry; there is usage.cpu, u",
        ),
        (
            custom("probes . redy"),
            f"{EXPRESSION} speaks of probes.redy; there is probes.live, probes.ready, ",
        ),
        (custom("[1].all(usage, [2].map(age, true))"), "spec.health.live.custom.expression: uses all, map"),
        (custom("'a'.matches('(a+)+b')"), "spec.health.live.custom.expression: uses matches"),
    ],
)
def test_what_is_wrong_with_a_probe_is_said_by_its_field(health: dict[str, Any], words: str) -> None:
    told = [str(violation) for violation in violations_of(plugin(health=health))]
    assert any(line.startswith(words) for line in told), told


def watch_of(*, settled: bool = False, known: Streak | None = None, **probe: Any) -> Watch:
    spec = admit(plugin(health={"ready": {**HTTP, **probe}}))
    assert spec.health.ready is not None
    return Watch(Slot(0, 1), Check.READY, spec.health.ready, 900.0, known, settled=settled)


def test_one_that_has_never_passed_is_asked_soon_again_then_less_often() -> None:
    watch = watch_of(interval="10s")
    pauses = [pause_before(watch, tries, ok=False) for tries in range(1, 71)]
    assert [round(pause, 4) for pause in pauses[:4]] == [0.01, 0.0115, 0.0132, 0.0152]
    assert pauses == sorted(pauses[:50]) + pauses[50:]
    assert all(9.0 <= pause <= 10.0 for pause in pauses[50:])


def test_early_failures_count_once_an_interval() -> None:
    watch = watch_of(interval="10s", failures=2)
    no = Answer(ok=False, message="connection refused")
    streak = tally(None, no, 900.0, watch)
    for at in (900.01, 900.03, 905.0):
        streak = tally(streak, no, at, watch)
    assert streak.count == 1
    assert tally(streak, no, 909.5, watch).count == 2


def test_no_more_is_counted_than_decides_anything() -> None:
    watch = watch_of(failures=2, successes=3, settled=True)
    streak: Streak | None = None
    for at in range(9):
        streak = tally(streak, Answer(ok=True), float(at), watch)
    assert streak is not None
    assert streak.count == 3
    assert tally(streak, Answer(ok=True), 99.0, watch) is streak


@given(
    tries=st.integers(0, 1000),
    ok=st.booleans(),
    settled=st.booleans(),
    interval=st.floats(0.1, 3600),
    jitter=st.floats(0, 0.5),
)
def test_no_pause_is_longer_than_the_interval_and_none_of_a_settled_probe_much_shorter(
    *, tries: int, ok: bool, settled: bool, interval: float, jitter: float
) -> None:
    probe = Probe.model_validate({"tcp": {"port": 1}}).model_copy(
        update={"interval": interval, "jitter": jitter}
    )
    watch = Watch(Slot(0, 1), Check.LIVE, probe, 0.0, WELL, settled=settled)
    pause = pause_before(watch, tries, ok=ok)
    assert 0 <= pause <= interval
    if tries and (ok or settled):
        assert pause >= interval * (1 - jitter) * 0.999


def test_every_kind_is_a_field() -> None:
    assert set(KINDS) <= set(Probe.model_fields)


def test_condemnations_within_the_window_are_remembered() -> None:
    spec = admit(plugin(**LIVE))
    status = PluginStatus.model_validate(decide(scene(LIVE, {Check.LIVE: ILL})).status.model_dump())
    assert recent(status.instances[0].crashes, spec.recovery, 1000.0) == (1000.0,)
