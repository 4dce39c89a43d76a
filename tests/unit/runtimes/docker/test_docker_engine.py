"""How requests reach an engine: on connections they share, and past a pool that is busy."""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from crucible.core.bpf import AUDIT_ARCH
from crucible.errors import InvalidSource, Unavailable
from crucible.model.source import PullPolicy
from crucible.runtimes.docker.engine import Engine, machines, refuse_plain
from crucible.runtimes.docker.images import Images
from crucible.runtimes.docker.settings import DockerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARALLEL = 2


class Answerer(BaseHTTPRequestHandler):
    """Answers what is asked before the first container, whatever else is asked with the path."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if "/elsewhere/" in self.path:
            self.send_response(307)
            self.send_header("Location", self.path.replace("elsewhere", "here"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        answer = {"Version": "28.0", "ApiVersion": "1.47", "MinAPIVersion": "1.24", "path": self.path}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Imitation(socketserver.ThreadingUnixStreamServer):
    """Speaks as much of the API as connecting takes, and counts who connects."""

    daemon_threads = True
    connections = 0

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.asked: list[str] = []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Imitation]:
    with Imitation(str(tmp_path / "engine.sock"), Answerer) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def engine(server: Imitation, tmp_path: Path) -> Iterator[Engine]:
    url = f"unix://{server.server_address!s}"
    made = Engine(DockerSettings(tmp_path, "here", url, parallel=PARALLEL))
    yield made
    made.close()


async def test_requests_for_different_paths_share_a_connection(engine: Engine, server: Imitation) -> None:
    await engine.connect()
    await engine.call(engine.client.inspect_container, "warm")
    before = server.connections
    for name in ("a", "b", "c"):
        answer = await engine.call(engine.client.inspect_container, name)
        assert answer["path"].endswith(f"/containers/{name}/json")
    assert server.connections == before


async def test_nobody_is_sent_elsewhere(engine: Engine, server: Imitation) -> None:
    await engine.connect()
    with pytest.raises(Unavailable):
        await engine.call(engine.client.inspect_container, "elsewhere")
    assert server.asked[-1].endswith("/containers/elsewhere/json")


async def test_what_is_asked_aside_does_not_wait_for_a_busy_pool(engine: Engine) -> None:
    await engine.connect()
    ended = threading.Event()
    busy = asyncio.gather(*(engine.call(ended.wait, 60) for _ in range(PARALLEL)))
    try:
        answer = await asyncio.wait_for(engine.call_aside(engine.client.inspect_container, "a"), 30)
        assert answer["path"].endswith("/containers/a/json")
        assert not busy.done()
    finally:
        ended.set()
        await busy


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ("x86_64", ("x86_64",)),
        ("aarch64", ("aarch64",)),
        ("riscv64", tuple(AUDIT_ARCH)),
        (None, tuple(AUDIT_ARCH)),
    ],
)
def test_a_profile_is_for_the_engines_machine(said: str | None, kinds: tuple[str, ...]) -> None:
    assert machines({"Architecture": said}) == kinds


async def test_what_is_to_go_by_tls_is_not_said_in_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        engine = Engine(DockerSettings(tmp_path, "plane", url=url))
        with pytest.raises(Unavailable, match="DOCKER_TLS_VERIFY wants"):
            await engine.connect()
        engine.close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            server.accept()
    refuse_plain("unix:///run/docker.sock", {"DOCKER_TLS_VERIFY": "1"})
    refuse_plain(url, {})


@pytest.mark.parametrize("reference", ["x/../../info", "../info", "x//y", "./x", "x/"])
async def test_no_name_of_an_image_asks_for_something_else(tmp_path: Path, reference: str) -> None:
    settings = DockerSettings(tmp_path, "plane", url=f"unix://{tmp_path}/none.sock")
    engine = Engine(settings)
    with pytest.raises(InvalidSource, match="names no image"):
        await Images(engine, settings, lambda _: None).resolve(reference, PullPolicy.NEVER, "uid")
    engine.close()
