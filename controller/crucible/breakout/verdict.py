"""What the suite found: one value for each thing tried, counted by control. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crucible.model.enforcement import Control, Level

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crucible.model.enforcement import Capabilities


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried or read.

    Attributes:
        control: which control it is about.
        name: what was tried, in words.
        ok: it was as it has to be.
        detail: what was seen.
    """

    control: Control
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How a control did: how well it claims to hold and by what, and how many of its checks it passed."""

    control: Control
    level: Level
    by: str
    passed: int
    tried: int
    failures: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """It holds as it claims to: what is not claimed to be enforced need not pass."""
        return self.level is not Level.ENFORCED or not self.failures


@dataclass(frozen=True, slots=True)
class Said:
    """What the program inside printed: its checks, and what it read about its sandbox."""

    checks: tuple[Check, ...]
    readings: Mapping[str, Any]
    complete: bool


def listen(lines: Iterable[bytes]) -> Said:
    """Judge a program's output; lines that are not its own words are failures.

    Nothing that a program says can make a control look better than silence does: an output that was cut off
    is not complete, and whoever ran it has to say so.
    """
    checks: list[Check] = []
    readings: Mapping[str, Any] = {}
    promised = None
    attempts = 0
    for line in lines:
        match _document(line):
            case {"readings": Mapping() as found}:
                readings = found
            case {"summary": {"attempts": int(number)}}:
                promised = number
            case {"attempt": str(name), "control": str(word), **rest} if word in set(Control):
                attempts += 1
                checks += _attempt(Control(word), name, rest)
            case _:
                text = line[:200].decode(errors="replace")
                checks.append(
                    Check(Control.NAMESPACES, "speak plainly", ok=False, detail=f"it said {text!r}")
                )
    return Said(tuple(checks), readings, complete=promised == attempts and bool(readings))


def _document(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _attempt(control: Control, name: str, said: Mapping[Any, Any]) -> tuple[Check, Check]:
    """Return an attempt, which has to be denied, and the right thing to do instead, which has to succeed."""
    return (
        Check(control, name, said.get("denied") is True, str(said.get("detail", "it said nothing"))),
        Check(
            control,
            f"the right thing beside: {name}",
            said.get("allowed") is True,
            str(said.get("instead", "it said nothing")),
        ),
    )


def tallies(capabilities: Capabilities, checks: Iterable[Check]) -> tuple[Tally, ...]:
    """Count the checks by control, in the order of the runtime's report; what was never tried is left out."""
    kept = tuple(checks)
    found = []
    for entry in capabilities.controls:
        mine = tuple(check for check in kept if check.control is entry.control)
        if mine:
            failures = tuple(check for check in mine if not check.ok)
            passed = len(mine) - len(failures)
            found.append(Tally(entry.control, entry.level, entry.by, passed, len(mine), failures))
    return tuple(found)
