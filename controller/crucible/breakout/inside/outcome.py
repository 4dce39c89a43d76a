"""What became of an attempt, and what an attempt is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Whether it was denied, and what happened."""

    denied: bool
    detail: str


@dataclass(frozen=True)
class Attempt:
    """One way out, and the right thing to do instead.

    Attributes:
        control: the control that has to deny it, as ``status.enforcement`` names it.
        attack: must be denied: it raises OSError, or says that it found nothing.
        counterpart: what every plugin may do, nearest to the attack; must succeed: neither raise nor return
            False. A sandbox that forbids everything fails here.
    """

    control: str
    attack: Callable[[], Outcome]
    counterpart: Callable[[], object]


def got(what: str) -> Outcome:
    """Return that the attempt succeeded, which is bad."""
    return Outcome(denied=False, detail=what)


def nothing(what: str) -> Outcome:
    """Return that the attempt found nothing to take."""
    return Outcome(denied=True, detail=what)
