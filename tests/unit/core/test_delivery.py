"""A changed configuration that reaches what runs, and replaces nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from build import capabilities, instance, plugin, world

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.errors import InvalidManifest
from crucible.model.decision import Deliver, Start, Stop
from crucible.model.instance import State
from crucible.model.status import Phase
from crucible.model.workload import Slot, config_digest

OLD, NEW = '{"a": 1}', '{"a": 2}'
SIGNAL: dict[str, Any] = {"configDelivery": "signal", "config": {"a": 2}}
REVISION = decide(world(spec=SIGNAL)).status.revision


@pytest.mark.parametrize("how", ["file", "signal"])
def test_what_runs_is_given_it_once_and_goes_on(how: str) -> None:
    spec = {**SIGNAL, "configDelivery": how}
    revision = decide(world(spec=spec)).status.revision
    runs = instance(1, revision=revision, config=config_digest(OLD))
    decision = decide(world(runs, spec=spec))
    assert decision.actions == (Deliver(Slot(0, 1), NEW, how),)
    assert decision.status.phase is Phase.RUNNING
    (event,) = decision.events
    assert event.reason == "Configured"
    given = replace(runs, config=config_digest(NEW))
    again = decide(world(given, spec=spec, status=decision.status))
    assert (again.actions, again.events) == ((), ())


def test_it_is_no_new_revision() -> None:
    other = decide(world(spec={**SIGNAL, "config": {"a": 3}})).status
    assert other.revision == REVISION


def test_without_it_a_changed_configuration_is_one() -> None:
    first, second = (decide(world(spec={"config": {"a": number}})).status.revision for number in (1, 2))
    assert first != second


def test_how_it_is_delivered_is_one_too_for_the_sandbox_is_another() -> None:
    bus = {"capabilities": {"bus": {}}}
    ways = ("restart", "file", "signal", "bus")
    found = {decide(world(spec={**SIGNAL, **bus, "configDelivery": way})).status.revision for way in ways}
    assert len(found) == 4


def test_one_on_the_bus_is_called_again_until_it_has_said_that_it_takes_it() -> None:
    spec = {**SIGNAL, "configDelivery": "bus", "capabilities": {"bus": {}}}
    revision = decide(world(spec=spec)).status.revision
    runs = instance(1, revision=revision, config=config_digest(OLD))
    decision = decide(world(runs, spec=spec))
    assert decision.actions == (Deliver(Slot(0, 1), NEW, "bus"),)
    assert decision.revisit == 1001.0
    assert decision.events == ()
    taken = replace(runs, config=config_digest(NEW))
    assert decide(world(taken, spec=spec, status=decision.status)).revisit is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"configDelivery": "bus"}, "bus is for a plugin on the bus"),
        (
            {"configDelivery": "bus", "capabilities": {"bus": {}}, "config": {"a": "x" * 70000}},
            "too large for a call",
        ),
    ],
)
def test_what_cannot_be_called_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidManifest, match=words):
        admit(plugin(**spec))


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
def test_one_that_does_not_run_yet_or_ends_is_given_nothing(state: State) -> None:
    one = instance(1, revision=REVISION, config=config_digest(OLD), state=state, stopping_at=999.0)
    decision = decide(world(one, spec=SIGNAL))
    assert not [action for action in decision.actions if isinstance(action, Deliver)]


def test_the_next_instance_begins_with_the_newest() -> None:
    (start,) = (action for action in decide(world(spec=SIGNAL)).actions if isinstance(action, Start))
    assert start.workload.config == NEW
    assert start.workload.revision == REVISION


def test_one_of_another_revision_is_replaced_and_given_nothing() -> None:
    old = instance(1, revision="older", config=config_digest(OLD))
    assert decide(world(old, spec=SIGNAL)).actions == (Stop(Slot(0, 1)),)


def test_a_runtime_that_cannot_refuses_it() -> None:
    here = replace(capabilities(), deliveries=frozenset({"restart"}))
    decision = decide(world(spec=SIGNAL, capabilities=here))
    assert decision.status.phase is Phase.REFUSED
    (event,) = decision.events
    assert event.reason == "ConfigDeliveryUnavailable"
    assert "spec.configDelivery" in event.message


@pytest.mark.parametrize("kind", ["wasm", "rune"])
def test_a_program_inside_a_host_of_ours_hears_of_nothing(kind: str) -> None:
    with pytest.raises(InvalidManifest, match="hears of no change: write restart"):
        admit(plugin(type=kind, **SIGNAL))
