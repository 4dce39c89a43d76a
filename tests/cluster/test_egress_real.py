"""The way out on a real cluster: the chart's proxy, pods that try to get out, and a stranger among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from charted import Charted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

WEB = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from " + self.headers["host"].encode())

ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
TRIES = """
import json, os, signal, socket, sys, urllib.error, urllib.request

def asked(url):
    try:
        with urllib.request.urlopen(url, timeout=40) as answer:
            return f"{answer.status} {answer.read(200).decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(400).decode()}"
    except OSError as error:
        return f"failed: {error}"

def reached(host, port):
    try:
        socket.create_connection((host, port), 8).close()
    except OSError as error:
        return f"failed: {error}"
    return "reached"

def resolved(name):
    try:
        return str(socket.getaddrinfo(name, 443)[0][4])
    except OSError as error:
        return f"failed: {error}"

web = json.load(open(os.environ["CRUCIBLE_CONFIG"]))["web"]
print(json.dumps({
    "granted": asked(f"http://{web}:8080/"),
    "denied": asked(f"http://{web}:8081/"),
    "direct": reached(web.strip("[]"), 8080),
    "server": reached(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])),
    "names": resolved("kubernetes.default.svc"),
}), flush=True)
signal.pause()
"""


class Cluster(Charted):
    """A release with the egress proxy, and nobody but it to turn strangers away."""

    part = "egress"
    values: ClassVar[dict[str, Any]] = {"egress": {"enabled": True}, "admission": {"policies": "never"}}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    place = Cluster(tmp_path)
    async with place:
        await place.install()
        yield place


async def web_and_fetch(cluster: Cluster) -> tuple[str, dict[str, Any]]:
    """Start a server and a plugin that may reach one port of it; return the server's address, and the pod."""
    listens = {"network": {"listen": [8080]}}
    await cluster.apply("web", source={"inline": {"main.py": WEB}}, capabilities=listens)
    await cluster.until_ready("web")
    (web,) = await cluster.running("web")
    address = str(web["status"]["podIP"])
    host = f"[{address}]" if ":" in address else address
    await cluster.apply(
        "fetch",
        source={"inline": {"main.py": TRIES}},
        config={"web": host},
        capabilities={"network": {"connect": [f"{host}:8080"]}},
    )
    await cluster.until_ready("fetch")
    (fetch,) = await cluster.running("fetch")
    return host, fetch


async def test_a_plugin_gets_out_where_it_may_and_a_pod_that_poses_as_one_does_not(cluster: Cluster) -> None:
    host, pod = await web_and_fetch(cluster)
    found = await cluster.tried(pod["metadata"]["name"])
    assert found["granted"] == f"200 hello from {host}:8080", f"{found}{await cluster.said()}"
    assert found["denied"].startswith("403 "), f"{found}{await cluster.said()}"
    assert "to capabilities.network.connect" in found["denied"], found

    async def told() -> bool:
        events = (await cluster.client.get(cluster.path("events")))["items"]
        return any(each["reason"] == "EgressDenied" for each in events)

    await cluster.until(told, lambda: f"no event EgressDenied: {found}")
    posing = await cluster.pose(pod)
    answers = await cluster.tried(posing)
    assert answers["granted"].startswith("failed: "), f"the proxy let a stranger out: {answers}"
    assert answers["denied"].startswith("failed: "), f"the proxy answered a stranger: {answers}"


async def test_there_is_no_way_around_the_proxy(cluster: Cluster) -> None:
    _, pod = await web_and_fetch(cluster)
    found = await cluster.tried(pod["metadata"]["name"])
    ways = {name: found[name] for name in ("direct", "server", "names")}
    open_ones = {name: how for name, how in ways.items() if not how.startswith("failed: ")}
    if open_ones == ways:
        pytest.skip(f"this cluster's network enforces no NetworkPolicy: {ways}")
    assert open_ones == {}, f"some ways are open, others are not: {ways}"
