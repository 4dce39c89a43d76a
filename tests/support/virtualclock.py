"""An event loop whose clock jumps to whatever is due next: waits of minutes take no time at all.

What would wait for ever fails at once, for nothing is due any more; so does what would go on for ever.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


_LONGEST = 500_000.0
"""Seconds of its own clock after which nobody waits for an end any more."""


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: what is due in a while is due now."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            self.now += timeout
            if self.now > _LONGEST:
                raise RuntimeError("it goes on for ever")
        return found


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own, in seconds from 0."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def run(work: Coroutine[Any, Any, Any]) -> float:
    """Run something to its end; return how many seconds its own clock says that it took."""
    with asyncio.Runner(loop_factory=Clockwork) as runner:
        runner.run(work)
        return runner.get_loop().time()
