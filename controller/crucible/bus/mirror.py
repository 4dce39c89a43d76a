"""One plugin's key-value data on the backbone, as a replica knows it: what its log said so far. Pure.

A store is the messages of ``crucible.store.NAMESPACE.PLUGIN.*`` in one stream: one for each key, of which the
last counts, and one that says whose the store is. Everything is appended on the condition that nothing else
was since, so all replicas read one order, and what one has counted holds.
"""

from __future__ import annotations

import bisect
import itertools
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

from crucible.bus.bucket import KEYS, Changed, Full, Listed, footprint, is_key, weight

OWNER: Final = "owner"
PUT, DELETED = b"\1", b"\0"
_PREFIX: Final = "crucible.store"


def subject(namespace: str, plugin: str, token: str = "*") -> str:  # noqa: S107 - a word of a subject
    """Return the subject of one thing in a store, or of all."""
    return f"{_PREFIX}.{namespace}.{plugin}.{token}"


def token_of(key: str) -> str:
    """Return a key as one word of a subject."""
    return f"k{urlsafe_b64encode(key.encode()).decode().rstrip('=')}"


def key_of(token: str) -> str:
    """Return the key that is written so; empty: none is."""
    text = token[1:]
    try:
        key = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except ValueError:
        return ""
    return key if token[:1] == "k" and is_key(key) else ""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a store is.

    Attributes:
        uid: of the Plugin; empty: of none, the last one did not want it kept.
        born: when that was created, by which an earlier Plugin of the name is told from a later one.
        keep: what is in it stays when the Plugin is deleted.
        since: what was written before this is nobody's any more.
    """

    uid: str
    born: str
    keep: bool
    since: int = 0

    def encode(self) -> bytes:
        """Return it as a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Owner:
        """Read it.

        Raises:
            ValueError: it is none.
        """
        try:
            words = json.loads(payload)
            return cls(str(words["uid"]), str(words["born"]), words["keep"] is True, int(words["since"]))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(str(error)) from error


class Change(NamedTuple):
    """What watchers are told."""

    key: str
    op: str
    revision: int
    value: bytes


class Mirror:
    """What a store holds, without the values.

    Attributes:
        owner: whose it is; None: nobody's yet.
        last: number of the last message.
        used: bytes that count against its size.
        memory: bytes that its keys take here.
        past: messages that say that a key was deleted, and can go.
        void: there was something that is nobody's any more.
    """

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self.last = 0
        self.used = 0
        self.memory = 0
        self.past: dict[str, int] = {}
        self.void = False
        self._entries: dict[str, tuple[int, int]] = {}
        self._keys: list[str] = []

    def apply(self, number: int, token: str, payload: bytes) -> Change | None:
        """Take the next message; what came before is known already.

        Raises:
            ValueError: no broker wrote it.
        """
        if number <= self.last:
            return None
        self.last = number
        if token == OWNER:
            self.owner = Owner.decode(payload)
            self._forget_before(self.owner.since)
            return None
        key = key_of(token)
        if not key or payload[:1] not in (PUT, DELETED):
            raise ValueError(f"a message that no broker writes: {token[:80]!r}")
        self._drop(key)
        self.past.pop(token, None)
        if payload[:1] == DELETED:
            self.past[token] = number
            return Change(key, "delete", number, b"")
        bisect.insort(self._keys, key)
        self._entries[key] = (number, len(payload) - 1)
        self.used += weight(key, len(payload) - 1)
        self.memory += footprint(key)
        return Change(key, "put", number, payload[1:])

    def _forget_before(self, number: int) -> None:
        kept = {key: entry for key, entry in self._entries.items() if entry[0] >= number}
        self.void = self.void or len(kept) < len(self._entries)
        self._entries, self._keys = kept, sorted(kept)
        self.used = sum(weight(key, size) for key, (_, size) in kept.items())
        self.memory = sum(map(footprint, kept))

    def _drop(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.used -= weight(key, found[1])
            self.memory -= footprint(key)
            del self._keys[bisect.bisect_left(self._keys, key)]

    def check_put(self, key: str, length: int, expected: int | None, size: int, *, may_grow: bool) -> None:
        """Say whether a value may be kept.

        Raises:
            Changed: another revision is there than was expected.
            Full: it would hold more than it may.
        """
        before = self._expect(key, expected)
        used = self.used + weight(key, length) - (0 if before is None else weight(key, before[1]))
        if used > size and used > self.used:
            raise Full(f"{self.used} of {size} bytes are used, and this needs {used - self.used} more")
        if before is None and len(self._entries) >= KEYS:
            raise Full(f"it holds {KEYS} keys, which is as many as a store may: put more into each")
        if before is None and not may_grow:
            raise Full("all stores together hold as many keys as fit the broker's memory")

    def check_delete(self, key: str, expected: int | None) -> bool:
        """Say whether there is something to delete.

        Raises:
            Changed: another revision is there than was expected.
        """
        return self._expect(key, expected) is not None

    def _expect(self, key: str, expected: int | None) -> tuple[int, int] | None:
        before = self._entries.get(key)
        if expected is not None and expected != (0 if before is None else before[0]):
            raise Changed(0 if before is None else before[0])
        return before

    def list(self, prefix: str, after: str, limit: int) -> Listed:
        """Return the keys that begin with a prefix and come after another."""
        first = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, after))
        page = self._keys[first : first + limit + 1]
        keys = list(itertools.takewhile(lambda key: key.startswith(prefix), page))
        entries = tuple((key, *self._entries[key]) for key in keys[:limit])
        return Listed(entries, len(keys) > limit, self.used)
