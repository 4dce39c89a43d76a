"""Lives that the state machine once found by chance, written down so that they are lived every time."""

from __future__ import annotations

from typing import Any

from build import plugin
from life import Life

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.model.decision import Stop

ROLLING = {"strategy": "rolling", "verify": "5s"}
NEEDY = {"config": {"a": 7}, "dependencies": [{"name": "base"}], "update": ROLLING}
PROBED = {"config": {"a": 5}, "replicas": 2, "update": ROLLING, "health": {"ready": {"tcp": {"port": 1}}}}


def lived(**spec: Any) -> Life:
    """Return a plugin that was left alone until nothing more was to do."""
    life = Life()
    life.change_to(admit(plugin(**spec)))
    life.settle()
    return life


def then(life: Life, **spec: Any) -> Life:
    life.change_to(admit(plugin(**spec)))
    life.settle()
    return life


def revisions(life: Life) -> set[str]:
    return {found.revision for found in life.instances.values() if found.alive}


def test_a_rollback_is_rolled_as_the_manifest_says_and_not_as_the_earlier_one_did() -> None:
    """``settle`` holds that somebody serves all the while."""
    life = then(lived(update={"strategy": "recreate"}), config={"a": 1}, update=ROLLING)
    before = revisions(life)
    life.ask_for_a_rollback(pick=0)
    assert not [action for action in decide(life.world()).actions if isinstance(action, Stop)]
    life.settle()
    assert revisions(life) == {life.status.history[0].revision}
    assert revisions(life) != before


def test_a_rollback_is_verified_for_as_long_as_the_manifest_says() -> None:
    life = then(lived(update={**ROLLING, "verify": "0s"}), config={"a": 1}, update=ROLLING)
    life.ask_for_a_rollback(pick=0)
    life.supervise(fails=False)
    life.end_what_was_asked_to()
    life.supervise(fails=False)
    assert len(revisions(life)) == 2
    life.settle()
    assert revisions(life) == {life.status.history[0].revision}


def test_a_rollback_needs_what_the_earlier_revision_needed() -> None:
    life = lived(**NEEDY)
    assert revisions(life) == set()
    life = then(life, update=ROLLING)
    served = revisions(life)
    life.ask_for_a_rollback(pick=0)
    life.settle()
    assert revisions(life) == served, "the one that serves goes on while the earlier one waits"
    life.change_what_is_around(ready=True, crowd=0)
    life.settle()
    assert revisions(life) == {life.status.history[0].revision}


def test_a_rollback_does_not_need_what_only_the_wanted_revision_needs() -> None:
    life = then(lived(), **NEEDY)
    life.ask_for_a_rollback(pick=0)
    life.settle()
    assert revisions(life) == {life.status.history[0].revision}
    assert life.status.ready_replicas == 1


def test_an_update_goes_on_once_probes_are_answered() -> None:
    life = lived()
    life.change_to(admit(plugin(**PROBED)))
    for _ in range(2):
        life.supervise(fails=False)
        life.end_what_was_asked_to()
    assert life.status.ready_replicas < 2
    life.settle()
    assert life.status.ready_replicas == 2
    assert revisions(life) == {life.status.revision}
