"""Where runs take place: what every one of them offers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Mapping

    from desired import Desired
    from ordeal import Step

    Fault = Callable[[Step], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is there, seen from outside of the controller.

    Attributes:
        alive: how many instances run, by ``plugin uid/ordinal``.
        things: everything else that was made and has an owner: its name, and the owner's uid; empty: nobody.
        values: what stands in the configuration that an instance sees, by ``plugin uid/ordinal``.
    """

    alive: Counter[str]
    things: tuple[tuple[str, str], ...]
    values: tuple[tuple[str, int], ...] = ()


class Place(Protocol):
    """A control plane, plugins, and the ways to break both.

    Attributes:
        faults: by name; each returns once it happened, and was mended where it lasts.
        desired: what was asked for.
        patience: seconds after which a run that has not come to rest has failed.
    """

    patience: float
    faults: Mapping[str, Fault]
    desired: Desired

    async def open(self) -> None:
        """Start everything."""
        ...

    async def mend(self) -> None:
        """End every fault that still goes on."""
        ...

    async def look(self) -> Seen:
        """Look from outside."""
        ...

    def alive(self) -> Counter[str]:
        """Return what runs now, by ``plugin uid/ordinal``; called often while faults happen."""
        ...

    def log(self) -> str:
        """Return what controllers said."""
        ...

    async def close(self) -> list[str]:
        """Stop everything; return what was not as it should be at the end."""
        ...


async def pause(seconds: float) -> None:
    """Let a fault last: the plan says how long."""
    await asyncio.sleep(seconds)


def chosen(among: list[Any], step: Step) -> list[Any]:
    """Return one of some, or none where there are none."""
    return [among[step.pick % len(among)]] if among else []
