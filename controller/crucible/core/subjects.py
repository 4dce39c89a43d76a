"""Subjects of messages and the patterns that stand for many: what is one, what fits, what covers what.

A subject is 1 to 16 words with dots between. In a pattern ``*`` stands for any one word and ``>``, as the
last, for one word or more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LENGTH_LIMIT: Final = 255
WORD_LIMIT: Final = 16
OURS: Final = "crucible"
"""First word of the subjects that the controller alone publishes to."""

_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PATTERN: Final = re.compile(r"(([A-Za-z0-9_-]+|\*)\.)*([A-Za-z0-9_-]+|\*|>)")


def is_subject(text: str) -> bool:
    """Say whether somebody can publish to it."""
    return _short(text) and _SUBJECT.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Say whether somebody can subscribe to it; every subject is a pattern."""
    return _short(text) and _PATTERN.fullmatch(text) is not None


def _short(text: str) -> bool:
    return len(text) <= LENGTH_LIMIT and text.count(".") < WORD_LIMIT


def covers(granted: str, wanted: str) -> bool:
    """Say whether every subject that fits the pattern ``wanted`` fits ``granted``; both are patterns."""
    mine, theirs = granted.split("."), wanted.split(".")
    for at, word in enumerate(mine):
        if word == ">":
            return at < len(theirs)
        if at >= len(theirs) or theirs[at] == ">" or word not in ("*", theirs[at]):
            return False
    return len(mine) == len(theirs)


def covered(granted: Iterable[str], wanted: str) -> bool:
    """Say whether one of several patterns covers another; of none, never."""
    return any(covers(pattern, wanted) for pattern in granted)


def is_ours(pattern: str) -> bool:
    """Say whether all that fits is the controller's to publish."""
    return pattern.partition(".")[0] == OURS
