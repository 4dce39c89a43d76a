"""What became of an attempt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Whether it was denied, and what happened."""

    denied: bool
    detail: str


def got(what: str) -> Outcome:
    """Return that the attempt succeeded, which is bad."""
    return Outcome(denied=False, detail=what)


def nothing(what: str) -> Outcome:
    """Return that the attempt found nothing to take."""
    return Outcome(denied=True, detail=what)
