"""``crucible top bus``."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from crucible.cli.endpoint import Access, buses_of
from crucible.cli.options import Data
from crucible.cli.printing import data_as
from crucible.cli.table import table
from crucible.cli.terminal import note

if TYPE_CHECKING:
    from crucible.bus.host import Client
    from crucible.cli.endpoint import Buses

NAME: Final = "bus"
"""What stands in the place of a plugin's name."""
SECONDS: Final = 1.0
"""Between the two looks that make a rate."""
_COUNTED: Final = ("calls", "answered", "published", "delivered")
_COLUMNS: Final = (
    *("PLUGIN", "CONNECTIONS", "CALLS/S", "ANSWERS/S", "SENT/S", "GOT/S", "OPEN", "SERVING", "WAITING"),
    *("UNREAD", "FAULTS"),
)

Figures = Mapping[str, Any]


def show(access: Access, output: Data, release: str | None, *, everywhere: bool) -> None:
    """Print what plugins do on the bus."""
    buses = buses_of(access, release)
    found = asyncio.run(_measure(buses, "*" if everywhere else buses.namespace))
    if output is not Data.TEXT:
        print(data_as({"items": found}, output), end="")
        return
    if not found:
        note("no plugin here is on the bus: that takes spec.capabilities.bus, even if it is {}")
        return
    heading = (*(("NAMESPACE",) if everywhere else ()), *_COLUMNS)
    print("\n".join(table([heading, *(_row(each, everywhere=everywhere) for each in found)])))


async def _measure(buses: "Buses", wanted: str) -> list[Figures]:
    """Look twice, and return the second look with rates a second; of several brokers, all together."""
    async with AsyncExitStack() as stack:
        brokers = [await stack.enter_async_context(each) for each in await buses.all()]
        first, began = [await _look(each, wanted) for each in brokers], time.monotonic()
        await asyncio.sleep(SECONDS)
        second, passed = [await _look(each, wanted) for each in brokers], time.monotonic() - began
    return together([with_rates(*looks, passed) for looks in zip(first, second, strict=True)])


def together(told: Sequence[Sequence[Figures]]) -> list[Figures]:
    """Return what several brokers tell as one: each counts what is connected to it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for figures in (each for one in told for each in one):
        key = (figures["namespace"], figures["plugin"])
        sums = found.get(key)
        found[key] = dict(figures) if sums is None else {**figures, **_sum(sums, figures)}
    return [found[key] for key in sorted(found)]


def _sum(one: Figures, other: Figures) -> dict[str, Any]:
    added: dict[str, Any] = {
        name: one[name] + value for name, value in other.items() if isinstance(value, (int, float))
    }
    faults = {*one["faults"], *other["faults"]}
    added["faults"] = {name: one["faults"].get(name, 0) + other["faults"].get(name, 0) for name in faults}
    return added


def with_rates(first: Sequence[Figures], second: Sequence[Figures], seconds: float) -> list[Figures]:
    """Return the second look with what was counted since the first, a second; what is new counts from 0."""
    before = {(one["namespace"], one["plugin"]): one for one in first}
    found: list[Figures] = []
    for one in second:
        then = before.get((one["namespace"], one["plugin"]), {})
        rates = {f"{name}PerSecond": _rate(one[name], then.get(name, 0), seconds) for name in _COUNTED}
        found.append({**one, **rates})
    return found


def _rate(now: int, then: int, seconds: float) -> float:
    """Return a rate; a broker that began anew counts from 0."""
    return round((now - then if now >= then else now) / seconds, 1)


async def _look(bus: "Client", namespace: str) -> list[Figures]:
    found: list[Figures] = []
    more, headers = True, {"namespace": namespace}
    while more:
        answer = json.loads((await bus.call("$bus.figures", headers=headers)).payload)
        found += answer["plugins"]
        more = answer["more"]
        if more:
            headers["after"] = f"{found[-1]['namespace']}/{found[-1]['plugin']}"
    return found


def _row(figures: Figures, *, everywhere: bool) -> list[str]:
    return [
        *([figures["namespace"]] if everywhere else []),
        figures["plugin"],
        str(figures["connections"]),
        *(f"{figures[f'{name}PerSecond']:.0f}" for name in _COUNTED),
        *(str(figures[name]) for name in ("open", "serving", "waiting")),
        _bytes(figures["unread"]),
        str(sum(figures["faults"].values())),
    ]


def _bytes(size: int) -> str:
    return f"{size / 1024:.0f}Ki" if size else "0"
