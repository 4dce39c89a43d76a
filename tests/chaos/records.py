"""What runs came to, kept as one line of JSON each so that many can be done in batches; the sum of all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from trial import Result


@dataclass(frozen=True, slots=True)
class Record:
    """One run.

    Attributes:
        number: of the run, from 0.
        ground: what it took place on.
        faults: how many happened.
        converged: seconds from the last fault's end until all was as it should be.
        duplicates: what was wrong, in words, of each kind.
        orphans: the same.
        lost: the same.
    """

    number: int
    ground: str
    faults: int
    converged: float
    duplicates: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        return not (self.duplicates or self.orphans or self.lost)


def record_of(result: Result) -> Record:
    """Return what is kept of a run."""
    plan = result.plan
    said = (tuple(words) for words in (result.duplicates, result.orphans, result.lost))
    return Record(plan.number, plan.ground, len(plan.faults), result.converged, *said)


class Book:
    """The records of one seed, on disk."""

    def __init__(self, path: Path, *, go_on: bool) -> None:
        """Open it.

        Args:
            path: the file.
            go_on: keep what is in it; otherwise begin anew.
        """
        self._path = path
        path.parent.mkdir(exist_ok=True)
        self.records = _read(path) if go_on else {}
        self._write()

    def has(self, ground: str, numbers: Iterable[int]) -> bool:
        """Whether all of some runs took place, there, with nothing wrong."""
        found = [self.records.get(number) for number in numbers]
        return all(one is not None and one.clean and one.ground == ground for one in found)

    def enter(self, records: Iterable[Record]) -> None:
        """Keep some, in place of those of the same runs."""
        self.records |= {record.number: record for record in records}
        self._write()

    def _write(self) -> None:
        lines = [json.dumps(asdict(self.records[number])) + "\n" for number in sorted(self.records)]
        self._path.write_text("".join(lines))


def _read(path: Path) -> dict[int, Record]:
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = ("duplicates", "orphans", "lost")
    records = [Record(**{**entry, **{kind: tuple(entry[kind]) for kind in kinds}}) for entry in entries]
    return {record.number: record for record in records}


def summary_of(records: Iterable[Record]) -> dict[str, Any]:
    """Return the figures of all runs."""
    all_of_them = list(records)
    times = sorted(record.converged for record in all_of_them)
    return {
        "runs": len(all_of_them),
        "faults": sum(record.faults for record in all_of_them),
        "duplicates": sum(len(record.duplicates) for record in all_of_them),
        "orphans": sum(len(record.orphans) for record in all_of_them),
        "lost": sum(len(record.lost) for record in all_of_them),
        "converge_p50_s": round(_at(times, 0.50), 2),
        "converge_p99_s": round(_at(times, 0.99), 2),
    }


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0
