"""A namespace of a real cluster with something of the chart's in it, and what its pods say."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from ground import RealGround

from crucible import __version__
from crucible.errors import CrucibleError

ROOT = Path(__file__).resolve().parents[2]
HELM = ROOT / ".tools/bin/helm"
GROUPS = {
    "Deployment": ("/apis/apps/v1", "deployments"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
}


class Charted(RealGround):
    """A namespace with one part of the chart in it, ``egress`` or ``bus``, and an operator told of it."""

    part: ClassVar[str] = ""

    async def install(self) -> None:
        """Make what the chart makes of the part, in the tests' own namespace, and wait until it is ready."""
        if not HELM.exists():
            pytest.skip("helm is missing: run .venv/bin/python scripts/tools")
        for one in self._rendered(await self._api_ports()):
            root, plural = GROUPS[one["kind"]]
            await self.client.create(f"{root}/namespaces/{self.namespace}/{plural}", one)
        where = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/crucible-{self.part}"

        async def available() -> bool:
            return (await self.client.get(where)).get("status", {}).get("availableReplicas", 0) >= 1

        await self.until(
            available, lambda: f"crucible-{self.part} is not available: is its image on the nodes?"
        )
        self.start("one", f"--{self.part}", f"{self.namespace}/crucible-{self.part}")

    async def _api_ports(self) -> list[int]:
        """Return where the API server really listens: there policies hold a connection to its Service."""
        of_it = {"labelSelector": "kubernetes.io/service-name=kubernetes"}
        slices = await self.client.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", of_it)
        return sorted({443, *(port["port"] for one in slices["items"] for port in one["ports"] or ())})

    def _rendered(self, api_ports: list[int]) -> list[dict[str, Any]]:
        prefix = os.environ.get("CRUCIBLE_IMAGES") or "crucible"
        values = {
            self.part: {"enabled": True},
            "watchNamespaces": [self.namespace],
            "crds": {"install": False},
            "networkPolicy": {"apiServer": {"ports": api_ports}},
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
        return [one for one in found if _component(one) == self.part]

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

    async def report(self) -> str:
        """Return what a ground's does, and what the chart's program said."""
        return await super().report() + await self.said()

    async def said(self) -> str:
        """Return what the chart's program said: what a person would look at first."""
        selector = {"labelSelector": f"app.kubernetes.io/component={self.part}"}
        pods = (await self.client.get(self.path("pods"), selector))["items"]
        parts = [line for pod in pods for line in await self.output(pod["metadata"]["name"])]
        return f"\ncrucible-{self.part} said:\n" + "\n".join(parts[-60:])

    async def pose(self, pod: dict[str, Any]) -> str:
        """Make a pod that is like a plugin's in all but its owner; return its name."""
        labels = {
            name: pod["metadata"]["labels"][name]
            for name in ("app.kubernetes.io/managed-by", f"crucible.dev/{self.part}")
        }
        spec = copy.deepcopy(pod["spec"])
        for field in ("nodeName", "serviceAccountName", "serviceAccount", "tolerations", "priority"):
            spec.pop(field, None)
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "posing", "namespace": self.namespace, "labels": labels},
            "spec": spec,
        }
        await self.client.create(self.path("pods"), body)
        return "posing"


def _component(one: dict[str, Any]) -> str:
    return str(one["metadata"].get("labels", {}).get("app.kubernetes.io/component"))
