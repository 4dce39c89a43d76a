"""The program of a relay, as a process of this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

from crucible.core.doors import PROXY_PORT
from crucible.model.door import Door, socket_path
from crucible.runtimes.docker.network import OUT, RELAY

SECONDS = 60.0
ROOM = 128
MORE = 40


def test_nobody_makes_a_relay_begin_threads_without_end(tmp_path: Path) -> None:
    door = tmp_path / "egress.sock"
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(door))
        listener.listen(ROOM + MORE)
        listener.settimeout(SECONDS)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        program = RELAY.replace(repr(socket_path(Door.EGRESS)), repr(str(door)))
        program = program.replace(str(PROXY_PORT), str(port))
        relay = held.enter_context(subprocess.Popen([sys.executable, "-c", program, str(OUT)]))
        held.callback(relay.kill)
        callers = [held.enter_context(connect(port)) for _ in range(ROOM + MORE)]
        ends = [held.enter_context(listener.accept()[0]) for _ in range(ROOM)]
        for end in ends:
            end.sendall(b"x")
        deadline = time.monotonic() + SECONDS
        while threads(relay.pid) < 2 * ROOM:  # all that it lets in are at work, two threads each
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert threads(relay.pid) <= 2 * ROOM + 2
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            listener.accept()
            raise AssertionError("one more than there is room for was let in")
        listener.settimeout(SECONDS)
        for caller in callers[:MORE]:
            caller.close()
        for end in ends[:MORE]:
            end.close()
        for _ in range(MORE):
            held.enter_context(listener.accept()[0])


def connect(port: int) -> socket.socket:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def threads(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Threads")).split()[1])
