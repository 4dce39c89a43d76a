"""What the author of a plugin is told when its status becomes another."""

from __future__ import annotations

from typing import Any

import pytest

from crucible.cli.reloading import Note, is_settled, notes

AT = "2026-01-01T00:00:00.000000Z"


def plugin(*replicas: dict[str, Any], revision: str = "a" * 16, **conditions: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "app", "generation": 2},
        "status": {
            "observedGeneration": 2,
            "revision": revision,
            "instances": [{"ordinal": ordinal, **replica} for ordinal, replica in enumerate(replicas)],
            "conditions": [
                {"type": kind, "status": "True", "message": message} for kind, message in conditions.items()
            ],
        },
    }


def ended(attempt: int, reason: str = "Crashed") -> dict[str, Any]:
    return {"lastExit": {"attempt": attempt, "at": AT, "reason": reason, "message": "exited with status 1"}}


def test_another_revision_is_told_by_its_first_digits() -> None:
    assert list(notes({}, plugin())) == [Note("reloaded", "revision aaaaaaaa")]
    assert list(notes(plugin(), plugin())) == []
    assert list(notes({}, {"metadata": {"name": "app"}})) == []


def test_a_crash_is_told_once_with_who_keeps_serving() -> None:
    crashed = plugin(ended(2) | {"incumbent": "app-0-1"})
    assert list(notes(plugin({}), crashed)) == [
        Note(
            "crashed",
            "app-0-2 exited with status 1; app-0-1 of the version before keeps serving",
            "app-0-2",
        )
    ]
    assert list(notes(crashed, crashed)) == []
    alone = plugin({}, ended(3))
    assert [note.text for note in notes(plugin({}, {}), alone)] == ["app-1-3 exited with status 1"]


def test_an_end_that_was_asked_for_is_no_crash() -> None:
    assert list(notes(plugin({}), plugin(ended(1, "Stopped")))) == []


def test_what_stalls_is_told_once() -> None:
    stalled = plugin(Stalled="it was given up")
    assert list(notes(plugin(), stalled)) == [Note("stalled", "it was given up")]
    assert list(notes(stalled, stalled)) == []


@pytest.mark.parametrize("hindrance", ["Reconciling", "Stalled"])
def test_it_is_settled_when_only_what_was_applied_last_serves(hindrance: str) -> None:
    assert is_settled(plugin(Ready="1 of 1"))
    assert not is_settled(plugin())
    assert not is_settled(plugin(Ready="1 of 1", **{hindrance: "why"}))
    late = plugin(Ready="1 of 1")
    late["metadata"]["generation"] = 3
    assert not is_settled(late)
