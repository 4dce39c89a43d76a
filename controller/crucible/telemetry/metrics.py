"""Figures in Prometheus' text format. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, with a sample for each set of labels.

    Attributes:
        name: in Prometheus' own style, with its unit.
        kind: ``counter`` only ever grows while the process lives.
        help: what it is, in one line.
        samples: values by their labels.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Mapping[tuple[tuple[str, str], ...], float]


def plain(name: str, kind: Literal["counter", "gauge"], help_: str, value: float) -> Family:
    """Return a metric that has one sample and no labels."""
    return Family(name, kind, help_, {(): value})


def exposition(families: Iterable[Family]) -> str:
    """Return all families as one text."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in sorted(family.samples.items()):
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            name = f"{family.name}{{{inside}}}" if inside else family.name
            lines.append(f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Return a number in full: a counter that is rounded seems to stand still."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
