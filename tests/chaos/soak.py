"""A long life with churn and without faults: the controller's memory and descriptors stay what they are."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from desired import History
from machine import Machine
from ordeal import CHANGES, Plan, Step
from trial import come_to_rest

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE = 1.0
MEMORY_KIB = 16 * 1024
"""How much more the last third of a soak may use than the second: allocators take time to rest."""
DESCRIPTORS = 16


async def soak(folder: Path, roots: Path, seconds: float) -> dict[str, Any]:
    """Change plugins, crash them and read their output for so long; return figures and what was wrong."""
    place, history = Machine(folder, roots), History()
    dice = random.Random(seconds)
    memory: list[int] = []
    descriptors: list[int] = []
    changes = 0
    await place.open()
    try:
        await place.desired.begin()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            step = Step(0.0, dice.choice(CHANGES), dice.randrange(1 << 30), 0.0)
            await place.desired.change(step)
            if dice.random() < 0.2:
                await place.crash_plugin(step)
            changes += 1
            pid = place.controller
            memory.append(resident(pid))
            descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
            await asyncio.sleep(SAMPLE / 4)
        rest = await come_to_rest(place, history, Plan(0, 0, "soak", (), ()))
        await place.desired.delete_all()
        end = await come_to_rest(place, history, Plan(0, 0, "soak", (), ()))
    finally:
        left = await place.close()
    problems = [*rest.wrong, *end.wrong, *left, *grown("memory in KiB", memory, MEMORY_KIB)]
    problems += grown("descriptors", descriptors, DESCRIPTORS)
    return {
        "seconds": seconds,
        "changes": changes,
        "memory_kib": _thirds(memory),
        "descriptors": _thirds(descriptors),
        "problems": problems,
    }


def resident(pid: int) -> int:
    """Return a process's resident memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def grown(what: str, samples: Sequence[int], room: int) -> list[str]:
    """Complain where the last third of some samples lies above the second by more than some room."""
    if len(samples) < 3:
        return [f"{what}: too few samples"]
    _, middle, last = _thirds(samples)
    return [f"{what}: from {middle} to {last}"] if last > middle + room else []


def _thirds(samples: Sequence[int]) -> tuple[int, int, int]:
    size = max(1, len(samples) // 3)
    parts = (samples[:size], samples[size : 2 * size], samples[2 * size :])
    first, second, third = (int(statistics.median(part or (0,))) for part in parts)
    return first, second, third
