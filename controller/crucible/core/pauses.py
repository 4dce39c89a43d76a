"""How long to wait: until what was decided is due, or before trying again what failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_FIRST: Final = 0.5
_LONGEST: Final = 30.0


def span(moment: float, decided: float, now: float) -> float:
    """Return seconds until a moment, also where the clock was put back since: no more than there were then.

    Args:
        moment: unix seconds.
        decided: what the clock said when that moment was chosen.
        now: what it says now.
    """
    return moment - max(now, decided)


@dataclass(frozen=True, slots=True)
class Retry:
    """When to try again what failed.

    The pause doubles each time it has been waited out. Whoever wakes the loop before is answered by one more
    try, which does not move the next: ten changes in a second do not put a plugin off for minutes.

    Attributes:
        failures: how many pauses there were, this one included.
        due: unix seconds of the next try.
    """

    failures: int = 0
    due: float = 0.0

    def after_failure(self, now: float) -> Retry:
        """Return what follows a try that failed at ``now``."""
        if now < self.due:
            return self
        return Retry(self.failures + 1, now + self._delay(self.failures + 1))

    def pause(self, now: float) -> float:
        """Return seconds until the next try, also where the clock was put back since."""
        return min(self.due - now, self._delay(self.failures))

    @staticmethod
    def _delay(failures: int) -> float:
        return min(_FIRST * 2.0 ** (failures - 1), _LONGEST)
