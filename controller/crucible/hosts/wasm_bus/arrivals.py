"""What came in and waits for ``bus_next``."""

from __future__ import annotations

from collections import deque
from typing import Final

from .flow import Flow, Served
from .wire import Frame

WINDOW: Final = 8
"""Calls that line up at most; the broker holds back further ones."""
MESSAGES: Final = 64
"""Messages that line up at most; later ones are lost, and counted."""

Arrival = Served | Frame | Flow
"""A call; a message; a watch with a change, or which has ended."""


class Arrivals:
    """A queue of calls, messages and watches in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Arrival] = deque()
        self._messages = 0
        self._missed = 0

    def call(self, served: Served) -> None:
        """Line up a call."""
        self._waiting.append(served)

    def watch(self, flow: Flow) -> None:
        """Line up a watch, once for each change and once for its end."""
        self._waiting.append(flow)

    def tell(self, frame: Frame) -> None:
        """Line up a message, or count it as lost."""
        missed = self._missed + int(frame.headers.get("missed", "0"))
        if self._messages >= MESSAGES:
            self._missed = missed + 1
            return
        self._missed = 0
        self._messages += 1
        self._waiting.append(frame._replace(headers={**frame.headers, "missed": str(missed)}))

    def next(self) -> Arrival | None:
        """Take what came first; None: nothing did."""
        if not self._waiting:
            return None
        found = self._waiting.popleft()
        if isinstance(found, Frame):
            self._messages -= 1
        return found

    def of(self, ident: int) -> Served | None:
        """Return a call that waits."""
        return next((one for one in self._waiting if isinstance(one, Served) and one.id == ident), None)

    def drop(self, unwanted: Flow) -> None:
        """Forget a call or watch."""
        self._waiting = deque(one for one in self._waiting if one is not unwanted)

    def lose_calls(self) -> None:
        """Forget all calls: whoever made them hears that this program went away."""
        self._waiting = deque(one for one in self._waiting if not isinstance(one, Served))
