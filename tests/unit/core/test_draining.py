"""An instance that is to be stopped finishes the calls it has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import identity, instance, plugin, world

from crucible.core.admission import admit
from crucible.core.bus import member_of
from crucible.core.decide import decide
from crucible.errors import InvalidManifest, Violation
from crucible.model.decision import Stop
from crucible.model.instance import State
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from crucible.model.decision import Decision
    from crucible.model.world import World

DRAINS: dict[str, Any] = {"lifecycle": {"drain": "10s"}, "capabilities": {"bus": {}}}
OLD = instance(1, revision="older")


def stops(decision: Decision) -> list[Slot]:
    return [action.slot for action in decision.actions if isinstance(action, Stop)]


def begun(**changes: Any) -> tuple[World, Decision]:
    seen = world(OLD, **{"spec": DRAINS, **changes})
    return seen, decide(seen)


def test_it_is_given_nothing_new_and_goes_on_with_what_it_has() -> None:
    seen, first = begun()
    assert stops(first) == []
    assert [event.reason for event in first.events] == ["Draining"]
    member = member_of(seen.identity, admit(plugin(**DRAINS)), first.status)
    assert member.draining == ("0-1",)
    busy = decide(replace(seen, status=first.status, open_calls={1: 2}, now=1009.9))
    assert stops(busy) == []
    assert busy.events == ()
    assert busy.revisit == 1010.0
    assert busy.status.draining == first.status.draining


def test_it_is_stopped_once_it_has_no_call_left() -> None:
    seen, first = begun()
    unknown = decide(replace(seen, status=first.status, open_calls={1: None}, now=1000.2))
    assert stops(unknown) == []
    done = decide(replace(seen, status=first.status, open_calls={1: 0}, now=1000.4))
    assert stops(done) == [Slot(0, 1)]
    stopping = replace(OLD, state=State.STOPPING, stopping_at=1000.4)
    after = decide(replace(seen, instances=(stopping,), status=done.status, now=1000.5))
    assert [each.attempt for each in after.status.draining] == [1], "until it is gone nothing new goes there"


def test_it_is_stopped_when_its_time_is_over_whatever_it_does() -> None:
    seen, first = begun()
    late = decide(replace(seen, status=first.status, open_calls={1: 7}, now=1010.0))
    assert stops(late) == [Slot(0, 1)]


@pytest.mark.parametrize(
    "changes", [{"spec": {**DRAINS, "suspend": True}}, {"identity": identity(deleting=True)}]
)
def test_whyever_it_is_to_be_stopped(changes: dict[str, Any]) -> None:
    seen, first = begun(**changes)
    assert stops(first) == []
    done = decide(replace(seen, status=first.status, open_calls={1: 0}, now=1000.2))
    assert stops(done) == [Slot(0, 1)]


def test_one_that_may_stay_after_all_is_given_calls_again() -> None:
    seen, first = begun()
    back = decide(replace(seen, spec=admit(plugin(**DRAINS)), instances=(), status=first.status))
    assert back.status.draining == ()


def test_one_that_failed_its_probes_is_stopped_at_once() -> None:
    spec = {**DRAINS, "health": {"live": {"tcp": {"port": 1}}}}
    revision = decide(world(spec=spec)).status.revision
    runs = instance(1, revision=revision)
    status = decide(world(runs, spec=spec)).status
    (known,) = status.instances
    condemned = status.model_copy(update={"instances": (known.model_copy(update={"condemned": 1}),)})
    assert stops(decide(world(runs, spec=spec, status=condemned))) == [Slot(0, 1)]


def test_a_clock_that_was_set_back_does_not_prolong_it() -> None:
    seen, first = begun()
    earlier = decide(replace(seen, status=first.status, open_calls={1: 1}, now=500.0))
    assert stops(decide(replace(seen, status=earlier.status, open_calls={1: 1}, now=510.0))) == [Slot(0, 1)]


def test_without_it_nothing_waits_and_without_the_bus_it_is_refused() -> None:
    assert stops(decide(world(OLD, spec={"capabilities": {"bus": {}}}))) == [Slot(0, 1)]
    with pytest.raises(InvalidManifest, match="is for a plugin on the bus"):
        admit(plugin(lifecycle={"drain": "1s"}))


def test_each_of_several_drains_by_itself() -> None:
    spec = {**DRAINS, "suspend": True, "replicas": 3}
    starting = instance(4, ordinal=3, state=State.STARTING)
    seen = world(starting, *(instance(n, ordinal=n) for n in range(1, 4)), spec=spec)
    first = decide(seen)
    assert stops(first) == [Slot(3, 4)], "one that does not run yet has nothing to finish"
    assert [each.attempt for each in first.status.draining] == [1, 2, 3]
    assert [(event.type, event.message) for event in first.events if event.reason == "Draining"] == [
        ("Normal", f"echo-{n}-{n} finishes what it has, and is given nothing new") for n in range(1, 4)
    ]
    later = decide(replace(seen, status=first.status, open_calls={1: 2, 2: 0, 3: 1}, now=1001.0))
    assert stops(later) == [Slot(3, 4), Slot(2, 2)]
    assert later.revisit == 1001.2


def test_a_manifest_that_cannot_be_read_drains_nothing() -> None:
    seen = world(OLD, spec=(Violation("spec.type", "is wrong"),))
    assert stops(decide(seen)) == [Slot(0, 1)]
