"""All Plugins that are told of, and one number by which two lists can be compared."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from crucible.model.bus import Member

_MODULUS = 2**64


class Members:
    """Plugins by uid.

    Attributes:
        digest: the same for two lists exactly when they hold the same, in whatever order it was told.
    """

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._members: dict[str, Member] = {}
        self._sum = 0
        for member in members:
            self.put(member)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __len__(self) -> int:
        return len(self._members)

    @property
    def digest(self) -> str:
        """Return the number, as text."""
        return f"{len(self._members)}-{self._sum:016x}"

    def get(self, uid: str) -> Member | None:
        """Return a Plugin; None when it was not told of."""
        return self._members.get(uid)

    def put(self, member: Member) -> bool:
        """Tell of one; False when just that is known."""
        before = self._members.get(member.uid)
        if before == member:
            return False
        self.drop(member.uid)
        self._members[member.uid] = member
        self._sum = (self._sum + _number(member)) % _MODULUS
        return True

    def drop(self, uid: str) -> bool:
        """Tell that one is no more; False when it was not known."""
        member = self._members.pop(uid, None)
        if member is None:
            return False
        self._sum = (self._sum - _number(member)) % _MODULUS
        return True


def digest_of(words: Mapping[str, Any] | None) -> str:
    """Return a text that is the same for two objects exactly when they say the same."""
    return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=8).hexdigest()


def _number(member: Member) -> int:
    text = json.dumps(member.to_json(), sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
