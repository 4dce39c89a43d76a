"""What counts as a change of how a Plugin is, and what is said of it."""

from __future__ import annotations

from crucible.core.transitions import Transition, announcements, transitions
from crucible.model.decision import Event
from crucible.model.status import Condition, PluginStatus


def status(*claims: tuple[str, str, str], message: str = "why") -> PluginStatus:
    return PluginStatus(
        conditions=tuple(
            Condition(type=kind, status=truth, reason=reason, message=message, last_transition_time=0.0)  # type: ignore[arg-type]
            for kind, truth, reason in claims
        )
    )


UP = status(("Ready", "True", "Running"), ("Progressing", "False", "Running"), ("Degraded", "False", "Fine"))
DOWN = status(
    ("Ready", "False", "BackOff"), ("Progressing", "False", "BackOff"), ("Degraded", "True", "BackOff")
)


def test_another_truth_and_another_reason_are_changes_and_another_message_is_none() -> None:
    assert transitions(UP, DOWN) == (
        Transition("Ready", "False", "BackOff", "why"),
        Transition("Progressing", "False", "BackOff", "why"),
        Transition("Degraded", "True", "BackOff", "why"),
    )
    assert transitions(UP, UP.model_copy(update={"observed_generation": 2})) == ()
    assert transitions(UP, status(("Ready", "True", "Running"), message="other")) == ()
    assert transitions(UP, status(("Degraded", "False", "Suspended"))) == ()


def test_what_was_never_ill_and_is_not_has_not_changed() -> None:
    found = transitions(PluginStatus(), UP)
    assert [each.condition for each in found] == ["Ready", "Progressing"]
    assert [each.condition for each in transitions(DOWN, UP)] == ["Ready", "Progressing", "Degraded"]


def test_each_reason_is_announced_once_and_as_a_warning_where_something_is_ill() -> None:
    assert announcements(transitions(UP, DOWN), ()) == (Event("Warning", "BackOff", "why"),)
    assert announcements(transitions(DOWN, UP), ()) == (
        Event("Normal", "Running", "why"),
        Event("Normal", "Fine", "why"),
    )


def test_what_an_event_of_the_turn_tells_already_is_not_announced_again() -> None:
    assert announcements(transitions(UP, DOWN), (Event("Warning", "BackOff", "more"),)) == ()
