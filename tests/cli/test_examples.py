"""The example of every type, applied as a person would, on both runtimes of a laptop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from plane import PLUGINS, Plane, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from engine import Engine

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "plugin-images"
SAYS = {
    "python": b"word-count is up as word-count-0-1",
    "javascript": b"reading-time is up as reading-time-0-1",
    "wasm": b"9592 primes from 2 to 100002",
    "binary": b"/plugin/fingerprint",
    "rune": b"contents is up, every 2 s",
}


@pytest.fixture(scope="session", autouse=True)
def rune_host() -> None:
    """Build the host of Rune scripts, unless it is up to date: the process runtime looks for it there."""
    subprocess.run(
        [sys.executable, str(ROOT / "scripts/images"), "rune"], check=True, stdout=subprocess.DEVNULL
    )


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Plane]:
    plane = Plane(tmp_path / "state")
    plane.start()
    await plane.ready()
    yield plane
    await clear(plane)


@pytest.fixture
async def docker(tmp_path: Path, engine: Engine) -> AsyncIterator[Plane]:
    plane = Plane(tmp_path / "state", "--runtime", "docker", environment={"DOCKER_HOST": engine.url})
    plane.start()
    await plane.ready()
    yield plane
    await clear(plane)


@pytest.fixture(params=["process", "docker"])
def plane(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


async def clear(plane: Plane) -> None:
    """Delete every Plugin, wait until they are gone, and end the control plane."""
    async with plane.client() as client:
        for found in (await client.get(PLUGINS))["items"]:
            await client.delete(f"{PLUGINS}/{found['metadata']['name']}")

        async def gone() -> bool:
            return not (await client.get(PLUGINS))["items"]

        await until(gone)
    plane.end()


def crucible(plane: Plane, *words: str) -> bytes:
    """Run a command against a control plane, and return what it printed."""
    command = [sys.executable, "-m", "crucible", *words, "--kubeconfig", str(plane.places.kubeconfig)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def plugin(plane: Plane, name: str) -> Any:
    return json.loads(crucible(plane, "get", name, "-o", "json"))


@pytest.mark.parametrize("kind", SAYS)
async def test_the_example_of_each_type_runs_on_each_runtime(plane: Plane, kind: str) -> None:
    folder = EXAMPLES / kind / "example"
    if kind == "binary":
        subprocess.run(["make", "-s", "-C", str(folder)], check=True)
    name = yaml.safe_load((folder / "plugin.yaml").read_text())["metadata"]["name"]
    crucible(plane, "apply", "-f", str(folder / "plugin.yaml"), "--wait", "--timeout", "60s")

    async def says() -> bool:
        return SAYS[kind] in crucible(plane, "logs", name)

    await until(says, why=lambda: crucible(plane, "logs", name))
    status = plugin(plane, name)["status"]
    assert status["readyReplicas"] == 1
    assert {entry["level"] for entry in status["enforcement"]} == {"enforced"}


@pytest.fixture
def endpoint() -> Iterator[ThreadingHTTPServer]:
    """An endpoint that someone else runs."""

    class Answer(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_an_endpoint_of_someone_else_is_looked_at_on_each_runtime(
    plane: Plane, endpoint: ThreadingHTTPServer, tmp_path: Path
) -> None:
    manifest = yaml.safe_load((EXAMPLES / "service/example/url.yaml").read_text())
    manifest["spec"]["source"]["url"] = f"http://127.0.0.1:{endpoint.server_port}/"
    (tmp_path / "url.yaml").write_text(yaml.safe_dump(manifest))
    crucible(plane, "apply", "-f", str(tmp_path / "url.yaml"), "--wait", "--timeout", "60s")
    name = manifest["metadata"]["name"]
    assert plugin(plane, name)["status"]["readyReplicas"] == 1
    assert crucible(plane, "get", name).splitlines()[1].split()[3] == b"Running"
    endpoint.RequestHandlerClass.status = 503  # type: ignore[attr-defined]

    async def unreachable() -> bool:
        return "answers with status 503" in str(plugin(plane, name)["status"]["conditions"])

    await until(unreachable)


async def test_an_image_that_listens_is_reached_through_its_relay(docker: Plane, engine: Engine) -> None:
    crucible(
        docker, "apply", "-f", str(EXAMPLES / "service/example/image.yaml"), "--wait", "--timeout", "60s"
    )
    (place,) = plugin(docker, "listing")["status"]["endpoints"]
    address = place.removeprefix("8080 at ")
    asked = [
        sys.executable,
        "-c",
        f"import urllib.request as u; print(u.urlopen('http://{address}/', timeout=30).read())",
    ]

    async def answers() -> bool:
        found = subprocess.run(engine.inside(*asked), capture_output=True, timeout=120, check=False)
        return b"Directory listing" in found.stdout

    await until(answers)


async def test_a_process_runs_no_image_and_says_so(process: Plane) -> None:
    crucible(process, "apply", "-f", str(EXAMPLES / "service/example/image.yaml"))

    async def refused() -> bool:
        return "the process runtime of this host does not offer image" in str(
            plugin(process, "listing").get("status")
        )

    await until(refused)


def test_doctor_asks_the_engine(engine: Engine) -> None:
    command = [sys.executable, "-m", "crucible", "doctor", "--runtime", "docker", "--json"]
    env = {**os.environ, "DOCKER_HOST": engine.url}
    done = subprocess.run(command, capture_output=True, timeout=300, check=False, env=env)
    docker = json.loads(done.stdout)["runtimes"]["docker"]
    assert done.returncode == 0, done.stdout
    findings = {finding["name"]: finding for finding in docker["findings"]}
    assert findings["python plugins"]["detail"].startswith("crucible/python:")
    controls = {entry["control"]: entry for entry in docker["controls"]}
    assert controls["systemCalls"]["level"] == "enforced"
    assert controls["systemCalls"]["passed"] == controls["systemCalls"]["tried"] > 100
    absent = subprocess.run(
        command, capture_output=True, timeout=120, check=False, env={**env, "DOCKER_HOST": "unix:///nowhere"}
    )
    assert absent.returncode == 1
    assert b"set DOCKER_HOST to where one listens" in absent.stdout
