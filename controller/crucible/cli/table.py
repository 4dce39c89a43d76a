"""Tables as plain text: columns two spaces apart, no lines, so that they can be cut and searched."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from crucible.cli.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def widths_of(rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Return the width of each column, in terminal cells."""
    return tuple(max(width(cell) for cell in column) for column in zip(*rows, strict=True))


def line_of(row: Sequence[str], widths: Sequence[int]) -> str:
    """Return one row; a cell wider than its column pushes the rest to the right."""
    cells = [cell + " " * (room - width(cell)) for cell, room in zip(row[:-1], widths[:-1], strict=True)]
    return "  ".join([*cells, row[-1]]).rstrip()


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first row is the heading. Every cell is made harmless first."""
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = widths_of(clean)
    return [line_of(row, widths) for row in clean]


def width(text: str) -> int:
    """Return how many cells a terminal gives a text: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def span(seconds: float) -> str:
    """Return a length of time for people, two units at most: ``45s``, ``3m10s``, ``5h2m``, ``12d``."""
    whole = max(int(seconds), 0)
    for limit, unit, size, smaller, small in (
        (60, "s", 1, "", 1),
        (3600, "m", 60, "s", 1),
        (86400, "h", 3600, "m", 60),
        (864000, "d", 86400, "h", 3600),
    ):
        if whole < limit:
            rest = (whole % size) // small if smaller else 0
            return f"{whole // size}{unit}{rest}{smaller}" if rest else f"{whole // size}{unit}"
    return f"{whole // 86400}d"
