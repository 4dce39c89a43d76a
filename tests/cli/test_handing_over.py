"""An update by handover under load: nobody is refused, nothing is lost, and the new one comes in at once."""

from __future__ import annotations

import os
import signal
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
from plane import PLUGINS, Plane, manifest, until

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.control.client import Client

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)
# Comes up, and is on the bus, long before it is to be trusted.
SERVES = """\
import time
from crucible_plugin import Plugin
plugin = Plugin()
@plugin.method()
def who(request):
    time.sleep(request.payload)
    return "%s"
plugin.run()
"""
# Calls it without a pause: three shortly, and one for so long that every update comes in the middle.
CALLS = """\
import os, threading
from crucible_plugin import BusError, Plugin
plugin = Plugin()
def ask(name, seconds):
    while True:
        try: answer = plugin.call("served.who", seconds, timeout=25)
        except BusError as error: answer = f"lost: {error!r}"
        os.write(1, f"{name} {answer}\\n".encode())
for name, seconds in (("a", 0.01), ("b", 0.01), ("c", 0.01), ("long", 1.2)):
    threading.Thread(target=ask, args=(name, seconds), daemon=True).start()
plugin.run()
"""
SERVED = f"{PLUGINS}/served"
POD = "/api/v1/namespaces/default/pods/calls-0-1/log"


def served(word: str, verify: str) -> dict[str, Any]:
    return manifest(
        "served",
        SERVES % word,
        update={"strategy": "handover", "verify": verify},
        health={"ready": {"ping": {}, "interval": "100ms"}},
        capabilities={"bus": {}},
    )


class Scene:
    """A plugin that is called all the time, and what its caller hears."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def so(self, path: str = SERVED, **wanted: object) -> bool:
        status = (await self.client.get(path)).get("status") or {}
        return all(status.get(name) == value for name, value in wanted.items())

    async def heard(self) -> dict[str, list[str]]:
        """Return the answers that came, one after the other, to each who asks."""
        found: dict[str, list[str]] = {"a": [], "b": [], "c": [], "long": []}
        for line in (await self.client.text(POD)).splitlines():
            name, _, answer = line.partition(" ")
            assert name in found, line
            found[name].append(answer)
        return found

    async def answers(self, word: str) -> bool:
        return all(word in answers for answers in (await self.heard()).values())

    async def hand_over(self, word: str, attempt: int, verify: str = "1s") -> None:
        """Update it, and wait until the new one serves alone."""
        await self.client.apply(SERVED, served(word, verify), "test")
        await self.settle(word, attempt)

    async def settle(self, word: str, attempt: int) -> None:
        async def over() -> bool:
            status = (await self.client.get(SERVED))["status"]
            (replica,) = status["instances"]
            return bool(
                replica["attempt"] == attempt and status["phase"] == "Running" and status["replicas"] == 1
            )

        await until(over)
        await until(lambda: self.answers(word))


async def test_no_call_is_refused_or_lost_whoever_dies_meanwhile(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "state")
    plane.start()
    await plane.ready()
    try:
        async with plane.client() as client:
            scene = Scene(client)
            await client.apply(SERVED, served("one", "1s"), "test")
            await until(lambda: scene.so(phase="Running", readyReplicas=1))
            calls = manifest(
                "calls",
                CALLS,
                capabilities={"bus": {"call": ["served.who"]}},
                dependencies=[{"name": "served"}],
            )
            await client.apply(f"{PLUGINS}/calls", calls, "test")
            await until(lambda: scene.so(f"{PLUGINS}/calls", phase="Running"))
            await until(lambda: scene.answers("one"), why=plane.log)
            await scene.hand_over("two", 2)
            await client.apply(SERVED, served("three", "5s"), "test")
            await until(lambda: scene.so(phase="Updating", replicas=2))
            plane.end(signal.SIGKILL)
            assert plane.sandboxes().total() == 3
        plane.start()
        await plane.ready()
        async with plane.client() as client:
            scene = Scene(client)
            await scene.settle("three", 3)
            heard = await scene.heard()
            for answers in heard.values():
                assert [word for word, _ in groupby(answers)] == ["one", "two", "three"], answers
            assert len(heard["a"]) > 100
            for name in ("calls", "served"):
                await client.delete(f"{PLUGINS}/{name}")
            await until(lambda: not plane.leftovers(), why=plane.leftovers)
    finally:
        plane.end()
