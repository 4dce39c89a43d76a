"""The images in a Docker engine: each runs its type's example, hardened as a runtime would have it."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import engine as engines
import pytest
import yaml
from imagelib import engine, recipes
from raw import Raw

from crucible.bus.broker import Broker
from crucible.bus.doors import Entrance
from crucible.model.bus import HOST, Grants, Member
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imagelib.make import Made

EXAMPLES = Path(__file__).resolve().parents[2] / "plugin-images"
SECONDS = 60
LINES = {
    "python": b"word-count is up as p-0",
    "javascript": b"reading-time is up as p-0",
    "wasm": b"9592 primes from 2 to 100002",
    "binary": b"/plugin/fingerprint",
    "rune": b"contents is up, every 2 s",
}


@pytest.fixture(scope="session")
def url(images: Mapping[str, Made]) -> Iterator[str]:
    """An engine that has every image."""
    if reason := engines.missing():
        pytest.skip(reason)
    with engines.private_engine() as private:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", private.url)
            assert all(engine.load(one.path, one.name, one.identity) for one in images.values())
            assert not any(engine.load(one.path, one.name, one.identity) for one in images.values())
        yield private.url


@pytest.fixture
def client(url: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(url, version="1.41", timeout=SECONDS)
    yield client
    client.close()


def sources(type_: str) -> Path:
    folder = EXAMPLES / type_ / "example"
    if type_ == "binary":
        subprocess.run(["make", "-s", "-C", str(folder)], check=True)
        return folder / "build"
    return folder / "src"


@pytest.mark.parametrize("type_", recipes.TYPES)
def test_the_example_runs_hardened_until_it_is_asked_to_stop(
    client: docker.DockerClient, images: Mapping[str, Made], tmp_path: Path, type_: str
) -> None:
    source = sources(type_)
    spec: dict[str, Any] = yaml.safe_load((source.parent / "plugin.yaml").read_text())["spec"]
    (tmp_path / "config.json").write_text(json.dumps(spec.get("config", {})))
    tmp_path.chmod(0o755)
    image = client.images.get(images[type_].name)
    before = json.loads(image.labels["dev.crucible.entrypoint"])
    first, *words = spec["entrypoint"]
    container = client.containers.create(
        image,
        entrypoint=[*before, f"/plugin/{first}"],
        command=words,
        user="1900000123:1900000123",
        read_only=True,
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=spec["resources"]["memory"].removesuffix("i").lower(),
        pids_limit=32,
        tmpfs={"/tmp": "size=8m,mode=1777"},
        volumes=[f"{source}:/plugin:ro", f"{tmp_path}:/config:ro"],
        environment={"CRUCIBLE_INSTANCE": "p-0", "CRUCIBLE_CONFIG": "/config/config.json", "INTERVAL": "2"},
    )
    try:
        container.start()
        deadline = time.monotonic() + SECONDS
        while LINES[type_] not in (said := container.logs()):
            container.reload()
            assert container.status == "running", said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        container.kill("SIGTERM")
        # The first process of a container, so a program that does not listen for it would not end.
        assert container.wait(timeout=SECONDS)["StatusCode"] in {0, 143}
    finally:
        container.remove(force=True)


@pytest.mark.parametrize(
    ("type_", "program"), [("python", "everything.py"), ("javascript", "everything.mjs")]
)
async def test_the_sdk_is_in_the_image_and_speaks_to_a_broker_outside(
    client: docker.DockerClient, images: Mapping[str, Made], tmp_path: Path, type_: str, program: str
) -> None:
    doors, source = tmp_path / "doors", tmp_path / "source"
    doors.mkdir()
    source.mkdir()
    shutil.copy(EXAMPLES.parent / "tests/plugins/sdk" / program, source)
    broker = Broker(asyncio.get_running_loop())
    broker.update([Member("here", "p", "uid-p", Grants())])
    entrances = [
        Entrance(broker, doorway, bound(doors / f"{doorway.plugin_uid}.sock"))
        for doorway in (
            Doorway(Door.BUS, "here", "p", "uid-p", "0-1"),
            Doorway(Door.BUS, "", HOST, HOST, "host"),
        )
    ]
    container = await asyncio.to_thread(
        client.containers.create,
        images[type_].name,
        entrypoint=[*json.loads(client.images.get(images[type_].name).labels["dev.crucible.entrypoint"])],
        command=[f"/plugin/{program}"],
        user="1900000124:1900000124",
        read_only=True,
        network_mode="none",
        cap_drop=["ALL"],
        tmpfs={"/tmp": "size=8m,mode=1777"},
        volumes=[f"{source}:/plugin:ro", f"{doors / 'uid-p.sock'}:/run/crucible/bus.sock:ro"],
        environment={"CRUCIBLE_BUS": "/run/crucible/bus.sock"},
    )
    raw = None
    try:
        await asyncio.to_thread(container.start)
        seat = broker.roster.find("here", "p")
        assert seat is not None
        async with asyncio.timeout(SECONDS):
            while not any(one.ready for one in seat.connections):
                container.reload()
                assert container.status == "running", container.logs()
                await asyncio.sleep(0.05)
        raw = await Raw.greet(doors / f"{HOST}.sock", namespace="here")
        answer = await raw.call(1, "p.split", b'{"text":"to be"}')
        assert json.loads(answer.payload) == ["to", "be"], answer
        await asyncio.to_thread(container.kill, "SIGTERM")
        assert (await asyncio.to_thread(container.wait, timeout=SECONDS))["StatusCode"] == 0
    finally:
        await asyncio.to_thread(container.remove, force=True)
        if raw is not None:
            await raw.close()
        for entrance in entrances:
            entrance.close()
        broker.calls.deadlines.close()


def bound(path: Path) -> socket.socket:
    """Return a listening socket that any user may connect to."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    path.chmod(0o666)
    return listener
