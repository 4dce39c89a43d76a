"""How many replicas are replaced at once, and which."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import ended, instance, plugin, world
from life import Life

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.errors import InvalidManifest
from crucible.model.decision import Start, Stop
from crucible.model.instance import State

if TYPE_CHECKING:
    from crucible.model.instance import Instance
    from crucible.model.manifest import PluginSpec


def spec(replicas: int, **limits: Any) -> dict[str, Any]:
    return {
        "replicas": replicas,
        "update": {"strategy": "rolling", "verify": "5s", **limits},
        "config": {"new": True},
    }


def old(replicas: int) -> tuple[Instance, ...]:
    return tuple(instance(number + 1, ordinal=number, revision="older") for number in range(replicas))


def acts(replicas: int, **limits: Any) -> tuple[list[int], list[int]]:
    """Return the ordinals whose new instance is started, and those whose old one is stopped."""
    wanted = spec(replicas, **limits)
    actions = decide(world(*old(replicas), spec=wanted)).actions
    return (
        [action.slot.ordinal for action in actions if isinstance(action, Start)],
        [action.slot.ordinal for action in actions if isinstance(action, Stop)],
    )


@pytest.mark.parametrize(
    ("replicas", "limits", "beside", "instead"),
    [
        (4, {}, 1, 0),
        (4, {"maxSurge": 2}, 2, 0),
        (4, {"maxSurge": "25%"}, 1, 0),
        (5, {"maxSurge": "25%"}, 2, 0),
        (4, {"maxSurge": 9}, 4, 0),
        (4, {"maxSurge": 0, "maxUnavailable": 3}, 0, 3),
        (5, {"maxSurge": "0%", "maxUnavailable": "50%"}, 0, 2),
        (3, {"maxSurge": 0, "maxUnavailable": "10%"}, 0, 1),
        (5, {"maxSurge": 2, "maxUnavailable": 2}, 2, 2),
        (1, {"maxSurge": 0, "maxUnavailable": 1}, 0, 1),
    ],
)
def test_as_many_are_replaced_at_once_as_the_manifest_says(
    replicas: int, limits: dict[str, Any], beside: int, instead: int
) -> None:
    assert acts(replicas, **limits) == (
        list(range(beside)),
        list(range(beside, beside + instead)),
    )


def test_no_more_begin_while_so_many_are_not_verified() -> None:
    wanted = spec(3, maxSurge=0, maxUnavailable=1)
    revision = decide(world(spec=wanted)).status.revision
    fresh = instance(9, ordinal=0, revision=revision)
    seen = world(fresh, *old(3)[1:], spec=wanted, now=1000.0)
    told = decide(seen)
    held = decide(replace(seen, status=told.status, now=1004.9))
    assert held.actions == ()
    assert held.revisit == 1005.0
    assert [type(action) for action in decide(replace(seen, status=told.status, now=1005.0)).actions] == [
        Stop
    ]


def test_a_revision_that_fails_is_tried_by_no_other() -> None:
    wanted = spec(3, maxSurge=0, maxUnavailable=2)
    revision = decide(world(spec=wanted)).status.revision
    crashed = ended(9, ordinal=0, revision=revision)
    told = decide(world(crashed, *old(3)[1:], spec=wanted))
    stopped = decide(world(crashed, *old(3)[1:], spec=wanted, status=told.status)).actions
    assert not [action for action in stopped if isinstance(action, Stop)]


@pytest.mark.parametrize("restarts", [0, 5])
def test_one_whose_new_revision_failed_beside_it_is_not_stopped_for_less_room(restarts: int) -> None:
    """Neither while the new one is given up, nor while it waits to be tried again."""
    recovery = {"recovery": {"maxRestarts": restarts, "backoff": {"initial": "10s"}}}
    before = {**spec(2, maxSurge=1), **recovery}
    revision = decide(world(spec=before)).status.revision
    crashes = tuple(ended(9 + count, at=999.0 + count / 10, revision=revision) for count in range(2))
    status = decide(world(*old(2), *crashes, spec=before)).status
    after = {**spec(2, maxSurge=0, maxUnavailable=1), **recovery}
    decision = decide(world(*old(2), *crashes, spec=after, status=status, now=1000.0))
    assert not [action for action in decision.actions if isinstance(action, Stop | Start)]


def test_an_old_one_that_is_not_ready_goes_first() -> None:
    wanted = {**spec(3, maxSurge=0, maxUnavailable=1), "health": {"ready": {"tcp": {"port": 1}}}}
    told = decide(world(*old(3), spec=wanted)).status
    said = tuple(each.model_copy(update={"ready": each.ordinal != 2}) for each in told.instances)
    status = told.model_copy(update={"instances": said})
    (action,) = decide(world(*old(3), spec=wanted, status=status)).actions
    assert isinstance(action, Stop)
    assert action.slot.ordinal == 2


def test_none_goes_while_what_the_new_one_needs_is_not_there() -> None:
    needy = {**spec(2, maxSurge=0, maxUnavailable=1), "dependencies": [{"name": "base"}]}
    seen = world(*old(2), spec=needy)
    told = decide(seen)
    assert told.actions == ()
    assert decide(replace(seen, status=told.status)).actions == ()


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"strategy": "rolling", "maxSurge": 0}, "both 0"),
        ({"strategy": "rolling", "maxSurge": "0%", "maxUnavailable": 0}, "both 0"),
        ({"maxSurge": 2}, "is for strategies rolling"),
        ({"maxUnavailable": 2}, "is for strategy rolling"),
        ({"strategy": "rolling", "maxSurge": "half"}, "write 2, or 25%"),
        ({"strategy": "rolling", "maxUnavailable": -1}, "write 2, or 25%"),
        ({"strategy": "rolling", "maxSurge": True}, "write 2, or 25%"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_the_fix(update: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        admit(plugin(update=update))
    assert words in str(refused.value)


def test_a_whole_update_goes_by_two_and_comes_to_an_end() -> None:
    life = Life()
    life.change_to(admitted(replicas=5))
    life.settle()
    life.change_to(admitted(**spec(5, maxSurge=1, maxUnavailable=1)))
    life.supervise(fails=False)
    states = [found.state for found in life.instances.values()]
    assert states.count(State.STOPPING) == 1
    assert states.count(State.STARTING) == 1
    life.settle()
    assert {found.revision for found in life.instances.values() if found.alive} == {life.status.revision}


def admitted(**fields: Any) -> PluginSpec:
    return admit(plugin(**fields))
