"""What to tell the author of a plugin when its status becomes another: pure, from two objects to lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crucible.cli.objects import condition, holds, replicas_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["reloaded", "ready", "crashed", "stalled", "gone"]


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that happened.

    Attributes:
        kind: what.
        text: in words.
        instance: the one that ended, where one did.
    """

    kind: Kind
    text: str
    instance: str = ""


def notes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Note]:
    """Yield what happened between two states of a Plugin; ``before`` is empty at first."""
    revision = revision_of(after)
    if revision and revision != revision_of(before):
        yield Note("reloaded", f"revision {revision[:8]}")
    known = {replica["ordinal"]: _exit_of(replica) for replica in replicas_of(before)}
    for replica in replicas_of(after):
        ended, ordinal = replica.get("lastExit") or {}, replica["ordinal"]
        if _exit_of(replica) == known.get(ordinal) or not ended or ended.get("reason") == "Stopped":
            continue
        name = f"{after['metadata']['name']}-{ordinal}-{ended['attempt']}"
        kept = replica.get("incumbent")
        comfort = f"; {kept} of the version before keeps serving" if kept else ""
        yield Note("crashed", f"{name} {ended.get('message', 'ended')}{comfort}", name)
    why = condition(after, "Stalled")
    if holds(after, "Stalled") and why.get("message") != _stalled(before):
        yield Note("stalled", str(why.get("message", "")))


def is_settled(plugin: Mapping[str, Any]) -> bool:
    """Whether what was applied last serves, and nothing of the version before does."""
    status = plugin.get("status") or {}
    seen = status.get("observedGeneration", 0) >= plugin["metadata"].get("generation", 1)
    return (
        seen and holds(plugin, "Ready") and not holds(plugin, "Reconciling") and not holds(plugin, "Stalled")
    )


def revision_of(plugin: Mapping[str, Any]) -> str:
    """Return the revision that is wanted; empty while the controller has not spoken."""
    return str((plugin.get("status") or {}).get("revision", ""))


def _exit_of(replica: Mapping[str, Any]) -> tuple[object, object] | None:
    ended = replica.get("lastExit")
    return (ended.get("attempt"), ended.get("at")) if ended else None


def _stalled(plugin: Mapping[str, Any]) -> object:
    return condition(plugin, "Stalled").get("message") if holds(plugin, "Stalled") else None
