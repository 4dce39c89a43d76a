"""The order in which waiting work is done: urgent first, nobody starved, senders alike, all of it bounded.

Work is counted in units: one for each frame, and one more for every full 4 KiB of it. A round is
:data:`ROUND` units: up to 8 critical, then 4 high, 2 normal, 1 low; whoever has nothing waiting passes its
turn on. So while every priority has work waiting, low gets one unit in 15, normal 2, high 4, and critical
never waits for more than the 7 of the others. Within a priority, each sender's share of units is the same,
in the order sent.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from crucible.bus.room import Room

WEIGHTS: Final = (8, 4, 2, 1)
"""Units of a round, by priority."""
ROUND: Final = sum(WEIGHTS)
UNIT_BYTES: Final = 4096
_TIDY: Final = 64

Item = TypeVar("Item")


def units(size: int) -> int:
    """Return what a frame of so many bytes counts."""
    return 1 + size // UNIT_BYTES


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait: of one sender, and in all; frames and bytes."""

    sender_count: int = 1024
    sender_bytes: int = 2 * 1024 * 1024 + 65536
    count: int = 4096
    bytes: int = 8 * 1024 * 1024 + 65536


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item]):
    """One waiting piece of work; ``item`` is None once it does not wait any more."""

    item: Item | None
    size: int
    line: _Line[Item]


@dataclass(slots=True, eq=False)
class _Line(Generic[Item]):
    """What one sender has waiting at one priority."""

    sender: str
    tickets: deque[Ticket[Item]] = field(default_factory=deque)
    dead: int = 0


class _Class(Generic[Item]):
    """Everything of one priority: lines, served so that each sender gets the same number of units."""

    __slots__ = ("_heap", "_lines", "_served", "_turn", "count")

    def __init__(self) -> None:
        self.count = 0
        self._lines: dict[str, _Line[Item]] = {}
        self._heap: list[tuple[int, int, _Line[Item]]] = []
        self._served: dict[str, int] = {}
        self._turn = 0

    def push(self, sender: str, item: Item, size: int) -> Ticket[Item]:
        line = self._lines.get(sender)
        if line is None:
            line = self._lines[sender] = _Line(sender)
            floor = self._heap[0][0] if self._heap else 0
            self._enqueue(max(self._served.get(sender, 0), floor), line)
        ticket = Ticket(item, size, line)
        line.tickets.append(ticket)
        self.count += 1
        return ticket

    def pop(self) -> tuple[Ticket[Item], int]:
        """Take the next live ticket, and what it counts; there must be one."""
        while True:
            served, _, line = heapq.heappop(self._heap)
            ticket = self._first(line)
            if ticket is None:
                del self._lines[line.sender]
                continue
            cost = units(ticket.size)
            self.count -= 1
            self._served[line.sender] = served + cost
            if line.tickets:
                self._enqueue(served + cost, line)
            else:
                del self._lines[line.sender]
            if not self.count:
                self._reset()
            return ticket, cost

    def discard(self, ticket: Ticket[Item]) -> None:
        line = ticket.line
        ticket.item = None
        line.dead += 1
        self.count -= 1
        if line.dead > _TIDY and line.dead * 2 > len(line.tickets):
            line.tickets = deque(entry for entry in line.tickets if entry.item is not None)
            line.dead = 0
        if not self.count:
            self._reset()

    def _reset(self) -> None:
        """Nothing waits: forget who was served how much."""
        self._lines.clear()
        self._heap.clear()
        self._served.clear()

    def _enqueue(self, served: int, line: _Line[Item]) -> None:
        self._turn += 1
        heapq.heappush(self._heap, (served, self._turn, line))

    @staticmethod
    def _first(line: _Line[Item]) -> Ticket[Item] | None:
        while line.tickets:
            ticket = line.tickets.popleft()
            if ticket.item is not None:
                return ticket
            line.dead -= 1
        return None


class FairQueue(Generic[Item]):
    """Work that waits, and the order in which it is taken."""

    __slots__ = ("_bounds", "_classes", "_credit", "_owner", "_room", "_senders", "_size", "count")

    def __init__(self, bounds: Bounds | None = None, room: Room | None = None, owner: str = "") -> None:
        """Begin with nothing.

        Args:
            bounds: how much may wait here.
            room: that all queues share; None: it is not counted.
            owner: for whom it waits.
        """
        self.count = 0
        self._room = room
        self._owner = owner
        self._bounds = bounds or Bounds()
        self._classes: tuple[_Class[Item], ...] = tuple(_Class() for _ in WEIGHTS)
        self._credit = list(WEIGHTS)
        self._size = 0
        self._senders: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    def fits(self, sender: str, size: int) -> bool:
        """Say whether a piece of work of this size may wait."""
        bounds = self._bounds
        count, waiting = self._senders.get(sender, (0, 0))
        return (
            count < bounds.sender_count
            and waiting + size <= bounds.sender_bytes
            and self.count < bounds.count
            and self._size + size <= bounds.bytes
            and (self._room is None or self._room.has(self._owner))
        )

    def push(self, sender: str, priority: int, item: Item, size: int) -> Ticket[Item] | None:
        """Let a piece of work wait.

        Returns:
            Its ticket; None when too much waits already.
        """
        if not self.fits(sender, size):
            return None
        if self._room is not None:
            self._room.take(self._owner, size)
        count, waiting = self._senders.get(sender, (0, 0))
        self._senders[sender] = (count + 1, waiting + size)
        self.count += 1
        self._size += size
        return self._classes[priority].push(sender, item, size)

    def pop(self) -> Item | None:
        """Take what comes next; None when nothing waits."""
        if not self.count:
            return None
        while True:
            for priority, group in enumerate(self._classes):
                if group.count and self._credit[priority] > 0:
                    ticket, cost = group.pop()
                    self._credit[priority] -= cost
                    item = ticket.item
                    self._leave(ticket)
                    return item
            self._next_round()

    def discard(self, ticket: Ticket[Item], priority: int) -> None:
        """Take back what does not need doing any more; once only."""
        if ticket.item is not None:
            self._classes[priority].discard(ticket)
            self._leave(ticket)

    def clear(self) -> None:
        """Drop all that waits."""
        while self.count:
            self.pop()

    def waiting(self, sender: str) -> int:
        """Return how many pieces a sender has waiting."""
        return self._senders.get(sender, (0, 0))[0]

    def _leave(self, ticket: Ticket[Item]) -> None:
        ticket.item = None
        sender = ticket.line.sender
        count, waiting = self._senders[sender]
        if count == 1:
            del self._senders[sender]
        else:
            self._senders[sender] = (count - 1, waiting - ticket.size)
        self.count -= 1
        self._size -= ticket.size
        if self._room is not None:
            self._room.give_back(self._owner, ticket.size)
        if not self.count:
            self._credit = list(WEIGHTS)

    def _next_round(self) -> None:
        """Give every priority its units of a round; a debt is paid off first, a rest does not add up."""
        for priority, weight in enumerate(WEIGHTS):
            self._credit[priority] = min(self._credit[priority] + weight, weight)
