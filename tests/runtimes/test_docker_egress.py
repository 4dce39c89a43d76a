"""A plugin in a real container: it gets out where it may, by its relay and the proxy, and in no other way."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, PYTHON, SECONDS

from crucible.companions.companion import Companion
from crucible.companions.crew import Crew
from crucible.doorkeeper import end_companions, programs
from crucible.model.door import Door
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from harness_docker import DockerHarness

    from crucible.model.workload import Workload

# Says, for each address, what came of asking it: by the proxy, and directly.
AGENT = """\
import json, os, signal, socket, sys, urllib.request
def attempt(function):
    try: return function()
    except Exception as error: return f"{type(error).__name__}: {error}"
def fetch(url): return urllib.request.urlopen(url, timeout=60).read().decode()
def connect(place): socket.create_connection(place, 3).close(); return "connected"
for url in sys.argv[1:]:
    print(json.dumps(attempt(lambda: fetch(url))), flush=True)
print(json.dumps(attempt(lambda: connect(("192.0.2.7", 80)))), flush=True)
print(json.dumps(attempt(lambda: connect(("127.0.0.1", 3128)))), flush=True)
print(json.dumps(attempt(lambda: socket.getaddrinfo("example.com", 80))), flush=True)
with socket.socket(socket.AF_UNIX) as one:
    one.connect(os.environ["CRUCIBLE_EGRESS"])
    one.sendall(b"CONNECT example.com:80 HTTP/1.1\\r\\n\\r\\n")
    print(json.dumps(one.recv(100).decode().split("\\r\\n")[0]), flush=True)
signal.pause()
"""


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server on this host's loopback, which a rule may name literally."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()


@pytest.fixture
async def crew(docker: DockerHarness) -> AsyncIterator[Crew]:
    places = Places(docker.place / "places")
    program = programs(places, docker.control_plane)[Door.EGRESS]
    found = Crew({Door.EGRESS: Companion(program, Door.EGRESS, docker.runtime, lambda _: None)})
    found.open()
    yield found
    await found.close()
    await end_companions(places, docker.control_plane, print)


async def said(docker: DockerHarness, workload: Workload, count: int) -> list[Any]:
    deadline = time.monotonic() + SECONDS * 3
    while len(found := await docker.lines(workload)) < count:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return [json.loads(line) for line in found]


async def test_it_gets_out_where_it_may_and_leaves_nothing_behind(
    docker: DockerHarness, crew: Crew, port: int
) -> None:
    urls = (f"http://127.0.0.1:{port}/", "http://10.9.8.7/")
    workload = docker.script(
        AGENT, "agent", *urls, doors=(Door.EGRESS,), env=(("NO_PROXY", ""), ("no_proxy", ""))
    )
    crew.grant(workload.plugin_uid, {Door.EGRESS: {"connect": [f"127.0.0.1:{port}"], "rate": None}})
    await docker.runtime.start(workload, FIRST)
    assert {way.place for way in docker.runtime.doorways()} == {"0-1", "relay"}
    crew.refresh(workload.plugin_uid)
    came = await said(docker, workload, 6)
    assert came[0] == "hello"
    assert "HTTP Error 403" in came[1]
    assert "OSError" in came[2] or "Error" in came[2]
    assert "Connection refused" in came[3]
    assert "gaierror" in came[4]
    assert came[5] == "HTTP/1.1 403 Forbidden"
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert docker.leftovers() == []
    assert list((docker.place / "docker" / "relays").iterdir()) == []


async def test_the_way_is_there_for_the_next_controller(docker: DockerHarness, crew: Crew, port: int) -> None:
    workload = docker.script(
        AGENT, "agent", doors=(Door.EGRESS,), listen=(8080,), env=(("NO_PROXY", ""), ("no_proxy", ""))
    )
    crew.grant(workload.plugin_uid, {Door.EGRESS: {"connect": [f"127.0.0.1:{port}"], "rate": None}})
    await docker.runtime.start(workload, FIRST)
    crew.refresh(workload.plugin_uid)
    await said(docker, workload, 4)
    await crew.close()
    await docker.reopen()
    deadline = time.monotonic() + SECONDS
    while {way.place for way in docker.runtime.doorways()} != {"0-1", "relay"}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    code, out, _ = await docker.enter(
        workload,
        *(PYTHON, "-c", "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"),
        f"http://127.0.0.1:{port}/",
    )
    assert (code, out) == (0, b"hello\n")
