"""What a measurement says: one row, ours beside the reference of the same run."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        name: of the measurement.
        unit: of ``ours`` and ``reference``.
        ours: the median, or the percentile the name says.
        reference: the same of the bare runtime, in the same run; None where there is none.
        target: what ``ratio`` (``ours``, where there is no reference) may not exceed; None: only told.
        at_least: the target is a floor instead.
        absolute: the target is for ``ours`` although there is a reference.
        promised: the run fails where the target is missed; others are only told.
    """

    name: str
    unit: str
    ours: float
    reference: float | None = None
    target: float | None = None
    at_least: bool = False
    absolute: bool = False
    promised: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours over the reference."""
        return None if not self.reference else self.ours / self.reference

    @property
    def met(self) -> bool | None:
        """Whether the target is met."""
        figure = self.ours if self.absolute or self.reference is None else self.ratio
        if self.target is None or figure is None:
            return None
        return figure >= self.target if self.at_least else figure <= self.target


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share (0 to 1) of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def table(rows: Iterable[Row]) -> str:
    """Return rows as text for people."""
    lines = [f"{'what':<44}{'ours':>12}{'reference':>12}{'ratio':>8}{'target':>9}  met"]
    for row in rows:
        reference = "" if row.reference is None else f"{row.reference:.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        sign = ">=" if row.at_least else "<="
        target = "" if row.target is None else f"{sign}{row.target:g}"
        met = {True: "yes", False: "NO", None: ""}[row.met]
        ours = f"{row.ours:.4g} {row.unit}"
        lines.append(f"{row.name:<44}{ours:>12}{reference:>12}{ratio:>8}{target:>9}  {met}")
    return "\n".join(lines)


def broken(rows: Iterable[Row]) -> list[str]:
    """Return the names of the promises that were not kept."""
    return [row.name for row in rows if row.promised and row.met is False]


def save(rows: Iterable[Row], path: Path) -> None:
    """Write rows for programs; rows measured earlier and not now are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {row["name"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    for row in rows:
        data = asdict(row)
        del data["at_least"], data["absolute"], data["promised"]
        kept[row.name] = data | {"ratio": row.ratio, "met": row.met}
    path.write_text(json.dumps(list(kept.values()), indent=1) + "\n")
