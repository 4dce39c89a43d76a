"""The README's table of controls, made from what ``crucible doctor --json`` printed. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- doctor: begin -->\n", "<!-- doctor: end -->\n"


def table(found: dict[str, Any]) -> list[str]:
    """Return the lines of the table: a row for each control, a column for each runtime."""
    runtimes = found["runtimes"]
    by_name = {name: {entry["control"]: entry for entry in one["controls"]} for name, one in runtimes.items()}
    names = list(dict.fromkeys(control for one in by_name.values() for control in one))
    return [
        f"| control | {' | '.join(by_name)} |",
        "|---" * (1 + len(by_name)) + "|",
        *(row(control, [one.get(control, {}) for one in by_name.values()]) for control in names),
    ]


def row(control: str, entries: list[dict[str, Any]]) -> str:
    """Return one row; it is what the drift check compares."""
    return f"| {control} | {' | '.join(cell(entry) for entry in entries)} |"


def cell(entry: dict[str, Any]) -> str:
    """Return how one control holds on one runtime."""
    if not entry:
        return ""
    if entry["tried"]:
        return f"{standing(entry)}: {entry['by']}"
    return "-" if entry["level"] == "unavailable" else f"{entry['level']}, not tried: {entry['by']}"


def standing(entry: dict[str, Any]) -> str:
    """Return what does not depend on the host: how well it holds, and how much of what was tried was held."""
    return f"{entry['level']}, {entry['passed']} of {entry['tried']}"


def in_place_of(readme: str, found: dict[str, Any]) -> str:
    """Return the README with the table in its place."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n".join(table(found)) + "\n" + END + after
