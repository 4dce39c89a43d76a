"""The other processes of the API server's measures: a server, and watchers that only read.

Usage: apiserver_roles.py serve STATE [operator]    answers ``tick``, ``tock`` and ``stop`` on stdin
       apiserver_roles.py watch STATE URL COUNT     prints when each watcher saw each change
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from plane import PLUGINS

from crucible.control.apiserver import ApiServer, ServerSettings
from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint
from crucible.control.operator import Loops, operate
from crucible.control.revisions import ApiRevisions
from crucible.control.secrets import MountedSecrets
from crucible.control.voice import ApiVoice
from crucible.core.admission import violations_of
from crucible.model.crd import plugin_crd
from crucible.model.revision import revision_crd
from crucible.packages.snapshot import SnapshotStore
from crucible.ports import Ports
from crucible.probes.endpoints import HttpEndpoints
from crucible.probes.prober import Prober
from crucible.runtimes.fake import FakeHost, FakeRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crucible.model.instance import Instance
    from crucible.model.workload import Slot, Workload

_TICK = 0.001


def say(*words: object) -> None:
    """Tell whoever measures."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def commands() -> AsyncIterator[str]:
    """Yield the lines of stdin until it ends or says stop."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while (line := (await reader.readline()).decode().strip()) not in {"", "stop"}:
        yield line


async def serve(state: Path, *, with_operator: bool) -> None:
    """Run a server, and the operator beside it, as ``crucible up`` does."""
    async with AsyncExitStack() as stack:
        server = ApiServer(
            ServerSettings(state_dir=state / "control"),
            crds=[plugin_crd(), revision_crd()],
            admit=violations_of,
        )
        await stack.enter_async_context(server)
        if with_operator:
            await stack.enter_async_context(operating(server.kubeconfig, state))
        say("ready", server.url)
        ticker: asyncio.Task[float] | None = None
        async for command in commands():
            if command == "tick":
                ticking = asyncio.Event()
                ticker = asyncio.create_task(worst_block(ticking))
                say("ticking")
            elif ticker is not None:
                ticking.set()
                say(await ticker)


async def worst_block(until: asyncio.Event) -> float:
    """Return the longest time, in seconds, for which the loop ran nothing else."""
    worst = 0.0
    while not until.is_set():
        before = time.perf_counter()
        await asyncio.sleep(_TICK)
        worst = max(worst, time.perf_counter() - before - _TICK)
    return worst


class IndexedRuntime(FakeRuntime):
    """A fake that finds a Plugin's instances without walking everyone's, as the real ones do."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self._slots: dict[str, set[Slot]] = defaultdict(set)

    def instances(self, plugin_uid: str | None = None) -> tuple[Instance, ...]:
        if plugin_uid is None:
            return super().instances()
        cells = (self._cell(plugin_uid, slot) for slot in self._slots[plugin_uid])
        found = (cell.instance for cell in cells if cell is not None)
        return tuple(sorted(found, key=lambda instance: instance.created_at))

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        self._slots[workload.plugin_uid].add(slot)
        return await super().start(workload, slot)


@asynccontextmanager
async def operating(kubeconfig: Path, state: Path) -> AsyncIterator[None]:
    """Run the real operator on a fake runtime."""
    endpoint = load_endpoint(kubeconfig)
    runtime = IndexedRuntime(FakeHost())
    async with Client(endpoint) as client:
        voice = ApiVoice(client, "crucible", time.time)
        sources, prober = SnapshotStore(state / "sources"), Prober(runtime, time.time)
        loops = Loops(
            Ports(
                runtime,
                sources,
                voice,
                HttpEndpoints(),
                prober,
                ApiRevisions(client),
                time.time,
                MountedSecrets(),
            )
        )
        await runtime.open(loops.ring)
        ready, stop = asyncio.Event(), asyncio.Event()
        operator = asyncio.create_task(operate(endpoint, loops, ready=ready, stop=stop))
        await ready.wait()
        try:
            yield
        finally:
            stop.set()
            await operator


class Watcher(asyncio.Protocol):
    """A watch read with as little code as can be, so that the server is measured and not its client.

    Attributes:
        seen: when each change came, in seconds of the clock all processes share.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self.answered = asyncio.Event()
        self.seen: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.answered.set()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.seen += [now] * sum(line.startswith(b'{"type":"MODIFIED"') for line in lines)


async def watch(state: Path, url: str, count: int) -> None:
    """Watch Plugins that many times over; at the end print when each watcher saw each change."""
    endpoint = load_endpoint(state / "control" / "kubeconfig")
    host, port = url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cadata=endpoint.ca)
    async with Client(endpoint) as client:
        since = (await client.get(f"{PLUGINS}?limit=1"))["metadata"]["resourceVersion"]
    head = f"Host: {host}\r\nAuthorization: Bearer {endpoint.token}\r\n\r\n"
    request = f"GET {PLUGINS}?watch=1&resourceVersion={since} HTTP/1.1\r\n{head}".encode()
    watchers = [Watcher(request) for _ in range(count)]
    loop = asyncio.get_running_loop()
    for watcher in watchers:
        await loop.create_connection(lambda made=watcher: made, host, int(port), ssl=context)
        await watcher.answered.wait()
    say("watching")
    async for _ in commands():
        pass
    say(json.dumps([watcher.seen for watcher in watchers]))


def main() -> None:
    """Play the role asked for."""
    os.umask(0o077)
    match sys.argv[1:]:
        case ["serve", state, *rest]:
            asyncio.run(serve(Path(state), with_operator="operator" in rest))
        case ["watch", state, url, count]:
            asyncio.run(watch(Path(state), url, int(count)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
