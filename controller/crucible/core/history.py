"""The revisions a Plugin went through, and which of them to go back to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.model.asked import Rollback, read_rollback
from crucible.model.status import RevisionReport, RollbackReport

if TYPE_CHECKING:
    from crucible.model.plugin import Identity
    from crucible.model.status import PluginStatus

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


def remember(history: History, wanted: RevisionReport, limit: int, running: str = "") -> Remembered:
    """Note that a revision is wanted now.

    One that is wanted again moves to the end, and keeps whether it was good. What is forgotten first is the
    oldest; whatever the limit, the newest good one stays, and what runs in the wanted one's place.

    Args:
        history: so far.
        wanted: its number is set here.
        limit: how many to keep besides the wanted one.
        running: the revision that runs in its place; empty: none does.
    """
    if history and history[-1].revision == wanted.revision:
        return Remembered(history)
    number = max((each.number for each in history), default=0) + 1
    known = next((each for each in history if each.revision == wanted.revision), None)
    last = (known or wanted).model_copy(update={"number": number, "at": wanted.at})
    others = [each for each in history if each.revision != wanted.revision]
    spared = next((each for each in reversed(others) if each.good), None)
    forgotten = [
        each
        for each in others[: max(len(others) - limit, 0)]
        if each is not spared and each.revision != running
    ]
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of going back.

    Attributes:
        rollback: which revision runs in the place of the wanted one, if one does.
        refused: why what a person asks for is not done; empty: it is, nobody asks, or it was said.
    """

    rollback: RollbackReport | None = None
    refused: str = ""


def rollback_of(identity: Identity, status: PluginStatus, wanted: str) -> Answer:
    """Return which revision runs in the place of the wanted one.

    What was asked or decided counts for the wanted revision it was about, and no other: a changed manifest
    or a restart that is asked for is tried as it is. What a person asks for is never dropped without a word.

    Args:
        identity: with the annotation by which a person asks.
        status: of the Plugin, with its history and what was answered so far.
        wanted: the revision that the manifest asks for.
    """
    asked, standing = read_rollback(identity.rollback), status.rollback
    new = identity.rollback != status.answered
    kept = {each.revision for each in status.history} - {wanted}
    meant = asked.failed == wanted or bool(asked.manifest and asked.manifest == identity.manifest)
    goes_on = not new and standing is not None and standing.asked and standing.failed == wanted
    if asked.target in kept and (meant or goes_on):
        report = RollbackReport(
            failed=wanted, revision=asked.target, asked=True, message="somebody asked for it"
        )
        return Answer(report)
    decided = standing if standing is not None and standing.failed == wanted and not standing.asked else None
    return Answer(decided, _refusal(asked, status, wanted) if new else "")


def _refusal(asked: Rollback, status: PluginStatus, wanted: str) -> str:
    """Return why a rollback is not done; one that is over since long before it was noted needs no word."""
    known = {each.revision for each in status.history}
    if asked == Rollback() or (
        not asked.manifest and not status.answered and asked.failed in known - {wanted}
    ):
        return ""
    if not asked.target:
        return "it was not understood: write WANTED TARGET, or run 'crucible rollback'"
    if asked.target == wanted:
        return f"revision {wanted} is what the manifest asks for"
    if asked.target not in known:
        return f"revision {asked.target} is not kept any more: see 'crucible history'"
    return "the manifest was changed, or a restart asked for, after it was asked: ask again"
