"""The way out on a real cluster: the chart's proxy, pods that try to get out, and a stranger among them."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ground import RealGround

from crucible import __version__
from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
HELM = ROOT / ".tools/bin/helm"
GROUPS = {
    "Deployment": ("/apis/apps/v1", "deployments"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
}
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


class Cluster(RealGround):
    """A namespace with the chart's egress proxy in it, and an operator that was told of it."""

    async def install(self) -> None:
        """Make what the chart makes of the proxy, in the tests' own namespace, and wait until it is ready."""
        if not HELM.exists():
            pytest.skip("helm is missing: run .venv/bin/python scripts/tools")
        for one in self._rendered():
            root, plural = GROUPS[one["kind"]]
            await self.client.create(f"{root}/namespaces/{self.namespace}/{plural}", one)
        where = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/crucible-egress"

        async def available() -> bool:
            return (await self.client.get(where)).get("status", {}).get("availableReplicas", 0) >= 1

        await self.until(available, lambda: "the egress proxy is not available: is its image on the nodes?")
        self.start("one", "--egress", f"{self.namespace}/crucible-egress")

    def _rendered(self) -> list[dict[str, Any]]:
        prefix = os.environ.get("CRUCIBLE_IMAGES") or "crucible"
        values = {
            "egress": {"enabled": True},
            "watchNamespaces": [self.namespace],
            "crds": {"install": False},
            "image": {
                "repository": f"{prefix}/operator",
                "tag": os.environ.get("CRUCIBLE_IMAGE_TAG") or __version__,
            },
        }
        done = subprocess.run(
            [HELM, "template", "crucible", ROOT / "charts/crucible", "-n", self.namespace, "-f", "-"],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        found = [one for one in yaml.safe_load_all(done.stdout) if one]
        return [one for one in found if _component(one) == "egress"]

    async def tried(self, pod: str) -> dict[str, str]:
        """Return what a pod found out, once it has."""
        return dict(await self.until(lambda: self._line(pod), lambda: f"{pod} printed no results"))

    async def _line(self, pod: str) -> dict[str, str] | None:
        for line in await self.output(pod):
            if line.startswith("{"):
                return dict(json.loads(line))
        return None

    async def output(self, pod: str) -> list[str]:
        try:
            async with self.client.lines(f"{self.path('pods', pod)}/log", {"tailLines": "200"}) as lines:
                return [line.decode(errors="replace") async for line in lines]
        except CrucibleError as error:
            return [str(error)]

    async def said(self) -> str:
        """Return what the proxy said: what a person would look at first."""
        selector = {"labelSelector": "app.kubernetes.io/component=egress"}
        pods = (await self.client.get(self.path("pods"), selector))["items"]
        parts = [line for pod in pods for line in await self.output(pod["metadata"]["name"])]
        return "\nthe proxy said:\n" + "\n".join(parts[-60:])


def _component(one: dict[str, Any]) -> str:
    return str(one["metadata"].get("labels", {}).get("app.kubernetes.io/component"))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    place = Cluster(tmp_path)
    if not place.operates:
        pytest.skip("the operator in the cluster was not told of a proxy in a namespace of these tests")
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
    posing = await _posing(cluster, pod)
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


async def _posing(cluster: Cluster, pod: dict[str, Any]) -> str:
    """Make a pod that is like a plugin's in all but its owner; return its name."""
    labels = {
        name: pod["metadata"]["labels"][name]
        for name in ("app.kubernetes.io/managed-by", "crucible.dev/egress")
    }
    spec = copy.deepcopy(pod["spec"])
    for field in ("nodeName", "serviceAccountName", "serviceAccount", "tolerations", "priority"):
        spec.pop(field, None)
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "posing", "namespace": cluster.namespace, "labels": labels},
        "spec": spec,
    }
    await cluster.client.create(cluster.path("pods"), body)
    return "posing"
