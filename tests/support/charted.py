"""The chart as a release of a real cluster: its operator in a pod, and Plugins in a namespace beside it."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import yaml
from ground import NO_IMAGE, RealGround

from crucible import __version__
from crucible.errors import CrucibleError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools/bin"
NAME = "crucible"
SECONDS = 120.0
OF_APPS = "/apis/apps/v1"
_HANDED = "'make images INTO=...' hands it to them; CRUCIBLE_IMAGES and CRUCIBLE_IMAGE_TAG say where it is"
# What of a release is in no namespace has to be looked for when all is over.
_WIDE = (
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
)


class Charted(RealGround):
    """A release that watches the tests' namespace, in a namespace of its own; both are gone at the end.

    ``CRUCIBLE_CHART_VALUES`` names a file of values that this cluster needs, such as where it resolves names
    (``networkPolicy.dns``) or which class of storage it has (``bus.nats.storage.className``).

    Attributes:
        values: what is installed, as values of the chart.
        part: the component that the tests are about.
        python: the interpreter of the operator's image: where the first process of a container is one, that.
    """

    values: ClassVar[dict[str, Any]] = {}
    part: ClassVar[str] = "operator"
    python = "/proc/1/exe"

    @property
    def release(self) -> str:
        """The namespace of the release."""
        return f"{self.namespace}-system"

    def within(self, plural: str, name: str = "", root: str = "/api/v1") -> str:
        """Return the path of a collection of the release's namespace, or of an object in it."""
        return f"{root}/namespaces/{self.release}/{plural}{f'/{name}' if name else ''}"

    async def install(self) -> None:
        """Install the release, and wait until every part of it is ready."""
        if not (TOOLS / "helm").exists():
            pytest.skip("helm is missing: run .venv/bin/python scripts/tools")
        if not self.operates:
            pytest.skip("CRUCIBLE_OPERATOR=none: a second operator would serve these tests' Plugins too")
        await self.settle(self.release, self._stack)
        values = self._all_values(await self._api_ports())
        if values.get("bus", {}).get("nats", {}).get("enabled"):
            await self._storage(values)
            await self.certify()
        self._stack.push_async_callback(self._uninstall)
        chart = str(ROOT / "charts/crucible")
        await self.tool(
            "helm", "install", NAME, chart, "-n", self.release, "-f", "-", stdin=json.dumps(values)
        )
        self._stack.push_async_callback(self.dismiss)  # while the operator is there
        await self.until_whole()

    def _all_values(self, api_ports: list[int]) -> dict[str, Any]:
        prefix = os.environ.get("CRUCIBLE_IMAGES") or "crucible"
        tag = os.environ.get("CRUCIBLE_IMAGE_TAG") or __version__
        told = os.environ.get("CRUCIBLE_CHART_VALUES")
        images: dict[str, Any] = {
            "image": {"repository": f"{prefix}/operator", "tag": tag},
            "bus": {"nats": {"image": {"repository": f"{prefix}/nats", "tag": tag}}},
            "plugins": {"images": {"prefix": prefix, "tag": tag}, "networkPolicies": "enforced"},
            "watchNamespaces": [self.namespace],
            "crds": {"install": False},
            "networkPolicy": {"apiServer": {"ports": api_ports}},
        }
        cluster = yaml.safe_load(Path(told).read_text()) if told else {}
        return _merged(_merged(images, self.values), cluster)

    async def _api_ports(self) -> list[int]:
        """Return where the API server really listens: there policies hold a connection to its Service."""
        of_it = {"labelSelector": "kubernetes.io/service-name=kubernetes"}
        slices = await self.client.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", of_it)
        return sorted({443, *(port["port"] for one in slices["items"] for port in one["ports"] or ())})

    async def _storage(self, values: Mapping[str, Any]) -> None:
        """Leave out what needs a volume where a claim would wait for ever."""
        classes = (await self.client.get("/apis/storage.k8s.io/v1/storageclasses"))["items"]
        default = "storageclass.kubernetes.io/is-default-class"
        if any(each["metadata"].get("annotations", {}).get(default) == "true" for each in classes):
            return
        if not values["bus"]["nats"].get("storage", {}).get("className"):
            pytest.skip(
                "this cluster has no default StorageClass, so no volume for NATS: name one as "
                "bus.nats.storage.className in the file of CRUCIBLE_CHART_VALUES"
            )

    async def certify(self) -> None:
        """Make the Secrets of the bus as a person does, or renew them."""
        crucible = Path(sys.executable).with_name("crucible")
        wanted = ("--authority", str(self.place / "authority"), "-n", self.release, "-o", "json")
        made = json.loads(await run(crucible, "bus", "certificates", *wanted))
        for secret in made["items"]:
            path = self.within("secrets", secret["metadata"]["name"])
            await self.client.apply(path, secret, "crucible-tests")

    async def tool(self, name: str, *argv: str, stdin: str = "", fine: tuple[int, ...] = (0,)) -> str:
        """Run ``helm`` or ``kubectl`` on the cluster; return what it printed."""
        return await run(TOOLS / name, *argv, stdin=stdin, fine=fine)

    async def until_whole(self) -> None:
        """Wait until everything of the release has all its replicas, and none too many."""
        await self.until(self.is_whole, lambda: f"the release in {self.release} does not become ready")

    async def is_whole(self) -> bool:
        """Whether it has; fails at once where a node lacks an image."""
        for pod in await self.parts():
            for each in pod.get("status", {}).get("containerStatuses") or ():
                waiting = each.get("state", {}).get("waiting") or {}
                lacking = any(word in str(waiting.get("reason")) for word in NO_IMAGE)
                assert not lacking, f"the nodes have no {each['image']}: {_HANDED} (docs/kubernetes.md)"
        found = [
            one
            for plural in ("deployments", "statefulsets")
            for one in (await self.client.get(self.within(plural, root=OF_APPS)))["items"]
        ]
        return bool(found) and all(_is_whole(one) for one in found)

    async def parts(self, component: str = "") -> list[dict[str, Any]]:
        """Return the release's pods, or those of a component, that are not on their way out."""
        selector = f"app.kubernetes.io/component={component}" if component else ""
        found = (await self.client.get(self.within("pods"), {"labelSelector": selector}))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    async def inside(self, pod: str, container: str, program: str, fine: tuple[int, ...] = (0,)) -> str:
        """Run a Python program in a container of the operator's image; return what it printed."""
        where = ("-n", self.release, pod, "-c", container)
        return await self.tool("kubectl", "exec", *where, "--", self.python, "-I", "-c", program, fine=fine)

    async def _uninstall(self) -> None:
        await self.tool("helm", "uninstall", NAME, "-n", self.release)
        of_it = ("meta.helm.sh/release-namespace", self.release)
        left = [
            f"{plural.rpartition('/')[2]}/{one['metadata']['name']}"
            for plural in _WIDE
            for one in (await self.client.get(plural))["items"]
            if of_it in (one["metadata"].get("annotations") or {}).items()
        ]
        assert not left, f"uninstalling leaves {left}"

    async def remove(self, name: str) -> None:
        """Delete a namespace, and wait until it is gone with all that was in it."""
        await super().remove(name)

        async def gone() -> bool:
            try:
                await self.client.get(f"/api/v1/namespaces/{name}")
            except NotFound:
                return True
            return False

        await self.until(gone, lambda: f"namespace {name} does not go")

    async def tried(self, pod: str) -> dict[str, str]:
        """Return what a plugin's pod found out, once it has."""
        return dict(await self.until(lambda: self.line(pod), lambda: f"{pod} printed no results"))

    async def line(self, pod: str) -> dict[str, Any] | None:
        """Return the last object that a pod printed; None before the first."""
        for line in reversed(await self.output(self.path("pods", pod))):
            if line.startswith("{") and line.endswith("}"):
                return dict(json.loads(line))
        return None

    async def output(self, pod: str, **params: str) -> list[str]:
        """Return the last lines that a pod printed, by its path."""
        try:
            async with self.client.lines(f"{pod}/log", {"tailLines": "200", **params}) as lines:
                return [line.decode(errors="replace") async for line in lines]
        except CrucibleError as error:
            return [str(error)]

    async def report(self) -> str:
        """Return what a ground's does, and what the release's programs said."""
        return await super().report() + await self.said()

    async def said(self) -> str:
        """Return what the release's pods are and said: what a person would look at first."""
        parts = []
        for pod in (await self.client.get(self.within("pods")))["items"]:
            name = pod["metadata"]["name"]
            parts.append(f"\n--- {name}: {json.dumps(pod.get('status'))[:1500]}")
            for each in pod["spec"]["containers"]:
                lines = await self.output(self.within("pods", name), container=each["name"])
                parts += [f"--- {name} {each['name']}", *lines[-40:]]
        return "\n".join(parts)

    async def pose(self, pod: dict[str, Any], *, labelled: bool = True) -> str:
        """Make a pod that is like a plugin's in all but its owner, or its labels too; return its name."""
        names = ("app.kubernetes.io/managed-by", f"crucible.dev/{self.part}") if labelled else ()
        labels = {name: pod["metadata"]["labels"][name] for name in names}
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


async def run(program: Path, *argv: str, stdin: str = "", fine: tuple[int, ...] = (0,)) -> str:
    """Run a program to its end; return what it printed.

    Raises:
        AssertionError: its exit status is none that is fine, with what it said to that.
    """

    def done() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *argv], input=stdin, capture_output=True, text=True, check=False, timeout=SECONDS
        )

    ended = await asyncio.to_thread(done)
    assert ended.returncode in fine, f"{program.name} {' '.join(argv)}: {ended.stderr}{ended.stdout}"
    return ended.stdout


def _merged(one: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with others laid over them, as Helm does."""
    found = dict(one)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found


def _is_whole(one: Mapping[str, Any]) -> bool:
    """Whether the last generation of a Deployment or StatefulSet has all its replicas, and none too many."""
    status, wanted = one.get("status", {}), one["spec"]["replicas"]
    counts = [
        status.get(name, 0) for name in ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")
    ]
    return bool(status.get("observedGeneration") == one["metadata"]["generation"] and counts == [wanted] * 4)
