"""How fast a plugin may send and receive: a token bucket that can be in debt. Pure: the clock is told."""

from __future__ import annotations

from typing import Final

_BURST_SECONDS: Final = 0.25
_BURST_LEAST: Final = 1 << 14
_STEP_MOST: Final = 1 << 15
_STEP_LEAST: Final = 1 << 12
_STEPS_A_SECOND: Final = 10


class Bucket:
    """Bytes that may pass, all connections and both directions together."""

    def __init__(self, rate: int | None, now: float) -> None:
        """Begin full.

        Args:
            rate: bytes a second; None: any.
            now: in seconds, of any clock that goes forward.
        """
        self.rate = rate
        self._at = now
        self._left = self._burst()

    def change(self, rate: int | None, now: float) -> None:
        """Take on another rate; debts stay."""
        self.take(0, now)
        self.rate = rate
        self._left = min(self._left, self._burst())

    @property
    def step(self) -> int:
        """How many bytes to move at once, so that all directions get their turn."""
        if self.rate is None:
            return _STEP_MOST
        return max(min(self.rate // _STEPS_A_SECOND, _STEP_MOST), _STEP_LEAST)

    def take(self, size: int, now: float) -> float:
        """Let some bytes pass; return the seconds to wait after them."""
        if self.rate is None:
            return 0.0
        self._left = min(self._left + max(now - self._at, 0.0) * self.rate, self._burst()) - size
        self._at = now
        return max(-self._left / self.rate, 0.0)

    def _burst(self) -> float:
        return 0.0 if self.rate is None else max(self.rate * _BURST_SECONDS, _BURST_LEAST)
