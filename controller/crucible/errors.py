"""Every error this package raises on purpose.

The tree, and what a caller may do about each::

    CrucibleError                  never raised itself
    ├── InvalidInput               a person's input is wrong: tell them, do not retry
    │   ├── InvalidManifest        a manifest is; carries the field and the fix of each violation
    │   └── InvalidSource          the files a manifest names are missing, too large or leave their folder
    ├── Unsupported                this host or runtime cannot do it: tell them, do not retry
    ├── NotFound                   the thing named does not exist
    ├── Conflict                   someone else owns or changed it: read again, then decide
    ├── Unavailable                the other side does not answer now: retry with backoff
    └── Underway                   it takes a while and goes on by itself: ask again later
"""

from __future__ import annotations

from dataclasses import dataclass


class CrucibleError(Exception):
    """The root. ``retry`` tells a loop whether the same call can succeed later without a change."""

    retry = False


class InvalidInput(CrucibleError):
    """A person's input is wrong."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a manifest: the field (``spec.resources.memory``), what is wrong, the fix."""

    field: str
    message: str

    def __str__(self) -> str:
        """``field: message``, or the message alone where no one field is to blame."""
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidManifest(InvalidInput):
    """A manifest breaks one rule or more."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("; ".join(str(violation) for violation in violations))
        self.violations = violations


class InvalidSource(InvalidInput):
    """The files that a manifest names cannot be had as they are."""


class Unsupported(CrucibleError):
    """This host, runtime or release cannot do what was asked."""


class NotFound(CrucibleError):
    """The thing named does not exist."""


class Conflict(CrucibleError):
    """The thing named is owned, or was changed, by someone else."""

    retry = True


class Unavailable(CrucibleError):
    """The other side does not answer now."""

    retry = True


class Underway(CrucibleError):
    """What was asked for takes a while, and goes on; the message says how far it is."""

    retry = True
