"""The controller dies at random moments; every wanted plugin must run exactly once, and nothing else."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from plane import PLUGINS, Plane, insist, manifest, until

from crucible.errors import Conflict, InvalidInput, NotFound

LONG = bool(os.environ.get("CRUCIBLE_LONG"))
KILLS = 10 if LONG else 7
SEEDS = range(20 if LONG else 2)
"""``make chaos`` kills controllers too, among other things; this is nothing but that, and shorter."""


class Churn:
    """Desired state that changes at random, and what should be there in the end."""

    def __init__(self, plane: Plane, dice: random.Random) -> None:
        self.plane = plane
        self.dice = dice
        self.wanted: dict[str, str] = {}
        self.made = 0

    async def act(self) -> None:
        """Change one thing."""
        match self.dice.choice(["add", "add", "change", "delete", "crash", "nothing"]):
            case "add":
                await self.add()
            case "change" if self.wanted:
                await self.change(self.dice.choice(sorted(self.wanted)))
            case "delete" if len(self.wanted) > 2:
                await self.delete(self.dice.choice(sorted(self.wanted)))
            case "crash" if self.wanted:
                await self.crash(self.dice.choice(sorted(self.wanted)))

    async def add(self) -> None:
        self.made += 1
        name = f"p{self.made}"
        body = manifest(name, recovery={"strategy": ["restart"]})

        async def create() -> dict[str, Any]:
            async with self.plane.client() as client:
                try:
                    return await client.create(PLUGINS, body)
                except Conflict:  # the answer to an earlier try was lost with the server
                    return await client.get(f"{PLUGINS}/{name}")

        self.wanted[name] = (await insist(create))["metadata"]["uid"]

    async def change(self, name: str) -> None:
        patch = {"spec": {"config": {"value": self.dice.randrange(10**6)}}}

        async def write() -> None:
            async with self.plane.client() as client:
                await client.patch(f"{PLUGINS}/{name}", patch)

        await insist(write)

    async def delete(self, name: str) -> None:
        async def drop() -> None:
            async with self.plane.client() as client:
                try:
                    await client.delete(f"{PLUGINS}/{name}")
                except NotFound:
                    return

        await insist(drop)
        del self.wanted[name]

    async def crash(self, name: str) -> None:
        async def look() -> dict[str, Any]:
            async with self.plane.client() as client:
                return await client.get(f"{PLUGINS}/{name}")

        for replica in (await insist(look)).get("status", {}).get("instances", []):
            marker = f"crucible:{self.plane.mark()}/{self.wanted[name]}/".encode()
            if replica.get("pid") and _belongs(replica["pid"], marker):
                os.kill(replica["pid"], signal.SIGKILL)


def _belongs(pid: int, marker: bytes) -> bool:
    """Make sure that a pid read from a status is still the plugin's: its grandparent is our sandbox."""
    try:
        for _ in range(2):
            stat = Path(f"/proc/{pid}/stat").read_text()
            pid = int(stat.rpartition(")")[2].split()[1])
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(marker)
    except (OSError, ValueError):
        return False


async def settled(plane: Plane, churn: Churn) -> bool:
    """Every Plugin says that it runs what was last asked for."""
    try:
        async with plane.client() as client:
            plugins = (await client.get(PLUGINS))["items"]
    except (InvalidInput, OSError):
        return False
    return {plugin["metadata"]["name"] for plugin in plugins} == churn.wanted.keys() and all(
        plugin.get("status", {}).get("readyReplicas") == 1
        and plugin["status"]["observedGeneration"] == plugin["metadata"]["generation"]
        and plugin["status"]["phase"] == "Running"
        for plugin in plugins
    )


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_wanted_plugin_runs_exactly_once_whenever_the_controller_dies(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    plane = Plane(tmp_path / "state", "--verbose")
    plane.start()
    try:
        await plane.ready()
        churn = Churn(plane, dice)
        for _ in range(3):
            await churn.add()
        for _ in range(KILLS):
            acting = asyncio.create_task(churn.act())
            await asyncio.sleep(dice.uniform(0, 1.5))
            plane.end(signal.SIGKILL)
            plane.start()
            await acting
        await plane.ready()
        await until(lambda: settled(plane, churn), why=plane.log)
        once = {f"{uid}/0": 1 for uid in churn.wanted.values()}
        await until(lambda: plane.sandboxes() == once, why=lambda: (plane.sandboxes(), once, plane.log()))
        for name in sorted(churn.wanted):
            await churn.delete(name)
        await until(lambda: not plane.leftovers(), why=lambda: (plane.leftovers(), plane.log()))
        assert plane.end(signal.SIGTERM) == 0
    finally:
        plane.end(signal.SIGKILL)
    assert "Traceback" not in plane.log()
