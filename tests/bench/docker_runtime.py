"""The Docker runtime beside the raw API, docker-compose and Docker's own restart policy, on one engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import compose
import engine as engines
import psutil
import yaml
from rows import Row, median
from scene import Scene, plugin, scene

from crucible.runtimes.docker import DockerRuntime, DockerSettings

COUNT = 100
ROUNDS = 3
KILLS = 8
SETTLED = 1.0
IDLE = 15.0
IDLE_SECONDS = 60
"""Per cent of the processors in use below which a measurement begins, and for how long that is waited for:
engine and kernel are at work for a good while after a hundred containers with networks went."""
AT_ONCE = 8
NAME = "crucible-bench"


class Bench:
    """An engine, and a look at it that asks it nothing: the output files on its disk."""

    def __init__(self, engine: engines.Engine) -> None:
        self.engine = engine
        self.client = engines.client(engine.url, max_pool_size=AT_ONCE, num_pools=1)

    def lines(self) -> int:
        """Return how many containers have printed something."""
        outputs = self.engine.place.glob("data/containers/*/*-json.log")
        return sum(path.stat().st_size > 0 for path in outputs)

    async def until(self, count: int) -> None:
        """Wait until so many containers have printed something."""
        while self.lines() < count:
            await asyncio.sleep(0.01)

    def clear(self) -> None:
        """Remove every container."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            ids = [entry["Id"] for entry in self.client.containers(all=True)]
            list(pool.map(lambda one: self.client.remove_container(one, force=True, v=True), ids))


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Run an engine of one's own, with the images, for one measurement."""
    with engines.private_engine() as engine:
        engines.load_images(engine)
        yield Bench(engine)


def _runtime(engine: engines.Engine) -> Callable[[Path, Any], DockerRuntime]:
    def make(folder: Path, store: Any) -> DockerRuntime:
        return DockerRuntime(
            DockerSettings(folder / "docker", f"bench{os.getpid()}", engine.url), store.path_of
        )

    return make


async def cold() -> list[Row]:
    """From nothing to a hundred hardened plugins that have printed their first line."""
    ours: list[float] = []
    raw: list[float] = []
    composed: dict[str, list[float]] = {"": [], "none": []}
    words = compose.command()
    if not words:
        print("no docker-cold-100-compose: Docker Compose 2 is not to be had here", file=sys.stderr)
    with bench() as made:
        async with scene(_runtime(made.engine)) as stage:
            request = await _request_of_ours(made, stage)
            for _ in range(ROUNDS):
                ours.append(await _ours(made, stage))
                await stage.clear()
                raw.append(await _raw(made, request))
                made.clear()
                for network, times in composed.items() if words else ():
                    times.append(await _compose(made, request, words, network))
                    made.clear()
            cpu = await _processor(stage)
    rows = [
        Row("docker-cold-100", "s", median(ours), median(raw), 1.1),
        Row("docker-cpu-per-start", "ms", 1000 * cpu, target=4),
    ]
    if words:
        usual, alone = median(composed[""]), median(composed["none"])
        rows += [
            Row("docker-cold-100-compose", "s", median(ours), usual, 0.75),
            Row("docker-cold-100-compose-no-network", "s", median(ours), alone),
        ]
    return rows


async def _processor(stage: Scene) -> float:
    """Return the processor seconds that the controller takes for one start, from object to Running."""
    before = time.process_time()
    for number in range(COUNT):
        stage.apply(plugin(f"p{number}"))
    while sum(status.ready_replicas for status in stage.voice.said.values()) < COUNT:
        await asyncio.sleep(0.2)
    used = time.process_time() - before
    await stage.clear()
    return used / COUNT


def quiet() -> None:
    """Wait until the machine is done with what was before."""
    for _ in range(IDLE_SECONDS):
        if psutil.cpu_percent(1) < IDLE:
            return


async def _ours(made: Bench, stage: Scene) -> float:
    quiet()
    begin = time.perf_counter()
    for number in range(COUNT):
        stage.apply(plugin(f"p{number}"))
    await made.until(COUNT)
    return time.perf_counter() - begin


async def _request_of_ours(made: Bench, stage: Scene) -> dict[str, Any]:
    """Return the body of a container as the runtime makes it, to be sent without the runtime."""
    stage.apply(plugin("model"))
    await made.until(1)
    (entry,) = made.client.containers(all=True)
    found = made.client.inspect_container(entry["Id"])
    config = {
        key: found["Config"][key]
        for key in (*("Image", "User", "Entrypoint", "Env", "WorkingDir", "Healthcheck", "NetworkDisabled"),)
    }
    host = {key: value for key, value in found["HostConfig"].items() if key != "ContainerIDFile"}
    kept = stage.folder / "copies"
    kept.mkdir()
    for mount in host["Mounts"]:
        target = kept / Path(mount["Target"]).name
        copy = shutil.copytree if Path(mount["Source"]).is_dir() else shutil.copy
        mount["Source"] = str(copy(mount["Source"], target))
    kept.chmod(0o755)
    await stage.clear()
    return {**config, "Cmd": [], "HostConfig": host}


async def _raw(made: Bench, request: dict[str, Any]) -> float:
    def start(number: int) -> None:
        found = made.client.create_container_from_config(request, f"{NAME}-{number}")
        made.client.start(found["Id"])

    quiet()
    begin = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(pool, start, number) for number in range(COUNT))
        )
    await made.until(COUNT)
    return time.perf_counter() - begin


async def _compose(made: Bench, request: dict[str, Any], words: list[str], network: str) -> float:
    """Run the same hundred by docker-compose, as hardened as its file format allows.

    Args:
        made: where.
        request: the body of a container of ours.
        words: how Compose is called.
        network: of each; empty for the one that Compose makes for a project of which the file says nothing.
    """
    host = request["HostConfig"]
    with tempfile.TemporaryDirectory(prefix="crucible-bench-compose-") as folder:
        profile = Path(folder, "seccomp.json")
        profile.write_text(next(word for word in host["SecurityOpt"] if word.startswith("seccomp="))[8:])
        service = {
            "image": request["Image"],
            "user": request["User"],
            "entrypoint": request["Entrypoint"],
            "environment": request["Env"],
            "working_dir": request["WorkingDir"],
            **({"network_mode": network} if network else {}),
            "read_only": True,
            "init": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", f"seccomp:{profile}"],
            "mem_limit": host["Memory"],
            "memswap_limit": host["Memory"],
            "pids_limit": host["PidsLimit"],
            "cpus": host["NanoCpus"] / 1e9,
            "volumes": [f"{mount['Source']}:{mount['Target']}:ro" for mount in host["Mounts"]],
            "tmpfs": [f"{place}:{options}" for place, options in host["Tmpfs"].items()],
        }
        file = Path(folder, "docker-compose.yml")
        file.write_text(yaml.safe_dump({"services": {f"s{n}": service for n in range(COUNT)}}))
        quiet()
        begin = time.perf_counter()
        up = await asyncio.create_subprocess_exec(
            *(*words, "-f", str(file), "-p", NAME, "up", "-d"),
            env={**os.environ, "DOCKER_HOST": made.engine.url, "COMPOSE_PARALLEL_LIMIT": "-1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await up.wait()
        await made.until(COUNT)
        return time.perf_counter() - begin


async def recovery() -> list[Row]:
    """From SIGKILL of the program to the first line of its successor; first and second crash."""
    ours: list[list[float]] = [[], []]
    policy: list[list[float]] = [[], []]
    with bench() as made:
        async with scene(_runtime(made.engine)) as stage:
            request = await _request_of_ours(made, stage)
            request["HostConfig"]["RestartPolicy"] = {"Name": "always"}
            for number in range(KILLS):
                stage.apply(_forgiving(f"k{number}"))
                await made.until(1)
                for crash in (0, 1):
                    ours[crash].append(await _crash(made))
                await stage.clear()
                found = made.client.create_container_from_config(request, f"{NAME}-{number}")
                made.client.start(found["Id"])
                await made.until(1)
                for crash in (0, 1):
                    policy[crash].append(await _crash(made))
                made.clear()
    return [
        Row("docker-recovery", "ms", 1000 * median(ours[0]), 1000 * median(policy[0]), 0.75),
        Row("docker-recovery-second", "ms", 1000 * median(ours[1]), 1000 * median(policy[1])),
        # No doubling before the third crash: the second, beside the first.
        Row("docker-recovery-second-to-first", "ms", 1000 * median(ours[1]), 1000 * median(ours[0]), 2.0),
    ]


def _forgiving(name: str) -> dict[str, Any]:
    """Return a plugin with the recovery every plugin has that says nothing of it."""
    made = plugin(name)
    del made["spec"]["recovery"]
    return made


async def _crash(made: Bench) -> float:
    """Kill the one program there is, once its start is over for the engine too; wait for the next line."""
    await asyncio.sleep(SETTLED)
    before = _said(made)
    begin = time.perf_counter()
    os.kill(_program(made), signal.SIGKILL)
    while not any(lines > before.get(container, 0) for container, lines in _said(made).items()):
        await asyncio.sleep(0.002)
    return time.perf_counter() - begin


def _said(made: Bench) -> dict[str, int]:
    """Return how often a program came up, by container."""
    lines: dict[str, int] = {}
    for folder in (made.engine.place / "data/containers").iterdir():  # a glob fails where one goes meanwhile
        with contextlib.suppress(OSError):
            lines[folder.name] = (folder / f"{folder.name}-json.log").read_bytes().count(b"ready")
    return lines


def _program(made: Bench) -> int:
    """Return the pid, on this host, of the one program that runs below an init process in a container."""
    for path in Path("/sys/fs/cgroup").glob(f"pids{made.engine.cgroup_parent}/*/cgroup.procs"):
        for pid in map(int, path.read_text().split()):
            if psutil.Process(pid).name().startswith("python"):
                return pid
    raise RuntimeError("no program runs")


async def memory() -> list[Row]:
    """What the controller keeps in memory for each container, beyond what the engine itself needs."""
    with bench() as made:
        async with scene(_runtime(made.engine)) as stage:
            stage.apply(plugin("first"))  # one for what is allocated only once, and no room for a hundred
            await made.until(1)
            await stage.clear()
            made.clear()
            before = psutil.Process().memory_info().rss
            await _ours(made, stage)
            grown = psutil.Process().memory_info().rss - before
    return [Row("docker-controller-memory-per-plugin", "KiB", grown / COUNT / 1024, target=512)]
