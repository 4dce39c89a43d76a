"""The bus on a real cluster: the chart's broker, pods that talk through it, and a stranger among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from charted import Charted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

SPLIT = """
from crucible_plugin import Plugin

plugin = Plugin()

@plugin.method()
def words(request):
    return {"words": request.payload.split(), "caller": request.caller}

@plugin.method()
def more(request):
    return "never"

plugin.run()
"""
ASK = """
import json, os, socket, time
from crucible_plugin import BusError, Plugin

plugin = Plugin()

def called(name, payload):
    until = time.monotonic() + 60
    while True:
        try:
            return plugin.call(name, payload)
        except BusError as error:
            last = f"failed: {error.code}: {error}"
            passing = {"Unavailable", "NoSuchPlugin", "NoSuchMethod"}  # the other one may be on its way
            if error.code not in passing or time.monotonic() > until:
                return last
        time.sleep(1)

def reached(host, port):
    try:
        socket.create_connection((host, port), 8).close()
    except OSError as error:
        return f"failed: {error}"
    return "reached"

def heard(host, port):
    \"\"\"Say something that is no TLS, and return what is said to it.\"\"\"
    try:
        with socket.create_connection((host, port), 20) as door:
            door.sendall(b"0" * 64)
            return door.recv(100).hex()
    except OSError as error:
        return f"failed: {error}"

print(json.dumps({
    "granted": called("split.words", "to be"),
    "denied": called("split.more", None),
    "plain": heard("bus", 3129),
    "server": reached(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])),
}), flush=True)
plugin.run()
"""


class Cluster(Charted):
    """A release with the broker, and nobody but it to turn strangers away."""

    part = "bus"
    values: ClassVar[dict[str, Any]] = {"bus": {"enabled": True}, "admission": {"policies": "never"}}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    place = Cluster(tmp_path)
    async with place:
        await place.install()
        yield place


async def two(cluster: Cluster) -> dict[str, Any]:
    """Start a plugin, and another that may call one of its methods; return the latter's pod."""
    await cluster.apply("split", source={"inline": {"main.py": SPLIT}}, capabilities={"bus": {}})
    await cluster.until_ready("split")
    await cluster.apply(
        "ask", source={"inline": {"main.py": ASK}}, capabilities={"bus": {"call": ["split.words"]}}
    )
    await cluster.until_ready("ask")
    (pod,) = await cluster.running("ask")
    return dict(pod)


async def test_pods_call_each_other_as_far_as_they_may_and_one_that_poses_as_a_plugin_does_not(
    cluster: Cluster,
) -> None:
    pod = await two(cluster)
    found: dict[str, Any] = await cluster.tried(pod["metadata"]["name"])
    why = f"{found}{await cluster.said()}"
    assert found["granted"] == {"words": ["to", "be"], "caller": "ask"}, why
    assert found["denied"].startswith("failed: NotPermitted"), why
    assert found["plain"].startswith(("15", "failed: ")) or found["plain"] == "", f"no alert of TLS: {why}"

    async def told() -> bool:
        events = (await cluster.client.get(cluster.path("events")))["items"]
        return any(each["reason"] == "BusDenied" for each in events)

    await cluster.until(told, lambda: f"no event BusDenied: {why}")
    posing: dict[str, Any] = await cluster.tried(await cluster.pose(pod))
    assert str(posing["granted"]).startswith("failed: Unavailable"), f"a stranger was served: {posing}"
    assert posing["plain"] == "" or posing["plain"].startswith("failed: "), (
        f"a stranger was answered: {posing}"
    )


async def test_the_broker_may_write_its_one_configmap_and_is_all_that_a_plugin_reaches(
    cluster: Cluster,
) -> None:
    pod = await two(cluster)
    shown = await cluster.client.get(cluster.path("configmaps", "crucible-bus-ca"))
    assert "BEGIN CERTIFICATE" in shown["data"]["ca.crt"], await cluster.said()
    found = await cluster.tried(pod["metadata"]["name"])
    if not found["server"].startswith("failed: "):
        pytest.skip(f"this cluster's network enforces no NetworkPolicy: {found['server']}")
