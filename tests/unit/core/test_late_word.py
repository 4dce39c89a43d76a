"""An end for memory, of which the word comes after that of the end: what is on record is corrected once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from build import ended, world

from crucible.core.decide import decide
from crucible.model.instance import Exit

if TYPE_CHECKING:
    from crucible.model.world import World

REVISION = decide(world()).status.revision
KILLED = Exit(at=1.0, signal=9)


def seen(how: Exit, before: World | None = None) -> World:
    now = world(ended(1, revision=REVISION, exit=how))
    return now if before is None else replace(now, status=decide(before).status)


def test_a_crash_on_record_is_corrected_and_said_once() -> None:
    first = seen(KILLED)
    late = seen(replace(KILLED, oom=True), before=first)
    decision = decide(late)
    (replica,) = decision.status.instances
    assert replica.last_exit is not None
    assert replica.last_exit.reason == "OOMKilled"
    assert "memory limit" in replica.last_exit.message
    assert len(replica.crashes) == 1
    assert [event.reason for event in decision.events].count("OOMKilled") == 1
    again = decide(replace(late, status=decision.status))
    assert "OOMKilled" not in [event.reason for event in again.events]


def test_the_end_of_one_that_was_asked_to_stop_stays_what_it_was() -> None:
    stopped = ended(1, revision=REVISION, exit=KILLED, stopping_at=0.5)
    status = decide(world(stopped)).status
    late = replace(world(replace(stopped, exit=replace(KILLED, oom=True))), status=status)
    decision = decide(late)
    (replica,) = decision.status.instances
    assert replica.last_exit is not None
    assert replica.last_exit.reason == "Stopped"
    assert "OOMKilled" not in [event.reason for event in decision.events]
