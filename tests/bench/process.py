"""The process runtime beside bare processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable

from rows import Row, median, percentile
from scene import Scene, bare, end, plugin, sandboxed, scene, until_ready

ROUNDS = 5
KILLS = 50


async def cold(count: int) -> list[Row]:
    """From nothing to ``count`` plugins that have printed their first line.

    Beside as many bare processes, and as many bare bubblewrap sandboxes.
    """
    ours: list[float] = []
    plain: list[float] = []
    shut_in: list[float] = []
    async with scene() as made:
        await _cold(made, 1)
        (root,) = (made.folder / "process" / "roots").glob("python-*")
        for _ in range(ROUNDS if count < 100 else 3):
            ours.append(await _cold(made, count))
            plain.append(_timed(lambda: bare(count)))
            shut_in.append(_timed(lambda: sandboxed(count, root)))
    target = 1.35 if count == 100 else None
    return [
        Row(f"process-cold-{count}", "s", median(ours), median(plain), target),
        Row(f"process-cold-{count}-bubblewrap", "s", median(ours), median(shut_in)),
    ]


def _timed(start: Callable[[], list[subprocess.Popen[bytes]]]) -> float:
    begin = time.perf_counter()
    started = start()
    seconds = time.perf_counter() - begin
    end(started)
    return seconds


async def _cold(made: Scene, count: int) -> float:
    begin = time.perf_counter()
    for number in range(count):
        made.apply(plugin(f"p{number}"))
    await asyncio.gather(*(until_ready(made.runtime, f"uid-p{number}", 1) for number in range(count)))
    seconds = time.perf_counter() - begin
    await made.clear()
    return seconds


async def recovery() -> list[Row]:
    """From SIGKILL of the plugin to the first line of its successor, beside a bare parent that respawns."""
    ours: list[float] = []
    reference: list[float] = []
    async with scene() as made:
        made.apply(plugin("p"))
        await until_ready(made.runtime, "uid-p", 1)
        (process,) = bare(1)
        for attempt in range(1, KILLS + 1):
            ours.append(await _kill(made, attempt))
            begin = time.perf_counter()
            process.kill()
            end([process])
            (process,) = bare(1)
            reference.append(time.perf_counter() - begin)
        end([process])
    milli = 1000
    return [
        Row("process-recovery-p50", "ms", milli * median(ours), milli * median(reference), 30, absolute=True),
        Row(
            "process-recovery-p99",
            "ms",
            milli * percentile(ours, 0.99),
            milli * percentile(reference, 0.99),
            60,
            absolute=True,
        ),
    ]


async def _kill(made: Scene, attempt: int) -> float:
    while True:
        (found,) = [item for item in made.runtime.instances("uid-p") if item.slot.attempt == attempt]
        if found.pid is not None and found.state.value == "running":
            break
        await asyncio.sleep(0.001)
    await asyncio.sleep(1.05)  # the crash before leaves the window: each kill is a first crash
    begin = time.perf_counter()
    os.kill(found.pid, signal.SIGKILL)
    await until_ready(made.runtime, "uid-p", attempt + 1)
    return time.perf_counter() - begin
