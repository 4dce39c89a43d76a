"""What a controller tells Prometheus of itself and its Plugins: the same on a machine and on a cluster."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from crucible.model.status import Phase
from crucible.telemetry.metrics import Family, exposition, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BEAT: Final = 1.0
_STUCK: Final = 30.0
"""Seconds after which an event loop that did not turn is not expected to."""


@dataclass(slots=True)
class Heart:
    """Shows whether the event loop turns.

    Attributes:
        beat: when it last did, monotonic seconds.
    """

    beat: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """Seconds since the event loop last turned."""
        return time.monotonic() - self.beat

    @property
    def trouble(self) -> str:
        """Why this process should be restarted; empty while the event loop turns."""
        age = self.age
        return f"the loop has not turned for {age:.0f} s" if age > _STUCK else ""

    async def go_on(self) -> None:
        """Beat, until cancelled."""
        while True:
            self.beat = time.monotonic()
            await asyncio.sleep(_BEAT)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is told.

    Attributes:
        plugins: Plugins as last seen.
        turns: how often one was looked at.
        transitions: how often a condition came to a status for a reason.
        age: seconds since the event loop last turned.
        outage: instances cannot be followed now.
        leader: this controller is the one that acts.
        shut: other machines cannot come to this one's broker directly though they may.
    """

    plugins: Sequence[Mapping[str, Any]]
    turns: int
    transitions: Mapping[tuple[str, str, str], int]
    age: float
    outage: bool
    leader: bool = True
    shut: bool = False


def figures(standing: Standing) -> str:
    """Return the metrics of a controller, in Prometheus' text format."""
    status = [plugin.get("status") or {} for plugin in standing.plugins]
    phases = Counter(str(each.get("phase") or "Pending") for each in status)
    restarts = sum(int(each.get("restarts") or 0) for each in status)
    by_phase: dict[tuple[tuple[str, str], ...], float] = {
        (("phase", phase.value),): phases[phase.value] for phase in Phase
    }
    changes: dict[tuple[tuple[str, str], ...], float] = {
        (("condition", condition), ("status", truth), ("reason", reason)): count
        for (condition, truth, reason), count in standing.transitions.items()
    }
    return exposition(
        [
            plain("crucible_leader", "gauge", "1 while this controller leads.", standing.leader),
            plain(
                "crucible_loop_age_seconds", "gauge", "Time since the event loop last turned.", standing.age
            ),
            Family("crucible_plugins", "gauge", "Plugins by phase, as the leader sees them.", by_phase),
            plain(
                "crucible_reconciles_total", "counter", "How often a Plugin was looked at.", standing.turns
            ),
            plain("crucible_restarts", "gauge", "Restarts of the plugins there are, summed up.", restarts),
            plain("crucible_outage", "gauge", "1 while instances cannot be followed.", standing.outage),
            plain(
                "crucible_lines_shut",
                "gauge",
                "1 while machines of the backbone cannot come directly though they may.",
                standing.shut,
            ),
            Family(
                "crucible_condition_transitions_total",
                "counter",
                "How often a condition of a Plugin came to a status for a reason.",
                changes,
            ),
        ]
    )
