"""What a turn changed of how a Plugin is, to be said, counted and logged with the conditions' own reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.model.decision import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crucible.model.status import PluginStatus

_ILLS: Final = frozenset({"Degraded", "Stalled"})
"""Conditions that nobody has to hear of before they hold for the first time."""


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
    known = {each.type: (each.status, each.reason) for each in before.conditions}
    return tuple(
        Transition(each.type, each.status, each.reason, each.message)
        for each in after.conditions
        if known.get(each.type) != (each.status, each.reason)
        and not (each.type in _ILLS and each.type not in known and each.status == "False")
    )


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
