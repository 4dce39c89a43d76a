"""The revisions a Plugin went through, and which of them to go back to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.model.status import RevisionReport, RollbackReport

if TYPE_CHECKING:
    from crucible.model.plugin import Identity

History = tuple[RevisionReport, ...]


@dataclass(frozen=True, slots=True)
class Remembered:
    """A history after a revision was wanted.

    Attributes:
        history: oldest first; the wanted one is the last.
        new: it was not there before.
        forgotten: what the limit left no room for.
    """

    history: History
    new: bool = False
    forgotten: History = ()


def remember(history: History, wanted: RevisionReport, limit: int) -> Remembered:
    """Note that a revision is wanted now.

    One that is wanted again moves to the end, and keeps whether it was good. What is forgotten first is the
    oldest; of the good ones the newest stays whatever the limit.

    Args:
        history: so far.
        wanted: its number is set here.
        limit: how many to keep besides the wanted one.
    """
    if history and history[-1].revision == wanted.revision:
        return Remembered(history)
    number = max((each.number for each in history), default=0) + 1
    known = next((each for each in history if each.revision == wanted.revision), None)
    last = (known or wanted).model_copy(update={"number": number, "at": wanted.at})
    others = [each for each in history if each.revision != wanted.revision]
    spared = next((each for each in reversed(others) if each.good), None)
    forgotten = [each for each in others[: max(len(others) - limit, 0)] if each is not spared]
    kept = tuple(each for each in others if each not in forgotten)
    return Remembered((*kept, last), known is None, tuple(forgotten))


def approve(history: History, revision: str) -> History:
    """Note that a revision was as it should be."""
    return tuple(
        each.model_copy(update={"good": True}) if each.revision == revision else each for each in history
    )


def is_good(history: History, revision: str) -> bool:
    """Whether a revision ever was as it should be."""
    return any(each.revision == revision and each.good for each in history)


def last_good(history: History, but: str) -> RevisionReport | None:
    """Return the newest revision that was as it should be, other than one."""
    return next((each for each in reversed(history) if each.good and each.revision != but), None)


def rollback_of(
    identity: Identity, history: History, standing: RollbackReport | None, wanted: str
) -> RollbackReport | None:
    """Return which revision runs in the place of the wanted one, if one does.

    What was asked or decided counts for the wanted revision it was about, and no other: a changed manifest
    or a restart that is asked for is tried as it is.

    Args:
        identity: with the annotation by which a person asks, ``FROM TO``.
        history: of the Plugin.
        standing: what was decided before.
        wanted: the revision that the manifest asks for.
    """
    failed, _, target = identity.rollback.partition(" ")
    if failed == wanted and target in {each.revision for each in history} - {wanted}:
        return RollbackReport(failed=failed, revision=target, asked=True, message="somebody asked for it")
    return standing if standing is not None and standing.failed == wanted and not standing.asked else None
