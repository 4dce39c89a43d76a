"""What the operator of a cluster does in a second: an API server, and a kubelet that plays pods."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from ground import LocalGround
from rows import Row

PLUGINS = 1000
CREATORS = 16
DEADLINE = 300.0
_MIB = 2**20


class Direct(LocalGround):
    """The operator goes straight to the API server: no proxy is measured with it."""

    def kubeconfig(self) -> Path:
        return self.place / "control" / "kubeconfig"


async def footprint() -> list[Row]:
    """A thousand Plugins from their creation to Ready, then all of them changed; the operator's memory."""
    folder = Path(tempfile.mkdtemp(prefix="crucible-bench-"))
    try:
        async with Direct(folder) as ground:
            operator = ground.start()
            await ground.until(lambda: "leads" in ground.log())
            empty = _memory(operator.pid)
            began = time.perf_counter()
            await _each(lambda number: ground.apply(f"p{number}", update={"strategy": "recreate"}))
            await _all_ready(ground, 1)
            created = time.perf_counter() - began
            began = time.perf_counter()
            await _each(lambda number: ground.change(f"p{number}", config={"value": 2}))
            await _all_ready(ground, 2)
            changed = time.perf_counter() - began
            loaded = _memory(operator.pid)
            if any(most > 1 for most in ground.kubelet.most.values()):
                raise RuntimeError("a replica ran twice at once")
    finally:
        shutil.rmtree(folder)
    return [
        Row("cluster-operator-1000-plugins-ready", "s", created),
        Row("cluster-operator-changed-plugins", "/s", PLUGINS / changed),
        Row("cluster-operator-memory-at-rest", "MiB", empty / _MIB),
        Row("cluster-operator-memory-1000-plugins", "MiB", loaded / _MIB, target=256),
    ]


async def _each(work: object) -> None:
    numbers = iter(range(PLUGINS))

    async def some() -> None:
        for number in numbers:
            await work(number)  # type: ignore[operator]

    await asyncio.gather(*(some() for _ in range(CREATORS)))


async def _all_ready(ground: LocalGround, generation: int) -> None:
    async with asyncio.timeout(DEADLINE):
        waiting = PLUGINS
        while waiting:
            await asyncio.sleep(0.5)
            items = (await ground.client.get(ground.plugins))["items"]
            waiting = PLUGINS - sum(
                (item.get("status") or {}).get("phase") == "Running"
                and item["status"]["observedGeneration"] == generation
                for item in items
            )


def _memory(pid: int) -> int:
    """Return the resident set in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
