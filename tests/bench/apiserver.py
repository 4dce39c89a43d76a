"""What the API server does: writes, watches, pages, memory, and a thousand Plugins through the operator.

The server, its watchers and whoever writes are three processes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plane import PLUGINS, manifest
from rows import Row, median, percentile

from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OBJECTS = 1000
AT_ONCE = 16
WATCHERS = 20
CHANGES = 300
PAGE = 100
DEADLINE = 120
_PAUSE = 0.005
_MIB = 2**20


class Role:
    """Another process of a measure, spoken to by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a role is spoken to")
        self.pid = process.pid
        self._stdin, self._stdout, self._process = process.stdin, process.stdout, process

    async def hear(self) -> str:
        line = await asyncio.wait_for(self._stdout.readline(), DEADLINE)
        if not line:
            raise RuntimeError(f"the process ended with {await self._process.wait()}")
        return line.decode().strip()

    def tell(self, word: str) -> None:
        self._stdin.write(f"{word}\n".encode())

    async def end(self) -> None:
        self.tell("stop")
        await asyncio.wait_for(self._process.wait(), DEADLINE)


@asynccontextmanager
async def playing(*arguments: object) -> AsyncIterator[Role]:
    """Run a role of ``apiserver_roles.py``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("apiserver_roles.py")), *map(str, arguments)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    try:
        yield Role(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def serving(*extra: str) -> AsyncIterator[tuple[Role, Path, str, Client]]:
    """Run a server on a state folder of its own; give its folder, its address and a client."""
    state = Path(tempfile.mkdtemp(prefix="crucible-bench-"))
    try:
        async with playing("serve", state, *extra) as server:
            url = (await server.hear()).split()[1]
            async with Client(load_endpoint(state / "control" / "kubeconfig")) as client:
                yield server, state, url, client
            await server.end()
    finally:
        shutil.rmtree(state)


def typical(number: int) -> dict[str, Any]:
    """Return a Plugin of about the size people write."""
    env = [{"name": f"VARIABLE_{at}", "value": f"value number {at}"} for at in range(6)]
    made = manifest(name_of(number), env=env)
    made["metadata"]["labels"] = {"app": "bench", "tier": "one"}
    return made


def name_of(number: int) -> str:
    """Return the name of the n-th Plugin."""
    return f"p{number % OBJECTS:04}"


async def rate(count: int, work: Callable[[int], Awaitable[object]]) -> float:
    """Return how many pieces of work are done in a second with some in flight."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await work(number)

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - began)


async def requests() -> list[Row]:
    """Creates, status patches, the way from a patch to watchers, pages of a list, memory."""
    async with serving() as (server, state, url, client):
        empty = _memory(server.pid)
        creates = await rate(OBJECTS, lambda number: client.create(PLUGINS, typical(number)))
        patches = await rate(OBJECTS, lambda number: _set_status(client, number, number))
        loaded = _memory(server.pid)
        spans = await _watch(client, state, url)
        block = await _block(server, client)
    return [
        Row("apiserver-creates", "/s", creates, target=500, at_least=True),
        Row("apiserver-status-patches", "/s", patches, target=400, at_least=True),
        Row("apiserver-watch-p50-20-watchers", "ms", 1e3 * median(spans), target=5),
        Row("apiserver-watch-p99-20-watchers", "ms", 1e3 * percentile(spans, 0.99)),
        Row("apiserver-worst-block-listing-1000", "ms", 1e3 * block, target=20),
        Row("apiserver-memory-1000-plugins", "MiB", loaded / _MIB, target=130),
        Row("apiserver-memory-per-plugin", "KiB", (loaded - empty) / OBJECTS / 1024),
    ]


async def _set_status(client: Client, number: int, generation: int) -> None:
    body = {"status": {"phase": "Running", "observedGeneration": generation}}
    await client.patch(f"{PLUGINS}/{name_of(number)}/status", body)


async def _watch(client: Client, state: Path, url: str) -> list[float]:
    """Patch while others watch; return the seconds from each patch's sending to each watcher's seeing."""
    sent = []
    async with playing("watch", state, url, WATCHERS) as watchers:
        await watchers.hear()
        for number in range(CHANGES):
            sent.append(time.perf_counter())
            await _set_status(client, number, 10_000 + number)
            await asyncio.sleep(_PAUSE)
        await asyncio.sleep(0.5)  # what has not come by then was lost
        watchers.tell("stop")
        seen = json.loads(await watchers.hear())
    if any(len(times) != CHANGES for times in seen):
        raise RuntimeError(f"of {CHANGES} changes watchers saw {[len(times) for times in seen]}")
    return [came - went for times in seen for went, came in zip(sent, times, strict=True)]


async def _block(server: Role, client: Client) -> float:
    """Return the longest time the server's loop did nothing else while a list was read in pages and whole."""
    server.tell("tick")
    await server.hear()
    for _ in range(5):
        names, token = 0, ""
        while names == 0 or token:
            page = await client.get(PLUGINS, {"limit": str(PAGE), "continue": token})
            names, token = names + len(page["items"]), page["metadata"].get("continue", "")
        if names != OBJECTS:
            raise RuntimeError(f"pages held {names} of {OBJECTS}")
    server.tell("tock")
    return float(await server.hear())


async def operator() -> list[Row]:
    """A thousand Plugins from their creation to Ready, then all of them changed."""
    async with serving("operator") as (server, _, _, client):
        began = time.perf_counter()
        await rate(OBJECTS, lambda number: client.create(PLUGINS, typical(number)))
        await _all_ready(client, 1)
        created = time.perf_counter() - began
        began = time.perf_counter()
        await rate(OBJECTS, lambda number: _change(client, number))
        await _all_ready(client, 2)
        changed = time.perf_counter() - began
        memory = _memory(server.pid)
    return [
        Row("operator-1000-plugins-ready", "s", created, target=15),
        Row("operator-changed-plugins", "/s", OBJECTS / changed),
        Row("operator-memory-1000-plugins", "MiB", memory / _MIB),
    ]


async def _change(client: Client, number: int) -> None:
    await client.patch(f"{PLUGINS}/{name_of(number)}", {"spec": {"env": [{"name": "CHANGED", "value": "1"}]}})


async def _all_ready(client: Client, generation: int) -> None:
    """Wait until every Plugin is Ready in this generation; asking costs the server a few per cent."""
    async with asyncio.timeout(DEADLINE):
        waiting = OBJECTS
        while waiting:
            await asyncio.sleep(0.25)
            items = (await client.get(PLUGINS))["items"]
            waiting = OBJECTS - sum(_is_ready(item, generation) for item in items)


def _is_ready(plugin: dict[str, Any], generation: int) -> bool:
    status = plugin.get("status", {})
    conditions = {item["type"]: item["status"] for item in status.get("conditions", [])}
    return status.get("observedGeneration") == generation and conditions.get("Ready") == "True"


def _memory(pid: int) -> int:
    """Return the resident set in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
