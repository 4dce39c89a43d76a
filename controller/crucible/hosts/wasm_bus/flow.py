"""One end of a call: what came of it, and how many items may go."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from . import wire
from .wire import Failure, Frame

WINDOW: Final = 16
"""Items that may be on their way before they are asked for again."""
GRACE: Final = 1.0
"""Seconds by which the broker may be late with its word that a call is."""


class Flow:
    """A call under way, of ours or of somebody else.

    Attributes:
        due: when its time is over, in the seconds of ``time.monotonic``; None: never.
        under: the id of the call that it is made for; None: of none.
        watched: what keys begin with whose changes it tells; None: it is no watch.
        end: the frame that ended it.
        items: that came and were not looked at.
        credit: how many may go.
    """

    def __init__(
        self,
        call: Frame,
        due: float | None = None,
        under: int | None = None,
        watched: str | None = None,
    ) -> None:
        self.id = call.id
        self.priority = call.priority
        self.due = due
        self.under = under
        self.watched = watched
        self.end: Frame | None = None
        self.items: deque[Frame] = deque()
        self.credit = 0
        self._finished = False
        self._owed = 0

    @property
    def over(self) -> bool:
        """No more items come."""
        return self.end is not None or self._finished

    @property
    def left(self) -> float | None:
        """Seconds until its time is over; None: any number."""
        return None if self.due is None else self.due - time.monotonic()

    def take(self, frame: Frame) -> None:
        """Note what the other side said."""
        if frame.kind == wire.ITEM:
            self._finished = bool(frame.flags & wire.LAST)
            if frame.payload or not self._finished:
                self.items.append(frame)
        elif frame.kind == wire.CREDIT:
            self.credit += int.from_bytes(frame.payload, "big")
        else:
            self.end = frame

    def asks(self) -> Frame | None:
        """Return the frame that lets the other side send more, once half of what it may is used up."""
        if self._owed > WINDOW // 2:
            return None
        more, self._owed = WINDOW - self._owed, WINDOW
        return Frame(wire.CREDIT, self.id, payload=more.to_bytes(4, "big"), priority=self.priority)

    def item(self) -> Frame:
        """Return the item that came first; there is one."""
        self._owed -= 1
        return self.items.popleft()

    def gives(self, payload: bytes, flags: int = 0) -> Frame:
        """Return an item; there is credit for it."""
        self.credit -= 1
        return Frame(wire.ITEM, self.id, payload=payload, priority=self.priority, flags=flags)

    def cancels(self) -> Frame:
        """Return what says that the answer is not wanted."""
        return Frame(wire.CANCEL, self.id, priority=self.priority)


class Served(Flow):
    """A call that somebody made of this program.

    Attributes:
        frame: as it came.
        unwanted: nobody waits for its answer any more.
        collected: items for a caller that takes none, joined to a list in the end.
    """

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame, time.monotonic() + frame.deadline / 1000 if frame.deadline else None)
        self.frame = frame
        self.unwanted = False
        self.collected: list[bytes] | None = None
        self._size = 0

    @property
    def streams(self) -> bool:
        """Its caller takes items."""
        return bool(self.frame.flags & wire.STREAM)

    def collect(self, item: bytes) -> None:
        """Keep an item for the list.

        Raises:
            Failure: the list is larger than an answer may be.
        """
        self._size += len(item) + 1
        if self._size >= wire.PAYLOAD_LIMIT:
            raise Failure("TooLarge", "the caller takes no stream, and the list is larger than 1048576 bytes")
        if self.collected is None:
            self.collected = []
        self.collected.append(item)

    def result(self, payload: bytes) -> bytes:
        """Return the answer: what the program says, or the items it sent to who takes no stream."""
        return payload if self.collected is None else b"[" + b",".join(self.collected) + b"]"
