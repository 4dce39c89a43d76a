"""What a turn changed of how a Plugin is, to be said, counted and logged with the conditions' own reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.model.decision import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crucible.model.status import Condition, PluginStatus

_ILLS: Final = frozenset({"Degraded", "Stalled"})
"""Conditions of which nobody has to hear, for whatever reason, while they do not hold."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One condition that became another, or is so for another reason.

    Attributes:
        condition: its type.
        status: ``True`` or ``False``.
        reason: one CamelCase word.
        message: what happened, for people.
    """

    condition: str
    status: str
    reason: str
    message: str


def transitions(before: PluginStatus, after: PluginStatus) -> tuple[Transition, ...]:
    """Return what is another condition, or holds for another reason, than before."""
    known = dict.fromkeys(_ILLS, ("False", "")) | {each.type: _standing(each) for each in before.conditions}
    return tuple(
        Transition(each.type, each.status, each.reason, each.message)
        for each in after.conditions
        if known.get(each.type) != _standing(each)
    )


def _standing(condition: Condition) -> tuple[str, str]:
    quiet = condition.type in _ILLS and condition.status == "False"
    return condition.status, "" if quiet else condition.reason


def announcements(found: Iterable[Transition], told: Iterable[Event]) -> tuple[Event, ...]:
    """Return an event for each reason among transitions that no event of the same turn tells already."""
    said = {event.reason for event in told}
    events: dict[str, Event] = {}
    for each in found:
        if each.reason in said:
            continue
        ill = each.condition in _ILLS and each.status == "True"
        if ill or each.reason not in events:
            events[each.reason] = Event("Warning" if ill else "Normal", each.reason, each.message)
    return tuple(events.values())
