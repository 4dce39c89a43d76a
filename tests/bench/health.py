"""What probes cost, how soon a killed plugin is Ready again, and what those cost that crash all the time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
from docker_runtime import _runtime, bench
from rows import Row, median, percentile
from scene import Scene, plugin, scene

from crucible.model.health import Check, Watch
from crucible.model.instance import State
from crucible.model.manifest import PluginSpec
from crucible.model.plugin import parse_spec
from crucible.probes.prober import Prober

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.model.status import PluginStatus

INSTANCES = 20
PROBES_EACH = 15
SECONDS = 10.0
KILLS = 40
LOOPERS = 50
SERVER = """\
import socket
server = socket.create_server(("", 8080))
while True:
    with server.accept()[0] as caller:
        caller.recv(4096)
        caller.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""


def _serving(name: str, **spec: Any) -> dict[str, Any]:
    made = plugin(name, SERVER)
    made["spec"] |= {"health": {"ready": {"http": {"port": 8080}, "interval": "1s"}}, **spec}
    return made


async def _until(holds: Callable[[], object], pause: float = 0.001) -> None:
    async with asyncio.timeout(300):
        while not holds():
            await asyncio.sleep(pause)


async def probes() -> list[Row]:
    """Processor time of 300 HTTP probes a second, asked of 20 sandboxes by 15 each."""
    async with scene() as made:
        for number in range(INSTANCES):
            made.apply(_serving(f"p{number}"))
        uids = [f"uid-p{number}" for number in range(INSTANCES)]
        await _until(lambda: all(_ready(made, uid) for uid in uids), 0.05)
        spec: PluginSpec = parse_spec(_serving("p")["spec"])
        if spec.health.ready is None:
            raise AssertionError("no probe")
        probers = [Prober(made.runtime, time.time) for _ in range(PROBES_EACH)]
        before = _spent()
        await asyncio.sleep(SECONDS)
        idle = (_spent() - before) / SECONDS
        for prober in probers[1:]:
            for uid in uids:
                (found,) = made.runtime.instances(uid)
                watch = Watch(found.slot, Check.READY, spec.health.ready, time.time())
                prober.attend(uid, [watch], lambda: None)
        await asyncio.sleep(2.0)
        before = _spent()
        await asyncio.sleep(SECONDS)
        busy = (_spent() - before) / SECONDS
        for prober in probers:
            await prober.close()
    share = 100 * (busy - idle) * PROBES_EACH / (PROBES_EACH - 1)
    return [Row("probes-http-300-a-second", "% of a core", share, target=5)]


def _spent() -> float:
    """Return the processor time of this process; the plugins' own is theirs."""
    return time.process_time()


def _ready(made: Scene, uid: str, attempt: int = 0) -> bool:
    said: PluginStatus | None = made.voice.said.get(uid)
    return said is not None and said.ready_replicas == 1 and said.instances[0].attempt > attempt


async def ready_again() -> list[Row]:
    """From SIGKILL of the program to a status that says Ready again, by an HTTP probe."""
    rows: list[Row] = []
    async with scene() as made:
        made.apply(_serving("p"))
        rows += _percentiles("process-kill-to-ready", await _kills(made, _pid_of), 150)
    with bench() as docker:
        async with scene(_runtime(docker.engine)) as made:
            made.apply(_serving("p"))
            rows += _percentiles("docker-kill-to-ready", await _kills(made, _process_of), 500)
    return rows


def _percentiles(name: str, found: list[float], target: float) -> list[Row]:
    return [
        Row(f"{name}-p50", "ms", 1000 * median(found)),
        Row(f"{name}-p99", "ms", 1000 * percentile(found, 0.99), target=target),
    ]


async def _kills(made: Scene, pid_of: Callable[[Scene], int | None]) -> list[float]:
    found: list[float] = []
    for attempt in range(KILLS):
        await _until(lambda attempt=attempt: _ready(made, "uid-p", attempt) and pid_of(made))
        await asyncio.sleep(1.05)  # the crash before leaves the window: each kill is a first crash
        pid = pid_of(made)
        if pid is None:
            raise AssertionError("it does not run")
        begin = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await _until(lambda attempt=attempt: _ready(made, "uid-p", attempt + 1))
        found.append(time.perf_counter() - begin)
    return found


def _pid_of(made: Scene) -> int | None:
    return next((one.pid for one in made.runtime.instances("uid-p") if one.state is State.RUNNING), None)


def _process_of(made: Scene) -> int | None:
    """Return the pid of the plugin in its container; the engine, with pids of its own, is a child of ours."""
    if not any(one.state is State.RUNNING for one in made.runtime.instances("uid-p")):
        return None
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if one.name().startswith("python3") and "/plugin/main.py" in one.cmdline():
                return one.pid
    return None


async def crash_loops() -> list[Row]:
    """What a plugin costs that ends at once each time, backed off; and what 50 of them cost a healthy one."""
    async with scene() as made:
        made.apply(_serving("p"))
        alone = await _kills_of_healthy(made)
        for number in range(LOOPERS):
            looping = plugin(f"loop{number}", "raise SystemExit(1)")
            looping["spec"]["recovery"] = {"strategy": ["restart"]}
            made.apply(looping)
        await _until(lambda: _backed_off(made), 0.5)
        before = _spent()
        await asyncio.sleep(3 * SECONDS)
        share = (_spent() - before) / (3 * SECONDS)
        beside = await _kills_of_healthy(made)
    return [
        Row("crash-loop-cpu-each", "% of a core", 100 * share / LOOPERS, target=1),
        Row("kill-to-ready-beside-50-crash-loops", "ms", 1000 * median(beside), 1000 * median(alone), 1.5),
    ]


async def _kills_of_healthy(made: Scene) -> list[float]:
    found: list[float] = []
    for _ in range(10):
        await _until(lambda: _ready(made, "uid-p") and _pid_of(made))
        attempt = made.voice.said["uid-p"].instances[0].attempt
        await asyncio.sleep(1.05)
        pid = _pid_of(made)
        if pid is None:
            raise AssertionError("it does not run")
        begin = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await _until(lambda attempt=attempt: _ready(made, "uid-p", attempt))
        found.append(time.perf_counter() - begin)
    return found


def _backed_off(made: Scene) -> bool:
    """Whether every one of them waits for half a minute, or nearly."""
    said = [made.voice.said.get(f"uid-loop{number}") for number in range(LOOPERS)]
    return all(one is not None and len(one.instances[0].crashes) >= 9 for one in said)
