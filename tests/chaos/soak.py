"""A long life with churn and without faults: the controller's memory and descriptors stay what they are."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from desired import History
from machine import Machine
from ordeal import CHANGES, Plan, Step
from trial import come_to_rest

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE = 0.25
LONG = 1800.0
MEMORY_KIB, MEMORY_KIB_LONG = 16 * 1024, 8 * 1024
"""How much more the last third of a soak may use than the second; and of a long one, where all is full."""
DESCRIPTORS = 16
PARTS = 30
"""In so many equal parts of its time a soak tells what it used: one for each minute of half an hour."""


async def soak(folder: Path, roots: Path, seconds: float) -> dict[str, Any]:
    """Change plugins, crash them and read their output for so long; return figures and what was wrong."""
    place, history = Machine(folder, roots), History()
    used = Used()
    changes = 0
    try:
        await place.open()
        await place.desired.begin()
        changes = await _churn(place, used, random.Random(seconds), seconds)
        rest = await come_to_rest(place, history, Plan(0, 0, "soak", (), ()))
        await place.desired.delete_all()
        end = await come_to_rest(place, history, Plan(0, 0, "soak", (), ()))
    finally:
        left = await place.close()
    return {
        "seconds": seconds,
        "changes": changes,
        **used.figures(),
        "problems": [*rest.wrong, *end.wrong, *left, *used.problems(seconds)],
    }


async def _churn(place: Machine, used: Used, dice: random.Random, seconds: float) -> int:
    """Change something every quarter of a second, and look at the controller; return how many changes."""
    changes = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        step = Step(0.0, dice.choice(CHANGES), dice.randrange(1 << 30), 0.0)
        await place.desired.change(step)
        if dice.random() < 0.2:
            await place.crash_plugin(step)
        changes += 1
        used.look(place.controller)
        await asyncio.sleep(SAMPLE)
    return changes


class Used:
    """What the controller was seen to use, look by look.

    Attributes:
        memory: resident, in KiB.
        descriptors: how many.
        controllers: the pids it had: one that ended, and was started again, would hide what it leaked.
    """

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.descriptors: list[int] = []
        self.controllers: set[int] = set()

    def look(self, pid: int | None) -> None:
        """Look at it now; where it has just gone, at its successor next time."""
        if pid is None:
            return
        self.controllers.add(pid)
        memory, descriptors = resident(pid), held(pid)
        if memory and descriptors:
            self.memory.append(memory)
            self.descriptors.append(descriptors)

    def figures(self) -> dict[str, Any]:
        """Return it by thirds of the time, and memory more finely."""
        return {
            "controllers": len(self.controllers),
            "memory_kib": medians(self.memory, 3),
            "descriptors": medians(self.descriptors, 3),
            "memory_kib_by_time": medians(self.memory, PARTS),
        }

    def problems(self, seconds: float) -> list[str]:
        """Return what did not stay as it was in so long a time."""
        ended = len(self.controllers) - 1
        return [
            *grown("memory in KiB", self.memory, MEMORY_KIB_LONG if seconds >= LONG else MEMORY_KIB),
            *grown("descriptors", self.descriptors, DESCRIPTORS),
            *([f"the controller ended {ended} times"] if ended > 0 else []),
        ]


def resident(pid: int) -> int:
    """Return a process's resident memory in KiB; 0 of one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)
    return 0


def held(pid: int) -> int:
    """Return how many descriptors a process has; 0 of one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def grown(what: str, samples: Sequence[int], room: int) -> list[str]:
    """Complain where the last third of some samples lies above the second by more than some room."""
    if len(samples) < 3:
        return [f"{what}: too few samples"]
    _, middle, last = medians(samples, 3)
    return [f"{what}: from {middle} to {last}"] if last > middle + room else []


def medians(samples: Sequence[int], parts: int) -> list[int]:
    """Return the median of each of some equal parts of samples, in order; fewer where samples are fewer."""
    parts = min(parts, len(samples))
    cuts = [len(samples) * part // parts for part in range(parts + 1)] if parts else []
    return [int(statistics.median(samples[a:b])) for a, b in pairwise(cuts)]
