"""Carries out one plan, waits until all is as it should be, and counts what is not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from desired import LOOPER, History, missed, unsettled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ordeal import Plan, Step
    from places import Place, Seen

_LOOKS = 0.05


@dataclass(slots=True)
class Result:
    """What became of one run.

    Attributes:
        plan: it.
        converged: seconds from the last fault's end until all was as it should be.
        duplicates: replicas seen to run twice at once, at any moment.
        orphans: things that were there in the end and nobody wanted.
        lost: what was asked for and is not there, or is not as it was asked for; history that was forgotten.
    """

    plan: Plan
    converged: float = 0.0
    duplicates: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        return [*self.duplicates, *self.orphans, *self.lost]


async def carry_out(place: Place, plan: Plan, history: History) -> Result:
    """Carry out one plan on a place that is as it should be."""
    result = Result(plan)
    watching = asyncio.create_task(_watch(place, result))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_play(plan.faults, lambda step: place.faults[step.what](step)))
            group.create_task(_play(plan.changes, place.desired.change))
        await place.mend()
        begun = time.monotonic()
        await _converge(place, history, result)
        result.converged = time.monotonic() - begun
    except* Exception as group_of:  # noqa: BLE001 - a run that broke down is a result too
        result.lost += [f"the run broke down: {error!r}" for error in group_of.exceptions]
    finally:
        watching.cancel()
    return result


async def come_to_rest(place: Place, history: History, plan: Plan) -> Result:
    """Wait until all is as it should be, with no fault before."""
    result = Result(plan)
    await _converge(place, history, result)
    return result


async def _play(steps: tuple[Step, ...], act: Callable[[Step], Awaitable[None]]) -> None:
    begun = time.monotonic()
    for step in steps:
        await asyncio.sleep(max(0.0, step.at - (time.monotonic() - begun)))
        await act(step)


async def _watch(place: Place, result: Result) -> None:
    """Note every replica that runs twice, whenever that is."""
    beside: set[str] = set()
    while True:
        beside |= {one.uid for one in place.desired.wanted.values() if one.most > 1}
        for replica, count in place.alive().items():
            told = f"{replica} ran {count} times at once"
            if count > (2 if _owner(replica) in beside else 1) and told not in result.duplicates:
                result.duplicates.append(told)
        await asyncio.sleep(_LOOKS)


async def _converge(place: Place, history: History, result: Result) -> None:
    deadline = time.monotonic() + place.patience
    while True:
        plugins = await place.desired.plugins()
        seen = await place.look()
        waiting = unsettled(plugins, place.desired.wanted)
        orphans, lost = _amiss(place, seen)
        lost += missed(plugins, place.desired.wanted)
        lost += history.broken(plugins)
        if not (waiting or orphans or lost):
            return
        if time.monotonic() > deadline:
            result.orphans, result.lost = orphans, [*lost, *waiting]
            return
        await asyncio.sleep(_LOOKS)


def _amiss(place: Place, seen: Seen) -> tuple[list[str], list[str]]:
    """Return what is there and should not be, and what should be and is not.

    What is held still has what it had: nothing of it is started, ended or given a new configuration.
    """
    wanted = {one.uid: one for one in place.desired.wanted.values()}
    looping = {one.uid for name, one in place.desired.wanted.items() if name == LOOPER}
    still = {uid for uid, one in wanted.items() if one.phase == "Frozen"}
    expected = Counter(
        f"{uid}/{ordinal}"
        for uid, one in wanted.items()
        if one.phase == "Running" and uid not in looping
        for ordinal in range(one.replicas)
    )
    alive = Counter({each: count for each, count in seen.alive.items() if _owner(each) not in still})
    orphans = [f"{replica} runs" for replica in alive - expected]
    orphans += [f"{what} is left" for what, owner in seen.things if owner not in wanted]
    lost = [f"{replica} does not run" for replica in expected - alive]
    for replica, value in seen.values:
        one = wanted.get(_owner(replica))
        if one is not None and one.phase == "Running" and one.value != value:
            lost.append(f"{replica} is configured with {value} instead of {one.value}")
    return orphans, lost


def _owner(replica: str) -> str:
    return replica.rpartition("/")[0]
