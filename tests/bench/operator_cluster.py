"""What the operator of a cluster does in a second: an API server, and a kubelet that plays pods."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ground import LocalGround, insist
from rows import Row

from crucible.control.apiserver import ServerSettings
from crucible.errors import Unavailable

PLUGINS = 1000
MANY = 10_000
FEW = 100
AWAY_SECONDS = (60.0, *[10.0] * 7)
TROUBLED_SECONDS = (20.0, *[5.0] * 7)
WARM_TURNS = 5
"""Of those turns: what is kept of each Plugin, and the heap around it, has its size after so many."""
CREATORS = 16
DEADLINE = 300.0
SECONDS_EACH = 0.05
_OVER = {"type": "ERROR"}
_MIB = 2**20


class Direct(LocalGround):
    """The operator goes straight to the API server: no proxy is measured with it.

    That remembers what was as long as a real one, which is five minutes, and not one of a laptop.
    """

    def settings(self) -> ServerSettings:
        return replace(super().settings(), history_events=1_000_000, history_bytes=512 * _MIB)

    def kubeconfig(self) -> Path:
        return self.place / "control" / "kubeconfig"


@asynccontextmanager
async def _cluster(kind: type[LocalGround]) -> AsyncIterator[LocalGround]:
    folder = Path(tempfile.mkdtemp(prefix="crucible-bench-"))
    try:
        async with kind(folder) as ground:
            yield ground
    finally:
        shutil.rmtree(folder)


async def footprint() -> list[Row]:
    """A thousand Plugins from creation to Ready, then all of them changed, with and without new pods."""
    async with _cluster(Direct) as ground:
        operator = ground.start()
        await ground.until(lambda: "leads" in ground.log())
        empty = _memory(operator.pid)
        created, create_cpu = await _timed(
            operator.pid,
            ground,
            1,
            lambda number: ground.apply(f"p{number}", update={"strategy": "recreate"}),
        )
        changed, _ = await _timed(
            operator.pid, ground, 2, lambda number: ground.change(f"p{number}", config={"value": 2})
        )
        before = await _revision(ground)
        told, told_cpu = await _timed(
            operator.pid, ground, 3, lambda number: ground.change(f"p{number}", description="told anew")
        )
        writes = await _revision(ground) - before
        loaded = _memory(operator.pid)
        if any(most > 1 for most in ground.kubelet.most.values()):
            raise RuntimeError("a replica ran twice at once")
    return [
        Row("cluster-operator-1000-plugins-ready", "s", created),
        Row("cluster-operator-cpu-per-new-plugin", "ms", 1000 * create_cpu / PLUGINS),
        Row("cluster-operator-replaced-plugins", "/s", PLUGINS / changed),
        Row("cluster-operator-changed-plugins", "/s", PLUGINS / told),
        # The API server and the writer have the other core: what the operator itself could do on one.
        Row("cluster-operator-changes-on-one-core", "/s", PLUGINS / told_cpu, target=500, at_least=True),
        # One, and the few renewals of the Lease meanwhile.
        Row("cluster-operator-status-patches-per-change", "", writes / PLUGINS - 1, target=1.05),
        Row("cluster-operator-memory-at-rest", "MiB", empty / _MIB),
        Row("cluster-operator-memory-1000-plugins", "MiB", loaded / _MIB, target=256),
    ]


async def many() -> list[Row]:
    """Ten thousand suspended Plugins that an operator finds when it comes, and one of them changed."""
    async with _cluster(Direct) as ground:
        await _each(MANY, lambda number: ground.apply(f"p{number}", suspend=True))
        operator = ground.start()
        await ground.until(lambda: "leads" in ground.log())
        begun, empty = time.perf_counter(), _memory(operator.pid)
        await _all_in_phase(ground, MANY, 1, "Suspended")
        settled = time.perf_counter() - begun
        begun = time.perf_counter()
        await ground.change("p1", suspend=False)
        await ground.until_ready("p1")
        woken = time.perf_counter() - begun
        memory = _memory(operator.pid)
        if operator.poll() is not None:
            raise RuntimeError("the operator fell over")
    return [
        Row("cluster-operator-10000-plugins-settled", "s", settled),
        Row("cluster-operator-10000-one-resumed", "s", woken, target=2),
        Row("cluster-operator-memory-10000-plugins", "MiB", memory / _MIB, target=512),
        Row("cluster-operator-memory-per-plugin", "KiB", (memory - empty) / 1024 / MANY),
    ]


async def faults() -> list[Row]:
    """A server that is away for a minute, forgets, refuses, stumbles, is slow; all again, for less long."""
    dice = random.Random(5)
    async with _cluster(LocalGround) as ground:
        operator = ground.start()
        await _each(FEW, lambda number: ground.apply(f"p{number}", update={"strategy": "recreate"}))
        await _all_in_phase(ground, FEW, 1, "Running")
        generation, returned, calmed, memory = 1, 0.0, 0.0, 0
        for turn, (away, troubled) in enumerate(zip(AWAY_SECONDS, TROUBLED_SECONDS, strict=True), 1):
            generation += 1
            returned = max(returned, await _away(ground, generation, away))
            for trouble in (_gone, _refusing, _slow):
                generation += 1
                await trouble(ground, dice)
                calmed = max(calmed, await _troubled(ground, generation, troubled))
            if turn == WARM_TURNS:
                memory = _memory(operator.pid)
        grown = _memory(operator.pid) - memory
        if operator.poll() is not None or any(most > 1 for most in ground.kubelet.most.values()):
            raise RuntimeError("the operator ended, or a replica ran twice at once")
    return [
        Row("cluster-faults-settled-after-a-minute-away", "s", returned, target=30),
        Row("cluster-faults-settled-after-bad-answers", "s", calmed, target=30),
        Row("cluster-faults-memory-grown", "MiB", grown / _MIB, target=8),
    ]


async def _away(ground: LocalGround, generation: int, seconds: float) -> float:
    """Take the server away while everything changes; return how long it took to catch up."""
    ground.faults.away = True
    ground.faults.cut()
    await _each(FEW, lambda number: ground.change(f"p{number}", config={"value": generation}))
    await asyncio.sleep(seconds)
    if len(await ground.pods()) != FEW:
        raise RuntimeError("pods did not go on while the server was away")
    ground.faults.away = False
    begun = time.perf_counter()
    await _all_in_phase(ground, FEW, generation, "Running")
    return time.perf_counter() - begun


async def _troubled(ground: LocalGround, generation: int, seconds: float) -> float:
    """Change everything while answers are bad; return how long it took to catch up once they are not."""
    await _each(FEW, lambda number: ground.change(f"p{number}", config={"value": generation}))
    await asyncio.sleep(seconds)
    _calm(ground)
    begun = time.perf_counter()
    await _all_in_phase(ground, FEW, generation, "Running")
    return time.perf_counter() - begun


async def _gone(ground: LocalGround, dice: random.Random) -> None:
    ground.faults.answer = lambda _verb, path: (
        (410, "too old resource version") if path.endswith("?watch") and dice.random() < 0.5 else None
    )
    ground.faults.cut()


async def _refusing(ground: LocalGround, dice: random.Random) -> None:
    ground.faults.answer = lambda verb, path: (
        (dice.choice([429, 500, 503]), f"{verb} stumbled")
        if "leases" not in path and dice.random() < 0.3
        else None
    )


async def _slow(ground: LocalGround, _: random.Random) -> None:
    ground.faults.latency = 0.5


def _calm(ground: LocalGround) -> None:
    ground.faults.answer = lambda _verb, _path: None
    ground.faults.latency = 0.0


async def _timed(
    pid: int, ground: LocalGround, generation: int, work: Callable[[int], Awaitable[object]]
) -> tuple[float, float]:
    """Do something to every Plugin; return the seconds until all say so, and the operator's own of those."""
    cpu, begun = _processor(pid), time.perf_counter()
    await _each(PLUGINS, work)
    await _all_in_phase(ground, PLUGINS, generation, "Running")
    return time.perf_counter() - begun, _processor(pid) - cpu


async def _each(count: int, work: Callable[[int], Awaitable[object]]) -> None:
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(some() for _ in range(CREATORS)))


async def _all_in_phase(ground: LocalGround, count: int, generation: int, phase: str) -> None:
    """Wait until that many Plugins say that they are in a phase, in their generation or a later one.

    Watches, for the server is of this process: lists of ten thousand would keep it from everything else.
    """
    try:
        async with asyncio.timeout(max(DEADLINE, count * SECONDS_EACH)):
            await _settle(ground, count, generation, phase)
    except TimeoutError:
        ended = {name: process.poll() for name, process in ground.operators.items()}
        raise RuntimeError(f"not all are {phase}; exit codes of operators: {ended}") from None


async def _settle(ground: LocalGround, count: int, generation: int, phase: str) -> None:
    while True:
        listed = await insist(lambda: ground.client.get(ground.plugins))
        settled = {_name(item) for item in listed["items"] if _says(item, generation, phase)}
        params = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
        with suppress(Unavailable):
            async with ground.client.watch(ground.plugins, params) as events:
                while len(settled) < count and (event := await anext(events, _OVER))["type"] != "ERROR":
                    item = event["object"]
                    (settled.add if _says(item, generation, phase) else settled.discard)(_name(item))
        if len(settled) == count:
            return
        await asyncio.sleep(0.5)


def _says(plugin: dict[str, Any], generation: int, phase: str) -> bool:
    status = plugin.get("status") or {}
    return bool(status.get("phase") == phase and status.get("observedGeneration", 0) >= generation)


def _name(plugin: dict[str, Any]) -> str:
    return str(plugin["metadata"]["name"])


async def _revision(ground: LocalGround) -> int:
    """Return how much was ever written to the server, once nothing is any more, Events that go included."""
    seen = -1
    most = next(each.default for each in fields(ServerSettings) if each.name == "most_events")
    while True:
        found = int((await ground.client.get(ground.plugins))["metadata"]["resourceVersion"])
        events = (await ground.client.get("/api/v1/events"))["items"]
        if found == seen and len(events) <= most:
            return found
        seen = found
        await asyncio.sleep(1)


def _memory(pid: int) -> int:
    """Return the resident set in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _processor(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
