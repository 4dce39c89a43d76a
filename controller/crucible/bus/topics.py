"""Who listens to what: a tree of subjects, one word a level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True, eq=False)
class Subscription:
    """One pattern that one connection listens to.

    Attributes:
        connection: who listens.
        id: the connection's own.
        namespace: whose subjects.
        pattern: which.
        missed: messages that were for it and did not fit since the last that did.
    """

    connection: Any
    id: int
    namespace: str
    pattern: str
    missed: int = 0


@dataclass(slots=True)
class _Node:
    words: dict[str, _Node] = field(default_factory=dict)
    here: dict[int, Subscription] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.words and not self.here


class Topics:
    """The subscriptions of all namespaces; no message crosses from one to another."""

    __slots__ = ("_roots", "count")

    def __init__(self) -> None:
        self.count = 0
        self._roots: dict[str, _Node] = {}

    def add(self, subscription: Subscription) -> None:
        """Listen."""
        node = self._roots.setdefault(subscription.namespace, _Node())
        for word in subscription.pattern.split("."):
            node = node.words.setdefault(word, _Node())
        node.here[id(subscription)] = subscription
        self.count += 1

    def remove(self, subscription: Subscription) -> None:
        """Listen no more; it must be there."""
        words = subscription.pattern.split(".")
        path = [self._roots[subscription.namespace]]
        for word in words:
            path.append(path[-1].words[word])
        del path[-1].here[id(subscription)]
        self.count -= 1
        for parent, word, node in reversed(list(zip(path, words, path[1:], strict=False))):
            if node.empty:
                del parent.words[word]
        if path[0].empty:
            del self._roots[subscription.namespace]

    def listeners(self, namespace: str, subject: str) -> list[Subscription]:
        """Return whose pattern fits a subject, in no order."""
        root = self._roots.get(namespace)
        return [] if root is None else list(_fitting(root, subject.split("."), 0))


def _fitting(node: _Node, words: list[str], at: int) -> Iterator[Subscription]:
    if at == len(words):
        yield from node.here.values()
        return
    rest = node.words.get(">")
    if rest is not None:
        yield from rest.here.values()
    for word in (words[at], "*"):
        inner = node.words.get(word)
        if inner is not None:
            yield from _fitting(inner, words, at + 1)
