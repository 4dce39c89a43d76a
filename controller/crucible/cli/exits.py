"""Exit codes, and which error ends with which. They are part of the interface: scripts rely on them."""

from __future__ import annotations

from typing import Final

from crucible.errors import CrucibleError, InvalidInput, InvalidManifest, NotFound, Unavailable, Unsupported

FAILED: Final = 1
"""The command was understood and carried out, and what it is about failed, or time ran out."""
USAGE: Final = 2
"""The command line itself is wrong."""
NOT_FOUND: Final = 3
"""The thing named does not exist."""
REFUSED: Final = 4
"""A manifest, a file or a request was refused; nothing was changed."""
UNREACHABLE: Final = 5
"""No control plane answers."""
INTERRUPTED: Final = 130
"""Ctrl-C, as shells count it."""
BROKEN_PIPE: Final = 141
"""Whoever read the output went away, as shells count it."""


class Failed(CrucibleError):
    """What the command is about failed: a plugin did not come up, a deadline passed."""


class WrongUsage(CrucibleError):
    """The options given do not go together."""


def code_of(error: CrucibleError) -> int:
    """Return the exit code for an error."""
    match error:
        case WrongUsage():
            return USAGE
        case NotFound():
            return NOT_FOUND
        case InvalidInput() | Unsupported():
            return REFUSED
        case Unavailable():
            return UNREACHABLE
        case _:
            return FAILED


def lines_of(error: CrucibleError) -> tuple[str, ...]:
    """Return what to print for an error: a line each for the violations of a manifest."""
    if isinstance(error, InvalidManifest):
        return tuple(str(violation) for violation in error.violations)
    return (str(error) or type(error).__name__,)
