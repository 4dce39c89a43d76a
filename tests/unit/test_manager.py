"""What a program of one's own is spared: waiting for ever, and connections that pile up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from crucible import manager as managers
from crucible.manager import PluginManager

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECONDS = 30.0


class Line:
    """A connection to the bus that is broken from the start."""

    open = 0
    made = 0

    def __init__(self, *_: object) -> None:
        self.connected = False

    async def __aenter__(self) -> Self:
        Line.open += 1
        Line.made += 1
        self.connected = Line.made % 2 == 0
        return self

    async def __aexit__(self, *_: object) -> None:
        Line.open -= 1


async def test_a_connection_that_broke_is_closed_before_the_next_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managers, "HostBus", Line)
    one = PluginManager(state=tmp_path)
    for _ in range(3):
        bus = await one._connected()
        assert Line.open == 1
        bus.connected = False  # type: ignore[misc]
    await one.__aexit__()
    assert Line.open == 0
    assert Line.made == 6


async def test_a_plugin_that_answers_to_the_name_of_no_method_is_on_the_bus(tmp_path: Path) -> None:
    class Asked(PluginManager):
        async def get(self, name: str) -> Any:
            return name

        async def call(self, name: str, payload: Any = None, **_: Any) -> Any:
            return name, payload

    async with asyncio.timeout(SECONDS):
        await Asked(state=tmp_path).wait_on_bus("odd")
