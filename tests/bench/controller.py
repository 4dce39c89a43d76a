"""What the whole controller costs: `crucible up` with its API server and operator."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from plane import PLUGINS, Plane, manifest, until
from rows import Row

PLUGIN_COUNT = 100
IDLE_SECONDS = 10.0
_MIB = 2**20


async def footprint() -> list[Row]:
    """Memory at rest and with a hundred plugins, CPU while they idle, memory of an idle plugin."""
    folder = Path(tempfile.mkdtemp(prefix="crucible-bench-"))
    plane = Plane(folder / "state")
    plane.start()
    try:
        await plane.ready()
        await _settle(plane, 0)
        at_rest = _memory(_family(plane))
        await _apply(plane)
        await _settle(plane, PLUGIN_COUNT)
        loaded = _memory(_family(plane))
        before = _cpu(_family(plane))
        begin = time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        share = (_cpu(_family(plane)) - before) / (time.monotonic() - begin)
        plugins = _memory(_plugins(plane))
        await _clear(plane)
        return [
            Row("controller-memory-at-rest", "MiB", at_rest / _MIB, target=100),
            Row("controller-memory-per-plugin", "KiB", (loaded - at_rest) / PLUGIN_COUNT / 1024, target=100),
            Row("controller-idle-cpu-100-plugins", "% of a core", 100 * share, target=2),
            Row("plugin-memory", "MiB", plugins / PLUGIN_COUNT / _MIB, target=4.5),
        ]
    finally:
        plane.end()
        shutil.rmtree(folder)


async def _apply(plane: Plane) -> None:
    async with plane.client() as client:
        for number in range(PLUGIN_COUNT):
            await client.create(PLUGINS, manifest(f"p{number}"))


async def _clear(plane: Plane) -> None:
    async with plane.client() as client:
        for number in range(PLUGIN_COUNT):
            await client.delete(f"{PLUGINS}/p{number}")
    await until(lambda: not plane.leftovers(), why=plane.leftovers)


async def _settle(plane: Plane, count: int) -> None:
    """Wait until that many plugins run and the controller has nothing left to do."""

    async def running() -> bool:
        async with plane.client() as client:
            plugins = (await client.get(PLUGINS))["items"]
        return sum(plugin.get("status", {}).get("readyReplicas", 0) for plugin in plugins) == count

    await until(running, deadline=120)
    await _quiet(lambda: asyncio.sleep(0.5), plane)


async def _quiet(pause: Callable[[], Awaitable[None]], plane: Plane) -> None:
    for _ in range(60):
        before = _cpu(_family(plane))
        await pause()
        if _cpu(_family(plane)) - before < 0.05:
            return


def _family(plane: Plane) -> list[int]:
    """Return the controller's pid and those of its own helpers, not of plugins."""
    if plane.process is None:
        raise AssertionError("no controller runs")
    root = plane.process.pid
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *(int(pid) for pid in children if _owner(int(pid)) == os.geteuid())]


def _plugins(plane: Plane) -> list[int]:
    """Return every process of every plugin, bubblewrap's included."""
    prefix = f"crucible:{plane.mark()}/".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            first = _read(entry / "cmdline").partition(b"\0")[0]
            if first.startswith(prefix):
                found.append(int(entry.name))
                found += [int(pid) for pid in _read(entry / "task" / entry.name / "children").split()]
    return sorted(set(found))


def _owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _memory(pids: list[int]) -> int:
    """Return proportional set size in bytes."""
    total = 0
    for pid in pids:
        for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _cpu(pids: list[int]) -> float:
    """Return seconds of processor time used so far."""
    ticks = 0
    for pid in pids:
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
