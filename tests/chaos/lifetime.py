"""One life: a control plane that goes through several runs, and is taken down at the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from desired import History
from ordeal import plan_of
from trial import Result, carry_out, come_to_rest

if TYPE_CHECKING:
    from collections.abc import Callable

    from places import Place


_TRACEBACK = re.compile(
    r"(?<!BaseEventLoop\.__del__ at 0x............>\n)Traceback \(most recent call last\):\n  File \"(?!<)"
)
"""One of ours: an interpreter, or asyncio, without a descriptor left to start with prints one of its own."""


@dataclass(frozen=True, slots=True)
class Life:
    """What one life consists of.

    Attributes:
        ground: what it takes place on.
        seed: of all runs together.
        numbers: of its runs.
    """

    ground: str
    seed: int
    numbers: range


async def live(place: Place, life: Life, told: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """Go through every run, then delete every plugin; the last result holds what was left after that."""
    history = History()
    results: list[Result] = []
    try:
        await place.open()
        await place.desired.begin()
        for number in life.numbers:
            result = await carry_out(
                place, plan_of(life.seed, number, life.ground, sorted(place.faults)), history
            )
            results.append(result)
            told(result)
            if result.wrong:
                break
        if not results[-1].wrong:
            await place.desired.delete_all()
            end = await come_to_rest(place, history, results[-1].plan)
            results[-1].orphans += end.orphans
            results[-1].lost += end.lost
    except TimeoutError as error:
        if not results:
            raise
        results[-1].lost.append(f"the plugins could not be deleted: {error}")
    finally:
        left = await _taken_down(place)
    results[-1].orphans += left
    if _TRACEBACK.search(place.log()):
        results[-1].lost.append("the log holds a traceback")
    return results


async def _taken_down(place: Place) -> list[str]:
    """Take everything down; return what was not as it should be then, so that the runs' results stay."""
    try:
        return await place.close()
    except Exception as error:  # noqa: BLE001 - a life that cannot be taken down is a result too
        return [f"it could not be taken down: {error!r}"]
