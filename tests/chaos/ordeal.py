"""What happens in one run, decided beforehand: the same seed gives the same plan. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS_OF_A_LIFE = 5
"""So many runs share one control plane, whose plugins live on from one to the next."""
LIVES = ("process", "cluster", "process", "process", "docker")
"""What lives take place on, over and over."""
CHANGES = (
    *("add", "add", "change", "change", "change", "scale", "rest", "wake"),
    *("freeze", "thaw", "delete", "nothing"),
)
SECONDS = 3.0
"""How long faults and changes go on in one run."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        at: seconds from the run's start.
        what: a fault's or a change's name.
        pick: chooses among victims, whatever there are then.
        lasts: seconds until a fault that lasts is mended.
    """

    at: float
    what: str
    pick: int
    lasts: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        number: of the run, from 0.
        seed: of all runs together.
        ground: what it takes place on.
        faults: in order.
        changes: of the desired state, in order, while faults happen.
    """

    number: int
    seed: int
    ground: str
    faults: tuple[Step, ...]
    changes: tuple[Step, ...]


def ground_of(number: int) -> str:
    """Return what a run takes place on."""
    return LIVES[number // RUNS_OF_A_LIFE % len(LIVES)]


def plan_of(seed: int, number: int, ground: str, faults: Sequence[str]) -> Plan:
    """Make the plan of one run.

    Args:
        seed: of all runs together.
        number: of this one.
        ground: what it takes place on.
        faults: the names of those that can happen there. Runs go through them in turn, so that few runs meet
        each.
    """
    dice = random.Random(f"{seed}/{number}/{ground}")
    order = list(faults)
    random.Random(f"{seed}/{ground}").shuffle(order)
    count = dice.randint(3, 5)
    begin = number * 3
    chosen = [order[(begin + turn) % len(order)] if turn < 3 else dice.choice(order) for turn in range(count)]
    return Plan(
        number, seed, ground, _steps(dice, chosen), _steps(dice, [dice.choice(CHANGES) for _ in range(6)])
    )


def _steps(dice: random.Random, names: Sequence[str]) -> tuple[Step, ...]:
    steps = [
        Step(dice.uniform(0, SECONDS), name, dice.randrange(1 << 30), dice.uniform(0.1, 1.5))
        for name in names
    ]
    return tuple(sorted(steps, key=lambda step: step.at))
