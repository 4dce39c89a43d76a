"""``crucible top bus``."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crucible.cli.endpoint import Access, bus_of
from crucible.cli.options import Data
from crucible.cli.printing import data_as
from crucible.cli.table import table
from crucible.cli.terminal import note

if TYPE_CHECKING:
    from crucible.bus.host import HostBus

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


def show(access: Access, output: Data, *, everywhere: bool) -> None:
    """Print what plugins do on the bus."""
    door, namespace = bus_of(access)
    found = asyncio.run(_measure(door, namespace, "*" if everywhere else namespace))
    if output is not Data.TEXT:
        print(data_as({"items": found}, output), end="")
        return
    if not found:
        note("no plugin here is on the bus: that takes spec.capabilities.bus, even if it is {}")
        return
    heading = (*(("NAMESPACE",) if everywhere else ()), *_COLUMNS)
    print("\n".join(table([heading, *(_row(each, everywhere=everywhere) for each in found)])))


async def _measure(door: Path, namespace: str, wanted: str) -> list[Figures]:
    """Look twice, and return the second look with rates a second."""
    from crucible.bus.host import HostBus  # noqa: PLC0415 - help does not need it

    async with HostBus(door, namespace) as bus:
        first, began = await _look(bus, wanted), time.monotonic()
        await asyncio.sleep(SECONDS)
        second, passed = await _look(bus, wanted), time.monotonic() - began
    return with_rates(first, second, passed)


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


async def _look(bus: "HostBus", namespace: str) -> list[Figures]:
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
