"""Calls over the bus, between sandboxed plugins, beside NATS and gRPC over mutual TLS in the same run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bus_peers
from raw import Gone, Raw
from rows import Row, median, percentile
from scene import plugin, scene

from crucible.bus.wire import Frame, Kind
from crucible.doorkeeper import Doorkeeper
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROUNDS = 5
CALLS = 1500
FLIGHT = 64
FLYING = 6000
FLOOR = 5000
"""Microseconds that 99 of 100 calls may take at most: promised, whatever the targets are."""
FLOODED = 1000
FLOOD_TIME = 3.0
IDLE = 300
ALONE = str(Path(__file__).with_name("bus_alone.py"))
WIRE = (Path(__file__).parents[1] / "plugins" / "talking" / "wire.py").read_text()
ECHO = """
from crucible_plugin import Plugin
plugin = Plugin()
@plugin.method(inline=True, raw=True)
def say(request):
    return request.payload

@plugin.method(inline=True)
def memory(request):
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024

print("ready", flush=True)
plugin.run()
"""
ASKER = """
import time, wire
from crucible_plugin import Plugin
plugin = Plugin()

@plugin.method()
def latency(request):
    data, times = b"x" * 256, []
    for _ in range(request.payload):
        begin = time.perf_counter()
        plugin.call("echo.say", data, raw=True)
        times.append(time.perf_counter() - begin)
    return times

@plugin.method()
def flight(request):
    calls, in_flight = request.payload
    bus, kept, ident, done = wire.Bus(), b"", 1, 0
    begin, asked = time.perf_counter(), min(in_flight, calls)
    fresh = asked
    while done < calls:
        frames = [wire.frame(wire.CALL, ident + 2 * n, "echo.say", b"x" * 256) for n in range(fresh)]
        bus.socket.sendall(b"".join(frames))
        ident += 2 * fresh
        kept, came = wire.count(kept + bus.socket.recv(65536))
        done += came
        fresh = min(came, calls - asked)
        asked += fresh
    return calls / (time.perf_counter() - begin)

print("ready", flush=True)
plugin.run()
"""


FLOODER = """
import time, wire
from crucible_plugin import Plugin
plugin = Plugin()

@plugin.method()
def flood(request):
    bus, sent, end = wire.Bus(), 0, time.monotonic() + request.payload
    frames = b"".join(wire.frame(9, 0, "noise", b"x" * 256) for _ in range(64))
    while time.monotonic() < end:
        bus.socket.sendall(frames)
        sent += 64
    return sent / request.payload

print("ready", flush=True)
plugin.run()
"""


async def calls() -> list[Row]:
    """One call after the other, and 64 at once: ours and the peers' in turns, medians of the rounds."""
    figures: dict[str, list[float]] = {}
    async with _plugins() as host, bus_peers.serving() as peers:
        memory = await _ask(host, "memory", None, "echo")
        for _ in range(ROUNDS):
            times = await _ask(host, "latency", CALLS)
            _note(figures, "bus", times, await _ask(host, "flight", [FLYING, FLIGHT]))
            for name, peer in peers.items():
                times, rate = await peer(CALLS, FLYING, FLIGHT)
                _note(figures, name, times, rate)
    found = {name: median(values) for name, values in figures.items()}
    micro = 1e6
    rows = [Row("sdk-python-memory-idle", "MB", memory, target=5)]
    for share, limit in (("p50", 250.0), ("p99", 600.0)):
        ours = micro * found[f"bus-{share}"]
        rows += [
            Row(f"bus-call-{share}", "µs", ours, target=limit),
            Row(f"bus-call-{share}-nats", "µs", ours, micro * found[f"nats-{share}"], 0.6),
            Row(f"bus-call-{share}-grpc", "µs", ours, micro * found[f"grpc-{share}"], 0.4),
        ]
    rows.append(Row("bus-call-p99-floor", "µs", micro * found["bus-p99"], target=FLOOR, promised=True))
    for peer in ("nats", "grpc"):
        ours, theirs = found["bus-rate"], found[f"{peer}-rate"]
        rows.append(Row(f"bus-{FLIGHT}-in-flight-{peer}", "/s", ours, theirs, 1.0, at_least=True))
    return rows


async def flood() -> list[Row]:
    """One call after the other beside a plugin that publishes as fast as it can, and without it, in turns."""
    calm: list[list[float]] = []
    beside: list[list[float]] = []
    rates: list[float] = []
    async with _plugins() as host:
        for _ in range(2 * ROUNDS):
            calm.append(await _ask(host, "latency", FLOODED))
            noise = asyncio.create_task(_ask(host, "flood", FLOOD_TIME, "flooder"))
            await asyncio.sleep(FLOOD_TIME / 10)
            beside.append(await _ask(host, "latency", FLOODED))
            assert not noise.done(), "the flood ended before the measurement"
            rates.append(await noise)
    rows = [Row("bus-flood-rate", "/s", median(rates))]
    for share, part in (("p50", 0.5), ("p99", 0.99)):
        ours, without = (median([percentile(times, part) for times in of]) for of in (beside, calm))
        rows.append(Row(f"bus-call-{share}-flooded", "µs", 1e6 * ours, 1e6 * without, 2.0))
    return rows


def _note(figures: dict[str, list[float]], name: str, times: list[float], rate: float) -> None:
    figures.setdefault(f"{name}-p50", []).append(median(times))
    figures.setdefault(f"{name}-p99", []).append(percentile(times, 0.99))
    figures.setdefault(f"{name}-rate", []).append(rate)


@asynccontextmanager
async def _plugins() -> AsyncIterator[Path]:
    """Run both plugins in their sandboxes, on a bus; return where the host application's door is."""
    async with scene() as made:
        places = Places(made.folder)
        made.doors = doors = Doorkeeper(made.runtime, places, f"bench{os.getpid()}")
        doors.open(made.ring)
        made.heard = doors.refresh
        made.apply(_on_bus("echo", ECHO, {}))
        made.apply(_on_bus("asker", ASKER, {"call": ["echo.say"]}))
        made.apply(_on_bus("flooder", FLOODER, {"publish": ["noise"]}, cpu="500m"))
        try:
            path = places.host / "bus.sock"
            await _until_offered(path)
            yield path
        finally:
            await made.clear()
            for uid in ("uid-echo", "uid-asker", "uid-flooder"):
                doors.forget(uid)
            doors.refresh("uid-echo")
            while doors.serves:
                await asyncio.sleep(0.05)
            await doors.close()


def _on_bus(name: str, program: str, bus: dict[str, Any], cpu: str = "2") -> dict[str, Any]:
    made = plugin(name, program)
    spec = made["spec"]
    spec["source"]["inline"]["wire.py"] = WIRE
    spec["capabilities"] = {"bus": bus}
    spec["resources"] = {"cpu": cpu}
    return made


async def _until_offered(path: Path) -> None:
    """Wait until the asking plugin answers, and what it asks."""
    async with asyncio.timeout(60):
        while True:
            try:
                if await _ask(path, "latency", 1):
                    return
            except (OSError, AssertionError, Gone):
                await asyncio.sleep(0.05)


async def _ask(path: Path, method: str, what: Any, plugin: str = "asker") -> Any:
    """Have a plugin measure, the asking one unless another is named."""
    client = await Raw.greet(path, namespace="default")
    client.send(Frame(Kind.CALL, 1, f"{plugin}.{method}", json.dumps(what).encode(), deadline=60_000))
    answer = await client.next()
    await client.close()
    assert answer.kind == Kind.ANSWER, answer
    return json.loads(answer.payload)


async def idle() -> list[Row]:
    """What the broker uses by itself and with 300 clients that say nothing."""
    with tempfile.TemporaryDirectory(prefix="crucible-bench-") as name:
        broker = await asyncio.create_subprocess_exec(
            sys.executable, ALONE, name, str(IDLE), stdout=asyncio.subprocess.PIPE
        )
        assert broker.stdout is not None
        assert await broker.stdout.readline() == b"ready\n"
        before = _memory(broker.pid)
        clients = [await Raw.greet(Path(name) / f"{number // 8}.sock") for number in range(IDLE)]
        used, begin = _processor(broker.pid), time.perf_counter()
        await asyncio.sleep(5)
        share = 100 * (_processor(broker.pid) - used) / (time.perf_counter() - begin)
        memory = _memory(broker.pid)
        for client in clients:
            await client.close()
        broker.kill()
        await broker.wait()
    return [
        Row("bus-broker-memory", "MB", before, target=40),
        Row(f"bus-broker-memory-{IDLE}-idle", "MB", memory, target=60),
        Row(f"bus-broker-cpu-{IDLE}-idle", "%", share, target=1),
    ]


def _memory(pid: int) -> float:
    """Return the memory of a process that it shares with nobody, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
