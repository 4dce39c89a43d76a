"""A plugin in a real sandbox: it gets out where it may, by the proxy, and in no other way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, PYTHON, SECONDS, ProcessHarness
from onlooker import bearing
from outside import OUTSIDE

from crucible.companions.companion import Companion
from crucible.companions.crew import Crew
from crucible.doorkeeper import end_companions, programs
from crucible.model.door import Door
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from outside import Outside

    from crucible.model.workload import Workload

OWN = ("2606:4700::9", "93.184.216.51", "93.184.216.52", "5.5.5.5")
"""Public addresses of this host: two of one interface, one by itself, one that a route alone makes local."""

# Does what its standard input says, one line of JSON at a time, and says in JSON what came of it.
AGENT = """\
import json, os, signal, socket, sys, time, urllib.request
def stay(**_): signal.pause()
def fetch(url, proxied=True, **_):
    opener = urllib.request.build_opener(*([] if proxied else [urllib.request.ProxyHandler({})]))
    with opener.open(url, timeout=60) as answer:
        return answer.read().decode()
def connect(host, port, **_):
    with socket.create_connection((host, port), timeout=3): return "connected"
def resolve(host, **_):
    return socket.getaddrinfo(host, 80)[0][4][0]
def tunnel(host, port, size, **_):
    with socket.create_connection(("127.0.0.1", 3128)) as one:
        file = one.makefile("rb")
        one.sendall(f"CONNECT {host}:{port} HTTP/1.1\\r\\n\\r\\n".encode())
        first = file.readline().decode().strip()
        if " 200 " not in first: return first
        while file.readline().strip(): pass
        began, got = time.monotonic(), 0
        while got < size:
            data = file.read1(min(1 << 16, size - got))
            if not data: return f"cut after {got}"
            got += len(data)
            if got == len(data): print(json.dumps({"first": got}))
        return got
def door(host, **_):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(os.environ["CRUCIBLE_EGRESS"])
        one.sendall(f"CONNECT {host}:80 HTTP/1.1\\r\\n\\r\\n".encode())
        return one.recv(100).split(b"\\r\\n")[0].decode()
def socks(host, port, **_):
    with socket.create_connection(("127.0.0.1", 3128)) as one:
        one.sendall(bytes((5, 1, 0, 5, 1, 0, 3, len(host))) + host.encode() + port.to_bytes(2, "big"))
        data = b""
        while len(data) < 12: data += one.recv(100)
        return data[3]
for words in json.loads(sys.argv[1]):
    try: came = globals()[words.pop("do")](**words)
    except Exception as error: came = f"{type(error).__name__}: {error}"
    print(json.dumps({"came": came}))
"""


class Scene:
    def __init__(self, harness: ProcessHarness) -> None:
        self.harness = harness
        self.told: list[Mapping[str, Any]] = []
        self.places = Places(harness.place / "places")
        self.program = programs(self.places, harness.control_plane)[Door.EGRESS]
        self.crew = self._crew()

    def _crew(self) -> Crew:
        egress = Companion(self.program, Door.EGRESS, self.harness.runtime, self.told.append)
        return Crew({Door.EGRESS: egress})

    async def restart(self) -> None:
        """Be the next controller."""
        await self.crew.close()
        await self.harness.reopen()
        self.crew = self._crew()
        self.crew.open()

    def workload(self, *deeds: dict[str, Any], name: str = "agent") -> Workload:
        return self.harness.script(AGENT, name, json.dumps(deeds), doors=(Door.EGRESS,))

    async def start(self, workload: Workload, *connect: str, rate: int | None = None) -> None:
        self.grant(workload, *connect, rate=rate)
        await self.harness.runtime.start(workload, FIRST)
        self.crew.refresh(workload.plugin_uid)

    def grant(self, workload: Workload, *connect: str, rate: int | None = None) -> None:
        self.crew.grant(workload.plugin_uid, {Door.EGRESS: {"connect": list(connect), "rate": rate}})

    async def said(self, workload: Workload, count: int) -> list[Any]:
        """Wait until it has said so much, and return that."""
        deadline = time.monotonic() + SECONDS * 2
        while len(found := await self.harness.lines(workload)) < count:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.01)
        return [json.loads(line) for line in found]

    async def run(self, *deeds: dict[str, Any], connect: tuple[str, ...] = (), **options: Any) -> list[Any]:
        workload = self.workload(*deeds)
        await self.start(workload, *connect, **options)
        return [line["came"] for line in await self.said(workload, len(deeds)) if "came" in line]

    async def proxy_pid(self) -> int:
        mark = self.program.mark.encode()
        found: list[int] = []
        deadline = time.monotonic() + SECONDS
        while not found:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
            found = bearing(mark)
        return found[0]


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture
async def scene(tmp_path: Path, roots: Path, outside: Outside) -> AsyncIterator[Scene]:
    harness = ProcessHarness(tmp_path, roots, os.environ.get("CRUCIBLE_TEST_CGROUP_PARENT"))
    await harness.open()
    found = Scene(harness)
    found.crew.open()
    ways = [(answer, outside.socket(address, 80)) for address in OUTSIDE]
    ways.append((flood, outside.socket("93.184.216.34", 9000)))
    ways += [(answer, socket.create_server(where)) for where in (("", 8081), ("127.0.0.1", 8080))]
    servers = [await asyncio.start_server(handle, sock=one) for handle, one in ways]
    yield found
    await found.crew.close()
    await harness.close()
    for server in servers:
        server.close()
    await end_companions(found.places, harness.control_plane, print)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host = writer.get_extra_info("sockname")[0]
    await reader.read(1000)
    writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfrom {host}".encode())
    writer.close()


async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.001)
    except OSError:
        writer.close()


async def test_it_gets_out_where_it_may_and_nowhere_else(scene: Scene) -> None:
    url = "http://api.example.com/"
    came = await scene.run(
        {"do": "fetch", "url": url},
        {"do": "fetch", "url": url, "proxied": False},
        {"do": "fetch", "url": "http://other.example.com/"},
        {"do": "fetch", "url": "http://inside.example.com/"},
        {"do": "fetch", "url": "http://metadata.example.com/"},
        {"do": "fetch", "url": "http://169.254.169.254/"},
        {"do": "fetch", "url": "http://10.9.8.7/"},
        {"do": "connect", "host": "93.184.216.34", "port": 80},
        {"do": "connect", "host": "127.0.0.1", "port": 8080},
        {"do": "resolve", "host": "api.example.com"},
        {"do": "socks", "host": "api.example.com", "port": 80},
        {"do": "socks", "host": "other.example.com", "port": 80},
        {"do": "door", "host": "api.example.com"},
        connect=("api.example.com:80", "inside.example.com:80", "metadata.example.com:80", "10.9.8.7:80"),
    )
    assert came[0] == "from 93.184.216.34"
    assert "URLError" in came[1]
    assert ["HTTP Error 403" in words for words in came[2:6]] == [True] * 4, came[2:6]
    assert came[6] == "from 10.9.8.7"
    assert "Network is unreachable" in came[7]
    assert "Connection refused" in came[8]
    assert "gaierror" in came[9]
    assert came[10:] == [0, 2, "HTTP/1.1 200 Connection established"]
    assert {words["grant"] for words in scene.told} == {
        "other.example.com:80",
        "127.0.0.1:80",
        "169.254.169.254:80",
    }


async def test_a_service_of_the_host_is_reached_by_no_name(scene: Scene) -> None:
    names = ("own.example.com", "second.example.com", "routed.example.com")
    for address in OWN[1:]:
        socket.create_connection((address, 8081), timeout=SECONDS).close()
    came = await scene.run(
        *({"do": "fetch", "url": f"http://{name}:8081/"} for name in names),
        {"do": "fetch", "url": f"http://{OWN[1]}:8081/"},
        {"do": "fetch", "url": f"http://[{OWN[0]}]:8081/"},
        {"do": "fetch", "url": "http://api.example.com/"},
        connect=("*:*", "93.184.216.0/24:*"),
    )
    assert ["HTTP Error 403" in words for words in came[:5]] == [True] * 5, came
    assert came[5] == "from 93.184.216.34"
    assert {words["grant"] for words in scene.told} == {
        f"{f'[{address}]' if ':' in address else address}:8081" for address in OWN
    }


async def test_a_service_of_the_host_is_reached_by_its_address_where_that_is_granted(scene: Scene) -> None:
    came = await scene.run({"do": "fetch", "url": f"http://{OWN[1]}:8081/"}, connect=(f"{OWN[1]}:8081",))
    assert came == [f"from {OWN[1]}"]


async def test_a_new_list_holds_at_once_and_cuts_only_what_it_does_not_hold(scene: Scene) -> None:
    workload = scene.workload({"do": "tunnel", "host": "api.example.com", "port": 9000, "size": 10**9})
    await scene.start(workload, "api.example.com:*", "other.example.com:80")
    await scene.said(workload, 1)
    pid = await scene.proxy_pid()
    scene.grant(workload, "api.example.com:9000")
    asked = scene.workload({"do": "door", "host": "other.example.com"}, name="second")
    await scene.start(asked, "other.example.com:80")
    assert (await scene.said(asked, 1))[0]["came"].startswith("HTTP/1.1 200 ")
    assert len(await scene.said(workload, 1)) == 1
    scene.grant(workload)
    assert (await scene.said(workload, 2))[1]["came"].startswith("cut after ")
    assert await scene.proxy_pid() == pid


async def test_a_transfer_goes_on_while_the_controller_is_replaced(scene: Scene) -> None:
    workload = scene.workload(
        {"do": "tunnel", "host": "api.example.com", "port": 9000, "size": 500_000},
        {"do": "fetch", "url": "http://api.example.com/"},
    )
    await scene.start(workload, "api.example.com:*")
    await scene.said(workload, 1)
    pid = await scene.proxy_pid()
    await scene.restart()
    assert await scene.said(workload, 3) == [
        *(await scene.said(workload, 1))[:1],
        {"came": 500_000},
        {"came": "from 93.184.216.34"},
    ]
    assert await scene.proxy_pid() == pid


async def test_a_proxy_that_is_killed_is_back_and_so_is_the_way_out(scene: Scene) -> None:
    workload = scene.workload(
        {"do": "tunnel", "host": "api.example.com", "port": 9000, "size": 10**9},
        {"do": "fetch", "url": "http://api.example.com/"},
    )
    await scene.start(workload, "api.example.com:*")
    await scene.said(workload, 1)
    pid = await scene.proxy_pid()
    os.kill(pid, signal.SIGKILL)
    said = await scene.said(workload, 3)
    assert said[1]["came"].startswith(("cut after", "ConnectionResetError"))
    assert said[2] == {"came": "from 93.184.216.34"}
    assert await scene.proxy_pid() != pid


async def test_the_way_is_made_anew_when_proxy_and_controller_died(scene: Scene) -> None:
    workload = scene.workload(
        {"do": "tunnel", "host": "api.example.com", "port": 9000, "size": 10**9},
        {"do": "stay"},
    )
    await scene.start(workload, "api.example.com:*")
    await scene.said(workload, 1)
    os.kill(await scene.proxy_pid(), signal.SIGSTOP)
    os.kill(await scene.proxy_pid(), signal.SIGKILL)
    await scene.restart()
    again = scene.harness.script(
        AGENT, "again", json.dumps([{"do": "door", "host": "api.example.com"}]), doors=(Door.EGRESS,)
    )
    await scene.start(again, "api.example.com:80")
    assert (await scene.said(again, 1))[0]["came"].startswith("HTTP/1.1 200 ")
    scene.grant(workload, "api.example.com:*")
    code, said, _ = await scene.harness.enter(
        workload,
        PYTHON,
        "-c",
        "import urllib.request as u; print(u.urlopen('http://api.example.com/').read())",
    )
    assert (code, said) == (0, b"b'from 93.184.216.34'\n")


async def test_nobody_else_comes_through_a_sandbox_port(scene: Scene) -> None:
    await scene.start(
        scene.workload({"do": "tunnel", "host": "api.example.com", "port": 9000, "size": 10**9}), "*:*"
    )
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", 3128), timeout=5):
        raise AssertionError("the host reached the sandbox's own port")
