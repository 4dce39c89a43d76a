"""What a controller asks the instances of a Plugin on the bus: on a machine, and on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from crucible.errors import Unavailable
from crucible.model.door import Door

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crucible.model.workload import Slot

_CONFIGURE: Final = 5.0
"""Seconds an instance has to take a configuration."""
_TOLD: Final = 300
"""Characters that are told of why it does not take one."""


class Asked(Protocol):
    """Whoever passes on what a controller asks: one broker, or all of a cluster."""

    async def call(self, key: str, method: str, payload: str, seconds: float) -> tuple[str, str]:
        """Call a method of the instance behind a door; return the code of an error and the text.

        Raises:
            Unavailable: a broker that may know the instance cannot be asked.
        """
        ...

    async def open_calls(self, keys: Sequence[str]) -> Mapping[str, int | None]:
        """Return how many calls are open with who is behind doors, by door.

        Raises:
            Unavailable: a broker cannot be asked.
        """
        ...


async def configure(bus: Asked, plugin_uid: str, slot: Slot, config: str) -> str:
    """Call an instance with its new configuration; return why it does not take it, or nothing.

    Raises:
        Unavailable: it, or a broker, cannot be called now.
    """
    code, text = await bus.call(_key(plugin_uid, slot), "$config", config, _CONFIGURE)
    if code in {"Unavailable", "Overloaded"}:
        raise Unavailable(text)
    return f"{code}: {text}"[:_TOLD] if code else ""


async def open_calls(bus: Asked, plugin_uid: str, slots: Sequence[Slot]) -> Mapping[int, int | None]:
    """Ask how many calls instances have that are given no new ones, by attempt.

    None where nobody can say: a broker may be busy, and they too.
    """
    keys = {slot.attempt: _key(plugin_uid, slot) for slot in slots}
    try:
        found = await bus.open_calls(list(keys.values()))
    except Unavailable:
        return dict.fromkeys(keys)
    return {attempt: found.get(key) for attempt, key in keys.items()}


def _key(plugin_uid: str, slot: Slot) -> str:
    return f"{plugin_uid}/{slot}/{Door.BUS}"
