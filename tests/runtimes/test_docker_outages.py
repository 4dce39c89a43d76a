"""Engines that crash, hang, are absent, forbidden or foreign, under a real control plane."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import TYPE_CHECKING, Any

import engine as engines
import pytest
from harness import FIRST, SECONDS
from plane import PLUGINS, Plane, insist, manifest, until

from crucible.errors import Unavailable
from crucible.runtimes.docker import DockerRuntime, DockerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 20
WIDE = {"resources": {"memory": "32Mi", "cpu": "200m"}}

SERVES = """\
import socket
with socket.create_server(("", 8080)) as server:
    while True:
        link, _ = server.accept()
        with link: link.sendall(b"hello")
"""
CALL = """\
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as link:
    sys.stdout.write(link.recv(99).decode())
"""


@pytest.fixture(params=[(), ("--live-restore",)], ids=["plain", "live-restore"])
def own(request: pytest.FixtureRequest) -> Iterator[engines.Engine]:
    """An engine that may be broken, with the image of one type."""
    why = engines.missing()
    if why or os.environ.get("DOCKER_HOST"):
        pytest.skip(why or "breaks engines: unset DOCKER_HOST for a private one")
    with engines.private_engine(*request.param) as engine:
        engines.load_images(engine, "python")
        yield engine


@contextlib.contextmanager
def plane_of(place: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    monkeypatch.setenv("DOCKER_HOST", url)
    plane = Plane(place / "state", "--runtime", "docker")
    try:
        yield plane
    finally:
        plane.end(signal.SIGKILL)


async def ready(plane: Plane) -> dict[str, tuple[str, str, str]]:
    """Return status, reason and message of each Plugin's Ready condition."""

    async def look() -> dict[str, Any]:
        async with plane.client() as client:
            return dict(await client.get(PLUGINS))

    found = {}
    for item in (await insist(look))["items"]:
        for condition in item.get("status", {}).get("conditions", ()):
            if condition["type"] == "Ready":
                found[item["metadata"]["name"]] = (
                    condition["status"],
                    condition["reason"],
                    condition["message"],
                )
    return found


async def all_say(plane: Plane, count: int, *words: str) -> None:
    async def said() -> bool:
        found = await ready(plane)
        return len(found) == count and all(
            all(word in " ".join(claim) for word in words) for claim in found.values()
        )

    await until(said, 90, plane.log)


async def create(plane: Plane, count: int) -> None:
    async with plane.client() as client:
        for number in range(count):
            await client.create(PLUGINS, manifest(f"p{number}", **WIDE))


def running(engine: engines.Engine) -> Counter[str]:
    """Return how many containers run for each Plugin, as the engine sees them."""
    with contextlib.closing(engines.client(engine.url)) as client:
        return Counter(
            entry["Labels"]["dev.crucible.plugin"]
            for entry in client.containers()
            if entry["Labels"].get("dev.crucible.role") == "instance"
        )


async def once_each(engine: engines.Engine, plane: Plane, count: int) -> None:
    wanted = {f"p{number}": 1 for number in range(count)}
    await until(lambda: running(engine) == wanted, 90, lambda: (running(engine), plane.log()[-3000:]))
    await all_say(plane, count, "True")
    assert running(engine) == wanted


@pytest.mark.parametrize("together", [False, True], ids=["engine", "engine and controller"])
async def test_nothing_runs_twice_after_an_engine_crashed(
    own: engines.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, together: bool
) -> None:
    with plane_of(tmp_path, own.url, monkeypatch) as plane:
        plane.start()
        await plane.ready()
        await create(plane, MANY)
        await once_each(own, plane, MANY)
        own.kill()
        if together:
            plane.end(signal.SIGKILL)
            plane.start()
            await plane.ready()
        await all_say(plane, MANY, "RuntimeUnavailable", "systemctl start docker")
        own.revive()
        await once_each(own, plane, MANY)


async def test_a_frozen_engine_is_said_and_forgiven(
    own: engines.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plane_of(tmp_path, own.url, monkeypatch) as plane:
        plane.start()
        await plane.ready()
        await create(plane, 2)
        await once_each(own, plane, 2)
        own.freeze(held=True)
        try:
            await all_say(plane, 2, "RuntimeUnavailable", "does not answer in time")
        finally:
            own.freeze(held=False)
        await once_each(own, plane, 2)


async def test_plugins_wait_for_an_engine_that_comes_later(
    own: engines.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.kill()
    await until(lambda: not own.answers())
    with plane_of(tmp_path, own.url, monkeypatch) as plane:
        plane.start()
        await plane.ready()
        await create(plane, 2)
        await all_say(plane, 2, "RuntimeUnavailable", "systemctl start docker")
        own.revive()
        await once_each(own, plane, 2)


@pytest.mark.parametrize("own", [("--live-restore",)], ids=["live-restore"], indirect=True)
async def test_plugins_that_an_engine_without_its_networks_cut_off_are_made_anew_and_reached(
    own: engines.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an engine leaves them running, and everything looks as if all were well."""
    with plane_of(tmp_path, own.url, monkeypatch) as plane:
        plane.start()
        await plane.ready()
        listens = {"capabilities": {"network": {"listen": [8080]}}, "resources": {"memory": "48Mi"}}
        async with plane.client() as client:
            await client.create(PLUGINS, manifest("p0", SERVES, **listens))
        await until(lambda: reached(own, plane), 90, plane.log)
        before = ids(own)
        own.kill()
        own.forget_networks()
        own.revive()
        await until(lambda: not before & ids(own), 90, plane.log)
        await until(lambda: reached(own, plane), 90, plane.log)
        await once_each(own, plane, 1)


IMAGES = {
    "unreachable": ({"image": "127.0.0.1:1/x:1"}, "the registry of 127.0.0.1:1/x:1 does not answer"),
    "kept-away": (
        {"image": "none/such:1", "imagePullPolicy": "Never"},
        "load or pull it, or change the policy",
    ),
    "misspelt": ({"image": "x@sha256:" + "0" * 64, "imagePullPolicy": "Never"}, "is not on this engine"),
}


async def test_images_that_cannot_be_had_are_said_on_their_plugins_and_others_run(
    engine: engines.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plane_of(tmp_path, engine.url, monkeypatch) as plane:
        plane.start()
        await plane.ready()
        listens = {"type": "service", "entrypoint": [], "capabilities": {"network": {"listen": [8080]}}}
        async with plane.client() as client:
            for name, (source, _) in IMAGES.items():
                await client.create(PLUGINS, manifest(name, source=source, **listens))
            await client.create(PLUGINS, manifest("well", **WIDE))

        async def said() -> bool:
            found = await ready(plane)
            return found.get("well", ("",))[0] == "True" and all(
                found.get(name, ("", "", ""))[0] == "False" and words in found[name][2]
                for name, (_, words) in IMAGES.items()
            )

        await until(said, 90, plane.log)
        async with plane.client() as client:
            for name in ("well", *IMAGES):
                await client.delete(f"{PLUGINS}/{name}")

        async def gone() -> bool:
            return not await ready(plane)

        await until(gone, 90, plane.log)


def ids(engine: engines.Engine) -> set[str]:
    """Return the ids of all containers that run."""
    with contextlib.closing(engines.client(engine.url)) as client:
        return {entry["Id"] for entry in client.containers()}


async def reached(engine: engines.Engine, plane: Plane) -> bool:
    """Whether the one Plugin there is answers where its status says."""
    async with plane.client() as client:
        (item,) = (await client.get(PLUGINS))["items"]
    for endpoint in item.get("status", {}).get("endpoints", ()):
        command = engine.inside("python3", "-c", CALL, endpoint.rpartition(":")[2])
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        return done.stdout == b"hello"
    return False


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


def impostor(path: Path, answer: dict[str, Any] | bytes) -> Server:
    """Serve one answer to everything on a Unix socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    server = Server(str(path), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"ApiVersion": "1.40", "MinAPIVersion": "1.12"}, "too old: it speaks Docker's API 1.40"),
        ({"ApiVersion": "1.99", "MinAPIVersion": "1.90"}, "too new: it speaks Docker's API from 1.90"),
        ({"ApiVersion": "next"}, "is no Docker engine"),
        ([], "is no Docker engine"),
        (b"<html>", "cannot be reached"),
    ],
)
async def test_what_speaks_something_else_is_named(tmp_path: Path, answer: Any, words: str) -> None:
    path = tmp_path / "s"
    server = impostor(path, answer)
    try:
        assert words in await outage(tmp_path, f"unix://{path}")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("url", ["ssh://nobody@127.0.0.1", "npipe://x", "fd://", "tcp://[::1", "tcp://x:y"])
async def test_what_is_no_address_of_an_engine_is_named_with_what_one_looks_like(
    tmp_path: Path, url: str
) -> None:
    assert await outage(tmp_path, url) == (
        f"no Docker engine is reached at {url} from here: set DOCKER_HOST to unix://PATH or tcp://HOST:PORT"
    )


async def test_no_engine_and_no_permission_each_have_their_fix(tmp_path: Path) -> None:
    assert "systemctl start docker" in await outage(tmp_path, f"unix://{tmp_path}/none")
    if os.geteuid() != 0:
        pytest.skip("becomes another user: run the tests as root for this one")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # where another user may go
        place = Path(folder)
        (place / "docker").mkdir()
        os.chown(place / "docker", 65534, 65534)
        server = impostor(place / "s", {})
        (place / "s").chmod(0o600)
        place.chmod(0o755)
        os.seteuid(65534)
        try:
            assert "usermod -aG docker $USER" in await outage(place, f"unix://{place}/s")
        finally:
            os.seteuid(0)
            server.shutdown()
            server.server_close()


async def outage(place: Path, url: str) -> str:
    """Return what a runtime says of an engine; what is asked of it says the same."""
    runtime = DockerRuntime(DockerSettings(place / "docker", "test", url), place.joinpath)
    await runtime.open(lambda _: None)
    try:
        with pytest.raises(Unavailable) as raised:
            await asyncio.wait_for(runtime.kill("uid", FIRST), SECONDS)
        assert str(raised.value) == runtime.outage
        return runtime.outage
    finally:
        await runtime.close()
