"""Memory that many share: who takes much is refused first, and all together have a bound."""

from __future__ import annotations

from collections import Counter
from typing import Final

RESERVED: Final = 64
"""Above the limit, who has less than this part of it may still take more, up to twice the limit in all."""


def has_room(limit: int, total: int, own: int, parts: int = RESERVED) -> bool:
    """Say whether somebody who has taken ``own`` of ``total`` bytes may take more."""
    return total < limit or (own < limit // parts and total < 2 * limit)


class Room:
    """Bytes that are taken, by whom."""

    __slots__ = ("_limit", "_parts", "_taken", "total")

    def __init__(self, limit: int, parts: int = RESERVED) -> None:
        """Begin with nothing taken; ``limit // parts`` is what everybody may have above the limit."""
        self.total = 0
        """Bytes that are taken in all."""
        self._limit = limit
        self._parts = parts
        self._taken: Counter[str] = Counter()

    def has(self, owner: str) -> bool:
        """Say whether somebody may take more."""
        return has_room(self._limit, self.total, self._taken.get(owner, 0), self._parts)

    def take(self, owner: str, size: int) -> None:
        """Take so many bytes, where there is room."""
        self._taken[owner] += size
        self.total += size

    def give_back(self, owner: str, size: int) -> None:
        """Give bytes back."""
        self.total -= size
        self._taken[owner] -= size
        if not self._taken[owner]:
            del self._taken[owner]
