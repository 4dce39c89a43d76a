"""A control plane in a thread, ended before it has begun."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from crucible import bootstrap
from crucible.bootstrap import UpOptions
from crucible.embedded import EmbeddedPlane
from crucible.settings import Places

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECONDS = 30.0


async def test_one_that_is_ended_while_it_still_loads_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []

    async def serve(_: UpOptions, stop: asyncio.Event) -> None:
        began.append("serving")
        await stop.wait()

    monkeypatch.setattr(bootstrap, "serve", serve)
    plane, gate = EmbeddedPlane(UpOptions(Places(tmp_path))), threading.Event()
    run = plane._run
    plane._thread = threading.Thread(target=lambda: (gate.wait(SECONDS), run()), daemon=True)
    starting = asyncio.create_task(plane.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(starting, return_exceptions=True)
    assert not plane._thread.is_alive()
    assert began == []
