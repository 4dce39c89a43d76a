"""What is asked of instances, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crucible.model.probe import Probe
    from crucible.model.workload import Slot


class Check(StrEnum):
    """What the answers to a probe decide."""

    STARTUP = "startup"
    READY = "ready"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one asking came to: well or not, and in words why not."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Streak:
    """The newest answers to one probe that are alike.

    Attributes:
        ok: what they say.
        count: how many; no more are counted than decide anything.
        message: what the newest said.
        at: when the newest that counted came, unix seconds.
    """

    ok: bool
    count: int
    message: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Watch:
    """One probe to go on asking one instance.

    Attributes:
        slot: the instance.
        check: what the answers decide.
        probe: what is asked, and how often.
        since: unix seconds when the instance was first seen to run.
        known: what is on record of earlier answers; None: nothing.
        settled: whether it has passed before.
    """

    slot: Slot
    check: Check
    probe: Probe
    since: float
    known: Streak | None = None
    settled: bool = False

    @property
    def key(self) -> tuple[int, Check]:
        """Names it within its plugin: attempts are never used twice."""
        return self.slot.attempt, self.check
