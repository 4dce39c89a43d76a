"""An instance runs its hook before it is stopped, beside everything else, and for no longer than it may."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from build import identity, instance, world

from crucible.core.decide import decide
from crucible.errors import Violation
from crucible.model.decision import RunHook, Stop
from crucible.model.instance import State
from crucible.model.workload import Slot
from crucible.model.world import Hooked, World

HOOK: dict[str, Any] = {"lifecycle": {"preStop": {"command": ["flush", "--all"], "timeout": "5s"}}}
OLD = instance(1, revision="older")
FIRST = Slot(0, 1)


def begun(**changes: Any) -> tuple[World, World]:
    """Return an instance that is to be stopped, and the next turn."""
    seen = world(OLD, **{"spec": HOOK, **changes})
    decision = decide(seen)
    assert decision.actions == (RunHook(FIRST, ("flush", "--all"), 5.0),)
    assert [(each.attempt, each.due) for each in decision.status.hooks] == [(1, 1005.0)]
    assert decision.revisit == 1005.0
    return seen, replace(seen, status=decision.status, now=1001.0, hooks={1: Hooked(over=False)})


def test_it_is_not_stopped_while_its_hook_goes_on() -> None:
    _, later = begun()
    decision = decide(later)
    assert (decision.actions, decision.events) == ((), ())
    assert decision.status.hooks == later.status.hooks
    assert decision.revisit == 1005.0


def test_it_is_stopped_once_that_is_over() -> None:
    _, later = begun()
    done = decide(replace(later, hooks={1: Hooked(over=True)}))
    assert (done.actions, done.events, done.status.hooks) == ((Stop(FIRST),), (), ())


def test_whatever_became_of_it() -> None:
    _, later = begun()
    failed = decide(replace(later, hooks={1: Hooked(over=True, problem="ended with status 3")}))
    assert failed.actions == (Stop(FIRST),)
    (event,) = failed.events
    assert (event.reason, event.message) == (
        "PreStopFailed",
        "the preStop hook of echo-0-1 ended with status 3",
    )


def test_when_its_time_is_over_it_is_stopped_though_the_hook_goes_on() -> None:
    _, later = begun()
    early = decide(replace(later, now=1004.9))
    assert early.actions == ()
    late = decide(replace(later, now=1005.0))
    assert late.actions == (Stop(FIRST),)
    assert [event.message for event in late.events] == ["the preStop hook of echo-0-1 did not end within 5 s"]


def test_a_controller_that_comes_back_has_it_run_for_what_is_left_of_its_time() -> None:
    _, later = begun()
    again = decide(replace(later, hooks={}))
    assert again.actions == (RunHook(FIRST, ("flush", "--all"), 4.0),)
    assert again.status.hooks == later.status.hooks
    assert decide(replace(later, hooks={}, now=1005.0)).actions == (Stop(FIRST),)


def test_a_clock_that_was_set_back_gives_it_no_more_than_its_whole_time() -> None:
    _, later = begun()
    earlier = decide(replace(later, now=500.0))
    assert [each.due for each in earlier.status.hooks] == [505.0]


def test_an_outage_forgets_nothing() -> None:
    _, later = begun()
    out = decide(replace(later, outage="the engine does not answer", now=1002.0))
    assert out.actions == ()
    assert out.status.hooks == later.status.hooks
    assert decide(replace(later, status=out.status, now=1005.0)).actions == (Stop(FIRST),)


def test_it_runs_after_the_calls_are_done_and_nothing_is_waited_for_again() -> None:
    spec = {**HOOK, "capabilities": {"bus": {}}}
    spec["lifecycle"] = {**HOOK["lifecycle"], "drain": "10s"}
    seen = world(OLD, spec=spec)
    first = decide(seen)
    assert first.actions == ()
    drained = replace(seen, status=first.status, open_calls={1: 0}, now=1002.0)
    hook = decide(drained)
    assert hook.actions == (RunHook(FIRST, ("flush", "--all"), 5.0),)
    unknown = replace(drained, status=hook.status, open_calls={1: None}, now=1003.0)
    over = decide(replace(unknown, hooks={1: Hooked(over=True)}))
    assert over.actions == (Stop(FIRST),)


@pytest.mark.parametrize(
    "changes", [{"spec": {**HOOK, "suspend": True}}, {"identity": identity(deleting=True)}]
)
def test_whyever_it_is_to_be_stopped(changes: dict[str, Any]) -> None:
    begun(**changes)


def test_who_does_not_run_has_none() -> None:
    starting = world(replace(OLD, state=State.STARTING), spec=HOOK)
    assert decide(starting).actions == (Stop(FIRST),)
    asked = replace(starting, instances=(replace(OLD, state=State.STOPPING, stopping_at=999.0),))
    assert decide(asked).actions == ()


def test_where_the_runtime_runs_it_nobody_else_does() -> None:
    seen = world(OLD, spec=HOOK)
    theirs = replace(seen, capabilities=replace(seen.capabilities, asks=frozenset({"process"})))
    assert decide(theirs).actions == (Stop(FIRST),)


def test_others_go_on_meanwhile() -> None:
    spec = {**HOOK, "replicas": 2}
    wanted = decide(world(spec=spec)).status.revision
    surplus = instance(3, ordinal=2, revision=wanted)
    seen = world(instance(1, revision=wanted), surplus, spec=spec)
    decision = decide(seen)
    kinds = [type(action).__name__ for action in decision.actions]
    assert sorted(kinds) == ["RunHook", "Start"]


def test_each_of_several_has_its_own_hook_and_its_own_end() -> None:
    spec = {**HOOK, "suspend": True, "replicas": 3}
    starting = instance(4, ordinal=3, state=State.STARTING)
    seen = world(starting, *(instance(n, ordinal=n) for n in range(3)), spec=spec)
    first = decide(seen)
    kinds = [type(action).__name__ for action in first.actions]
    assert sorted(kinds) == ["RunHook", "RunHook", "RunHook", "Stop"]
    assert first.revisit == 1005.0
    ended = {
        0: Hooked(over=True, problem="was bad"),
        1: Hooked(over=False),
        2: Hooked(over=True, problem="too"),
    }
    later = decide(replace(seen, status=first.status, hooks=ended, now=1001.0))
    assert {action.slot.attempt for action in later.actions if isinstance(action, Stop)} == {0, 2, 4}
    assert [event.message.rpartition(" ")[2] for event in later.events] == ["bad", "too"]
    assert [each.attempt for each in later.status.hooks] == [1]


def test_a_manifest_that_cannot_be_read_has_no_hook() -> None:
    seen = world(OLD, spec=(Violation("spec.type", "is wrong"),))
    assert decide(seen).actions == (Stop(FIRST),)
