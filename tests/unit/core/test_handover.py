"""Of the old and the new instance of a replica, one is given what comes anew at any time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import instance, plugin, world

from crucible.core.admission import admit
from crucible.core.bus import member_of
from crucible.core.decide import decide
from crucible.errors import InvalidManifest
from crucible.model.decision import Route, Start, Stop
from crucible.model.health import Check, Streak
from crucible.model.instance import State
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.decision import Decision
    from crucible.model.instance import Instance
    from crucible.model.world import World

UPDATE: dict[str, Any] = {"strategy": "handover", "verify": "5s"}
PORT: dict[str, Any] = {
    "update": UPDATE,
    "health": {"ready": {"tcp": {"port": 8080}, "interval": "1s"}},
    "capabilities": {"network": {"listen": [8080]}},
}
BUS: dict[str, Any] = {
    "update": UPDATE,
    "health": {"ready": {"ping": {}, "interval": "1s"}},
    "capabilities": {"bus": {}},
}


def new(spec: dict[str, Any]) -> str:
    return decide(world(spec=spec)).status.revision


def old(ordinal: int = 0, attempt: int = 1, **changes: Any) -> Instance:
    return instance(attempt, ordinal=ordinal, revision="older", **changes)


def said(seen: World, decision: Decision, *, at: float, ready: tuple[int, ...] = ()) -> World:
    """Return what is next: what was said stands, and these attempts answer their probes well."""
    streaks = {(attempt, Check.READY): Streak(ok=True, count=9, message="", at=at) for attempt in ready}
    return replace(seen, status=decision.status, now=at, streaks=streaks)


def routes(decision: Decision) -> list[tuple[Slot, ...]]:
    return [action.slots for action in decision.actions if isinstance(action, Route)]


def stops(decision: Decision) -> list[Slot]:
    return [action.slot for action in decision.actions if isinstance(action, Stop)]


def held_back(seen: World, decision: Decision) -> tuple[str, ...]:
    """Return whom the broker gives nothing new."""
    assert not isinstance(seen.spec, tuple)
    return member_of(seen.identity, seen.spec, decision.status).draining


def beside(spec: dict[str, Any]) -> tuple[World, Decision]:
    """Return the new instance ready beside the old one, which alone is reached."""
    seen = world(old(), instance(2, revision=new(spec), reached=spec is not PORT), spec=spec)
    first = decide(seen)
    ready = said(seen, first, at=1001.0, ready=(2,))
    return ready, decide(ready)


def taken_over(spec: dict[str, Any]) -> tuple[World, Decision]:
    """Return the new one verified, and what follows."""
    seen, ready = beside(spec)
    then = said(seen, ready, at=1006.0, ready=(2,))
    return then, decide(then)


def test_before_the_new_one_starts_the_old_one_alone_is_reached() -> None:
    decision = decide(world(old(), spec=PORT))
    route, start = decision.actions
    assert route == Route((Slot(0, 1),))
    assert isinstance(start, Start)
    assert start.slot == Slot(0, 2)


def test_what_comes_anew_goes_to_the_old_one_until_the_new_one_is_verified() -> None:
    for spec in (PORT, BUS):
        seen, ready = beside(spec)
        assert (routes(ready), stops(ready)) == ([], [])
        assert held_back(seen, ready) == ("0-2",)
        early = said(seen, ready, at=1005.9, ready=(2,))
        assert (routes(decide(early)), held_back(early, decide(early))) == ([], ("0-2",))


def test_then_it_goes_to_the_new_one_and_the_old_one_finishes_what_it_has() -> None:
    seen, decision = taken_over(PORT)
    assert routes(decision) == [(Slot(0, 2),)]
    assert stops(decision) == []
    assert [event.reason for event in decision.events] == ["Draining"]
    assert held_back(seen, decision) == ("0-1",)
    assert decision.status.instances[0].incumbent == ""
    reached = (replace(seen.instances[0], reached=False), replace(seen.instances[1], reached=True))
    still = replace(said(seen, decision, at=1015.9, ready=(2,)), instances=reached, open_calls={1: 0})
    assert decide(still).revisit == 1016.0
    assert decide(still).actions == (), "nobody counts connections to a port, so it has its whole time"
    over = decide(replace(still, now=1016.0))
    assert stops(over) == [Slot(0, 1)]


def test_on_the_bus_it_is_stopped_once_it_has_no_call_left() -> None:
    seen, decision = taken_over(BUS)
    assert (routes(decision), stops(decision)) == ([], [])
    assert held_back(seen, decision) == ("0-1",)
    busy = replace(said(seen, decision, at=1006.2, ready=(2,)), open_calls={1: 1})
    assert stops(decide(busy)) == []
    assert stops(decide(replace(busy, open_calls={1: 0}))) == [Slot(0, 1)]
    assert stops(decide(replace(busy, now=1016.0))) == [Slot(0, 1)], "it has ten seconds at most"


def test_the_manifest_says_how_long_it_may_take_to_finish() -> None:
    for spec in (PORT, BUS):
        seen, decision = taken_over({**spec, "lifecycle": {"drain": "1m"}})
        assert decision.revisit is not None
        late = replace(said(seen, decision, at=1065.9, ready=(2,)), open_calls={1: 3})
        assert stops(decide(late)) == []
        assert stops(decide(replace(late, now=1066.0))) == [Slot(0, 1)]
        _, none = taken_over({**spec, "lifecycle": {"drain": "0s"}})
        assert stops(none) == [Slot(0, 1)]


def test_with_nobody_to_hand_over_to_it_is_stopped_at_once() -> None:
    for spec in (PORT, BUS):
        decision = decide(world(instance(1), spec={**spec, "suspend": True}))
        assert stops(decision) == [Slot(0, 1)]
    ports = {**PORT, "suspend": True, "lifecycle": {"drain": "1m"}}
    assert stops(decide(world(instance(1), spec=ports))) == [Slot(0, 1)], "connections would go on coming"


def test_each_replica_hands_over_by_itself() -> None:
    spec = {**PORT, "replicas": 2}
    seen = world(old(0, 1), old(1, 2), instance(3, revision=new(spec), reached=False), spec=spec)
    ready = said(seen, decide(seen), at=1001.0, ready=(3,))
    then = said(ready, decide(ready), at=1006.0, ready=(3,))
    decision = decide(then)
    assert routes(decision)[0] == (Slot(0, 3), Slot(1, 2))


def test_an_old_one_that_ends_meanwhile_leaves_everything_to_the_new_one() -> None:
    seen, ready = beside(PORT)
    alone = replace(seen, instances=seen.instances[1:], status=ready.status)
    assert routes(decide(alone)) == [(Slot(0, 2),)]
    assert held_back(alone, decide(alone)) == ()


def test_a_new_one_that_is_not_ready_is_given_nothing_and_takes_nothing_over() -> None:
    seen = world(old(), instance(2, revision=new(PORT), reached=False), spec=PORT)
    decision = decide(seen)
    for at in (1010.0, 2000.0):
        decision = decide(said(seen, decision, at=at))
        assert (routes(decision), stops(decision)) == ([], [])
        assert held_back(seen, decision) == ("0-2",)


def test_nothing_is_done_twice() -> None:
    done = world(instance(2, revision=new(PORT)), spec=PORT)
    first = decide(done)
    assert routes(first) == []
    assert routes(decide(said(done, first, at=1001.0))) == []


def test_who_does_not_run_yet_is_not_reached() -> None:
    starting = world(instance(2, revision=new(PORT), reached=False, state=State.STARTING), spec=PORT)
    assert routes(decide(starting)) == []
    assert routes(decide(replace(starting, instances=(instance(2, revision=new(PORT), reached=False),)))) == [
        (Slot(0, 2),)
    ]


def test_with_another_strategy_all_are_reached_again() -> None:
    rolling = {**PORT, "update": {"strategy": "rolling"}}
    astray = world(instance(1, revision=new(rolling), reached=False), spec=rolling)
    assert routes(decide(astray)) == [()]
    assert (
        held_back(*((seen := world(old(), spec={**BUS, "update": {"strategy": "rolling"}})), decide(seen)))
        == ()
    )


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"capabilities": {}}, "spec.update.strategy", "neither listens nor is on the bus"),
        ({"health": {}}, "spec.health.ready", "write a probe"),
        (
            {"update": {**UPDATE, "maxUnavailable": 1}},
            "spec.update",
            "maxUnavailable is for strategy rolling",
        ),
        ({"update": {**UPDATE, "maxSurge": 0}}, "spec.update", "needs room for the new instance"),
        ({"update": {**UPDATE, "maxSurge": "0%"}}, "spec.update", "needs room for the new instance"),
    ],
)
def test_a_manifest_that_could_not_keep_the_promise_is_refused(
    changes: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidManifest) as caught:
        admit(plugin(**{**PORT, **changes}))
    assert [(each.field, words in each.message) for each in caught.value.violations] == [(field, True)]
