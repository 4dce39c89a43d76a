"""The egress proxy beside a direct connection, in one run: bytes a second, round trips, new connections."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rows import Row, median, percentile

from crucible.companions.companion import Companion
from crucible.doorkeeper import end_companions, programs
from crucible.model.door import Door, Doorway
from crucible.runtimes.doors import bind
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
BYTES = 256 << 20
TRIPS = 1000
NEW = 200

# Answers "e" by echoing, "f" by sending as much as it is told.
SERVER = """\
import socket, threading
def serve(one):
    with one:
        word = one.recv(1)
        if word == b"e":
            while data := one.recv(65536): one.sendall(data)
        elif word == b"f":
            left, block = int.from_bytes(one.recv(8, socket.MSG_WAITALL), "big"), bytes(1 << 18)
            while left > 0: left -= one.send(block[:left])
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        one, _ = server.accept()
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(one,), daemon=True).start()
"""


class _Instance:
    """Stands for a runtime with one instance, whose door lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.way = Doorway(Door.EGRESS, "default", "bench", "bench", "0-1", os.geteuid())
        self.listener = bind(folder, Door.EGRESS)

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        return (self.way,) if plugin_uid in {None, "bench"} else ()

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        return (self.listener.dup(),) if doorway == self.way else ()


async def proxied() -> list[Row]:
    """Measure both ways in turn."""
    with tempfile.TemporaryDirectory() as place:
        places, instance = Places(Path(place)), _Instance(Path(place))
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        port = int((server.stdout or sys.stdin).readline())
        companion = Companion(programs(places, "bench")[Door.EGRESS], Door.EGRESS, instance, lambda _: None)
        keeping = asyncio.create_task(companion.keep())
        companion.grant("bench", {"connect": [f"127.0.0.1:{port}"], "rate": None})
        try:
            return await asyncio.to_thread(_measure, port, str(Path(place) / "egress.sock"))
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await end_companions(places, "bench", lambda _: None)
            instance.listener.close()
            server.kill()
            server.wait()


def _measure(port: int, door: str) -> list[Row]:
    def direct() -> socket.socket:
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return one

    def by_proxy() -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.connect(door)
        one.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            said += one.recv(1)
        assert b" 200 " in said, said
        return one

    ways = (by_proxy, direct)
    speeds: dict[Callable[[], socket.socket], list[float]] = {way: [] for way in ways}
    trips: dict[Callable[[], socket.socket], list[float]] = {way: [] for way in ways}
    news: dict[Callable[[], socket.socket], list[float]] = {way: [] for way in ways}
    by_proxy().close()  # the proxy is up
    for _ in range(ROUNDS):
        for way in ways:
            speeds[way].append(_speed(way))
            trips[way] += _trips(way)
            news[way] += _news(way)
    ours, bare = by_proxy, direct
    return [
        Row("egress, one download", "MB/s", median(speeds[ours]), median(speeds[bare]), 0.2, at_least=True),
        Row("egress, round trip of 256 B p50", "us", median(trips[ours]), median(trips[bare]), 8),
        Row(
            "egress, round trip of 256 B p99",
            "us",
            percentile(trips[ours], 0.99),
            percentile(trips[bare], 0.99),
        ),
        Row("egress, new connection p50", "us", median(news[ours]), median(news[bare]), 8),
        Row("egress, new connection p99", "us", percentile(news[ours], 0.99), percentile(news[bare], 0.99)),
    ]


def _speed(way: Callable[[], socket.socket]) -> float:
    with way() as one:
        one.sendall(b"f" + BYTES.to_bytes(8, "big"))
        room, left, began = memoryview(bytearray(1 << 18)), BYTES, time.perf_counter()
        while left > 0:
            left -= one.recv_into(room)
        return BYTES / 1e6 / (time.perf_counter() - began)


def _trips(way: Callable[[], socket.socket]) -> list[float]:
    found, data = [], b"x" * 256
    with way() as one:
        one.sendall(b"e")
        for _ in range(TRIPS):
            began = time.perf_counter()
            one.sendall(data)
            left = len(data)
            while left > 0:
                left -= len(one.recv(left))
            found.append((time.perf_counter() - began) * 1e6)
    return found


def _news(way: Callable[[], socket.socket]) -> list[float]:
    """Time from wanting a connection to the first byte that came back over it."""
    found = []
    for _ in range(NEW):
        began = time.perf_counter()
        with way() as one:
            one.sendall(b"ex")
            one.recv(1)
        found.append((time.perf_counter() - began) * 1e6)
    return found
