"""What may reach a terminal: text made harmless, colour only where it is seen."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

# C0 but tab and newline, DEL, C1; the marks that reorder or hide text; lone surrogates.
_HARMFUL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_LONGEST: Final = 2000
"""Characters of a message; whoever wrote what it quotes may have written without end."""
_COLOURS: Final = {"green": 32, "red": 31, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}


def harmless(text: str) -> str:
    r"""Spell out every character that could move a cursor, colour or reorder text: ``\x1b`` for escape."""
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def one_line(text: str) -> str:
    """Return harmless text without line breaks or tabs, for a cell or a message."""
    return harmless(" ".join(text.split()))


def colourful(stream: TextIO = sys.stdout, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour: a terminal, and neither ``NO_COLOR`` nor a dumb one."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def paint(text: str, colour: str, *, on: bool) -> str:
    """Return text in a colour (green, red, yellow, cyan, bold, dim), or as it is."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if on and colour else text


def complain(text: str) -> None:
    """Say on standard error what went wrong, in one line."""
    said = one_line(text)
    shown = said if len(said) <= _LONGEST else f"{said[:_LONGEST]} …"
    print(f"{paint('error:', 'red', on=colourful(sys.stderr))} {shown}", file=sys.stderr)


def note(text: str) -> None:
    """Say something on standard error that is no part of the output."""
    print(one_line(text), file=sys.stderr)
