"""Figures of the local control plane: a server in a process of its own, driven over HTTPS from this one.

Run it as a program for a table. ``make bench`` reads the same figures from ``measure``.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from probe import DEADLINE, PLUGINS, Probe, plugin, until

from conftest import Child, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

OBJECTS = 1000
AT_ONCE = 16
WATCHERS = 20
CHANGES = 200


def typical(name: str) -> dict[str, Any]:
    """A plugin of about the size people write: 3 KB with its managed fields."""
    env = [{"name": f"VARIABLE_{at}", "value": f"value number {at}"} for at in range(12)]
    return plugin(name, {"labels": {"app": "bench", "tier": "one"}}, env=env, config={"text": "x" * 600})


async def measure() -> dict[str, float]:
    """Every figure by name; the unit is in the name."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        child = await spawn(Path(folder) / "state")
        figures["start_to_ready_s"] = time.perf_counter() - began
        process = psutil.Process(child.process.pid)
        figures["memory_empty_mb"] = process.memory_info().rss / 1e6
        async with child.probe() as probe:
            await _writes(probe, figures)
            figures["memory_1000_mb"] = process.memory_info().rss / 1e6
            await _reads(probe, figures)
            await _watchers(child, figures)
            figures["memory_end_mb"] = process.memory_info().rss / 1e6
        await child.end()
    return figures


async def _rate(count: int, work: Callable[[int], Coroutine[Any, Any, Any]]) -> tuple[float, float]:
    """Calls per second with AT_ONCE in flight, and the median call in milliseconds."""
    spans: list[float] = []
    waiting = iter(range(count))

    async def one_worker() -> None:
        for at in waiting:
            began = time.perf_counter()
            await work(at)
            spans.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(one_worker() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - began), statistics.median(spans) * 1e3


async def _writes(probe: Probe, figures: dict[str, float]) -> None:
    async def create(at: int) -> None:
        reply = await probe.post(PLUGINS, typical(f"p{at:04}"))
        if reply.code != 201:
            raise RuntimeError(reply.body)

    async def set_status(at: int) -> None:
        body = {"status": {"phase": "Running", "observedGeneration": at}}
        reply = await probe.patch(f"{PLUGINS}/p{at % OBJECTS:04}/status", body)
        if reply.code != 200:
            raise RuntimeError(reply.body)

    figures["creates_per_s"], figures["create_p50_ms"] = await _rate(OBJECTS, create)
    figures["status_patches_per_s"], figures["status_patch_p50_ms"] = await _rate(OBJECTS, set_status)


async def _reads(probe: Probe, figures: dict[str, float]) -> None:
    async def get(at: int) -> None:
        reply = await probe.get(f"{PLUGINS}/p{at % OBJECTS:04}")
        if reply.code != 200:
            raise RuntimeError(reply.body)

    async def read_all(_: int) -> None:
        async with probe.session.get(probe.url + PLUGINS) as response:
            await response.read()

    figures["gets_per_s"], _ = await _rate(OBJECTS, get)
    spans = []
    for at in range(10):
        began = time.perf_counter()
        await read_all(at)
        spans.append(time.perf_counter() - began)
    figures["list_1000_ms"] = statistics.median(spans) * 1e3


class Listener(asyncio.Protocol):
    """A watch read with as little code as can be, so that the server is measured and not the client."""

    def __init__(self, request: bytes, sent: list[float], spans: list[float]) -> None:
        self._request = request
        self._sent = sent
        self._spans = spans
        self.seen = 0
        self.answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.answered = True
        for _ in range(data.count(b'"type":"MODIFIED"')):
            self._spans.append(time.perf_counter() - self._sent[self.seen])
            self.seen += 1


async def _watchers(child: Child, figures: dict[str, float]) -> None:
    sent: list[float] = []
    spans: list[float] = []
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=str(child.state / "ca.crt"))
    token = (child.state / "token").read_text()
    host, port = child.url.removeprefix("https://").split(":")
    async with child.probe() as probe:
        since = (await probe.get(f"{PLUGINS}?limit=1")).revision
        path = f"{PLUGINS}?watch=1&resourceVersion={since}"
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        opened = [
            await loop.create_connection(lambda: Listener(request, sent, spans), host, int(port), ssl=context)
            for _ in range(WATCHERS)
        ]

        async def all_answered() -> bool:
            return all(listener.answered for _, listener in opened)

        async def all_seen() -> bool:
            return all(listener.seen == len(sent) for _, listener in opened)

        await until(all_answered, DEADLINE)
        for at in range(CHANGES):
            sent.append(time.perf_counter())
            await probe.patch(f"{PLUGINS}/p{at:04}/status", {"status": {"observedGeneration": 10_000 + at}})
            await until(all_seen, DEADLINE)
        for transport, _ in opened:
            transport.close()
    figures["watch_p50_ms"] = statistics.median(spans) * 1e3
    figures["watch_p99_ms"] = statistics.quantiles(spans, n=100)[98] * 1e3


if __name__ == "__main__":
    for name, value in asyncio.run(measure()).items():
        sys.stdout.write(f"{name:24} {value:10.2f}\n")
