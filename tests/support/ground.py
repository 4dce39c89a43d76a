"""A cluster, an operator that runs as a process beside it, and what can be seen of both."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from faults import Faults
from kubelet import Kubelet, Output, cluster_kinds

from crucible.control.apiserver import ApiServer, ServerSettings
from crucible.control.cluster import ClusterClient, find_endpoint
from crucible.control.kubeconfig import default_path, load_endpoint
from crucible.core.admission import violations_of
from crucible.errors import CrucibleError, NotFound, Unavailable
from crucible.model.crd import plugin_crd
from crucible.model.revision import revision_crd

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 120.0
WEAK = {"allowDegraded": ["pids", "openFiles"]}
NO_IMAGE = ("ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ROOTS = {
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
}


class Ground(ABC):
    """One namespace of a cluster.

    Attributes:
        namespace: where the tests' Plugins live.
        client: the API server, for the test itself.
        operators: those that run, by identity.
        deadline: seconds after which waiting fails; pods of real nodes take their time.
        operates: whether operators are started and ended here, or one runs in the cluster.
    """

    namespace = "default"
    deadline = DEADLINE
    operates = True
    client: ClusterClient

    def __init__(self, place: Path) -> None:
        self.place = place
        self.operators: dict[str, subprocess.Popen[bytes]] = {}

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *_: object) -> None: ...

    @abstractmethod
    def kubeconfig(self) -> Path:
        """Return the file that leads the operator to the cluster."""

    def arguments(self) -> tuple[str, ...]:
        """Return what the operator is told besides the usual."""
        return ()

    def start(self, identity: str = "one", *arguments: str) -> subprocess.Popen[bytes]:
        """Start an operator; do not wait for it."""
        if not self.operates:
            raise RuntimeError("the cluster has an operator of its own, which no test starts or ends")
        argv = [str(Path(sys.executable).with_name("crucible")), "operator", "--identity", identity]
        argv += ["--kubeconfig", str(self.kubeconfig()), "--network-policies", "enforced"]
        argv += ["--health-port", "0", "--metrics-port", "0", "--lease-namespace", self.namespace]
        with self.log_path(identity).open("ab") as log:
            self.operators[identity] = subprocess.Popen(
                [*argv, *self.arguments(), *arguments], stdout=log, stderr=log, start_new_session=True
            )
        return self.operators[identity]

    async def end(self, identity: str = "one", number: signal.Signals = signal.SIGTERM) -> int:
        """Send an operator a signal, wait for its end, return its exit status.

        The API server of a cluster without nodes goes on answering meanwhile: it is in this event loop.
        """
        process = self.operators.pop(identity)
        process.send_signal(number)
        return await asyncio.to_thread(process.wait, DEADLINE)

    async def end_all(self) -> None:
        for identity in tuple(self.operators):
            self.operators[identity].send_signal(signal.SIGCONT)
            await self.end(identity, signal.SIGKILL)

    def log_path(self, identity: str) -> Path:
        return self.place / f"operator-{identity}.log"

    def log(self, identity: str = "one") -> str:
        """Return what an operator said."""
        path = self.log_path(identity)
        return path.read_text() if path.exists() else ""

    def port(self, name: str, identity: str = "one") -> int | None:
        """Return where an operator answers ``health`` or ``metrics``; None until it says so."""
        found = re.findall(rf"answers on .*'{name}': (\d+)", self.log(identity))
        return int(found[-1]) if found else None

    def hopeless(self, plugin: dict[str, Any]) -> str:
        """Return why waiting for a plugin is in vain; empty while it may still come."""
        return ""

    @property
    def plugins(self) -> str:
        return f"/apis/crucible.dev/v1alpha1/namespaces/{self.namespace}/plugins"

    def path(self, plural: str, name: str = "") -> str:
        """Return the path of a collection of the namespace, or of an object in it."""
        root = _ROOTS.get(plural, "/api/v1")
        return f"{root}/namespaces/{self.namespace}/{plural}{f'/{name}' if name else ''}"

    async def apply(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create a Plugin that runs until it is stopped."""
        body = manifest(name, self.namespace, **spec)
        return await insist(lambda: self.client.create(self.plugins, body))

    async def change(self, name: str, **spec: Any) -> dict[str, Any]:
        """Change fields of a Plugin's spec."""
        return await insist(lambda: self.client.patch(f"{self.plugins}/{name}", {"spec": spec}))

    async def delete(self, name: str) -> None:
        with suppress(NotFound):
            await insist(lambda: self.client.delete(f"{self.plugins}/{name}"))

    async def plugin(self, name: str) -> dict[str, Any]:
        return await self.client.get(f"{self.plugins}/{name}")

    async def pods(self, name: str = "") -> list[dict[str, Any]]:
        """Return the pods of a plugin, or of all, that are not on their way out."""
        params = {"labelSelector": f"crucible.dev/plugin={name}" if name else "app.kubernetes.io/managed-by"}
        found = (await self.client.get(self.path("pods"), params))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    async def running(self, name: str) -> list[dict[str, Any]]:
        return [pod for pod in await self.pods(name) if pod.get("status", {}).get("phase") == "Running"]

    async def until(self, holds: Callable[[], Any], why: Callable[[], object] = str) -> Any:
        """Wait until something holds, and return it; failing says all there is to know."""
        last: object = None
        try:
            async with asyncio.timeout(self.deadline):
                while True:
                    try:
                        answer = holds()
                        answer = await answer if asyncio.iscoroutine(answer) else answer
                    except (NotFound, Unavailable) as error:
                        answer, last = None, error
                    if answer:
                        return answer
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        raise AssertionError(f"not within {self.deadline} s: {why()} {last or ''}\n{await self.report()}")

    async def until_ready(self, name: str, replicas: int = 1) -> dict[str, Any]:
        """Wait until a Plugin says that its last generation runs, with so many replicas."""

        async def ready() -> dict[str, Any] | None:
            plugin = await self.plugin(name)
            hopeless = self.hopeless(plugin)
            assert not hopeless, f"{name}: {hopeless}"
            status = plugin.get("status") or {}
            current = status.get("observedGeneration") == plugin["metadata"]["generation"]
            whole = (
                status.get("readyReplicas", 0) == replicas and condition(plugin, "Ready")["status"] == "True"
            )
            return plugin if current and whole and status.get("phase") == "Running" else None

        return dict(await self.until(ready, lambda: f"{name} is not ready"))

    async def until_condition(self, name: str, kind: str, *words: str) -> dict[str, Any]:
        """Wait until a condition of a Plugin is true and says these words; return it."""

        async def said() -> dict[str, Any] | None:
            found = condition(await self.plugin(name), kind)
            text = f"{found.get('reason')} {found.get('message')}"
            return found if found["status"] == "True" and all(word in text for word in words) else None

        return dict(await self.until(said, lambda: f"{name}: {kind} does not say {words}"))

    async def report(self) -> str:
        """Return Plugins, pods, events and the operators' logs: what a person would look at."""
        parts = []
        for what in (self.plugins, self.path("pods"), self.path("events")):
            try:
                items = (await self.client.get(what))["items"]
            except CrucibleError as error:
                parts.append(f"{what}: {error}")
                continue
            for item in items[-40:]:
                item["metadata"].pop("managedFields", None)
                kept = {key: item[key] for key in ("metadata", "status", "reason", "message") if key in item}
                parts.append(f"{what}: {json.dumps(kept)[:2000]}")
        logs = sorted(self.place.glob("operator-*.log"))
        parts += [f"--- {path.name}\n{path.read_text()[-6000:]}" for path in logs]
        return "\n".join(parts)


class LocalGround(Ground):
    """The local control plane with a kubelet that plays pods, behind a proxy that can fail.

    Attributes:
        kubelet: plays the pods.
        faults: stands between the operators and the API server; the test itself goes straight.
        output: what pods printed.
    """

    kubelet: Kubelet
    faults: Faults
    output: Output

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self.output = Output()
        server = await self._stack.enter_async_context(
            ApiServer(
                self.settings(),
                crds=[plugin_crd(), revision_crd()],
                admit=violations_of,
                pods=self.output,
                extra=cluster_kinds(),
            )
        )
        find = partial(load_endpoint, server.kubeconfig)
        self.client = await self._stack.enter_async_context(ClusterClient(find))
        self.faults = await self._stack.enter_async_context(Faults(find()))
        self.kubelet = Kubelet(self.client)
        playing = asyncio.create_task(self.kubelet.run())
        self._stack.callback(playing.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end_all()
        await self._stack.aclose()

    def settings(self) -> ServerSettings:
        """Return how the API server is set."""
        return ServerSettings(self.place / "control")

    def kubeconfig(self) -> Path:
        return self.faults.kubeconfig(self.place / "kubeconfig")


class RealGround(Ground):
    """A namespace of its own on the cluster that KUBECONFIG names.

    Told by variables: ``CRUCIBLE_IMAGES`` and ``CRUCIBLE_IMAGE_TAG``, where its nodes find the types' images;
    ``CRUCIBLE_OPERATOR=none`` where one runs in the cluster already, told that network policies are enforced.
    """

    deadline = 240.0
    operates = os.environ.get("CRUCIBLE_OPERATOR") != "none"

    async def __aenter__(self) -> Self:
        self.namespace = f"crucible-test-{secrets.token_hex(3)}"
        async with AsyncExitStack() as stack:
            find = partial(find_endpoint, self.kubeconfig())
            self.client = await stack.enter_async_context(ClusterClient(find))
            stack.push_async_callback(self.end_all)
            await self._define()
            await self.settle(self.namespace, stack)
            stack.push_async_callback(self.dismiss)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def settle(self, name: str, stack: AsyncExitStack) -> None:
        """Make a namespace with Pod Security ``restricted``, which goes when the stack is unwound."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        await self.client.create("/api/v1/namespaces", body)
        stack.push_async_callback(self.remove, name)

    async def remove(self, name: str) -> None:
        """Delete a namespace; what is in it goes by and by."""
        await self.client.delete(f"/api/v1/namespaces/{name}")

    async def dismiss(self) -> None:
        """Delete the Plugins, which is their operator's to do; where it cannot, they are let go."""
        for plugin in (await self.client.get(self.plugins))["items"]:
            await self.delete(plugin["metadata"]["name"])
        try:
            await self.until(self._empty)
        except AssertionError:
            for plugin in (await self.client.get(self.plugins))["items"]:
                path = f"{self.plugins}/{plugin['metadata']['name']}"
                await self.client.patch(path, {"metadata": {"finalizers": None}})

    async def _define(self) -> None:
        """Make the definitions this version's, and wait until Plugin is served."""
        wanted = plugin_crd()
        for each in (revision_crd(), wanted):
            path = f"{_CRDS}/{each['metadata']['name']}"
            await self.client.apply(path, each, "crucible-tests")

        async def served() -> bool:
            conditions = (await self.client.get(path)).get("status", {}).get("conditions") or []
            established = any(
                each["type"] == "Established" and each["status"] == "True" for each in conditions
            )
            return established and "items" in await self.client.get(self.plugins)

        await self.until(served, lambda: "the definition of Plugin is not served")

    async def _empty(self) -> bool:
        return not (await self.client.get(self.plugins))["items"]

    def kubeconfig(self) -> Path:
        return default_path()

    def hopeless(self, plugin: dict[str, Any]) -> str:
        message = str(condition(plugin, "Degraded").get("message"))
        if not any(word in message for word in NO_IMAGE):
            return ""
        return (
            f"{message}: the nodes have no such image. Hand it to them with 'make images INTO=...', or say "
            "with CRUCIBLE_IMAGES and CRUCIBLE_IMAGE_TAG where they find it (docs/kubernetes.md)"
        )

    def arguments(self) -> tuple[str, ...]:
        given = {
            "--images": os.environ.get("CRUCIBLE_IMAGES", ""),
            "--image-tag": os.environ.get("CRUCIBLE_IMAGE_TAG", ""),
            "--namespace": self.namespace,
        }
        return tuple(word for name, value in given.items() if value for word in (name, value))


def manifest(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Return a Plugin that sleeps, with some spec fields replaced."""
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": "import signal\nsignal.pause()\n"}},
            "entrypoint": ["main.py"],
            "sandbox": WEAK,
            "resources": {
                "cpu": "100m",
                "memory": "32Mi",
            },  # which is reserved for it: small nodes have to do
            **spec,
        },
    }


def condition(plugin: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition of a Plugin; an unknown one where it has none."""
    conditions = (plugin.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {"status": "Unknown"})


async def insist(work: Callable[[], Any]) -> Any:
    """Do something through an API server that may be away: again until it answers."""
    for _ in range(round(DEADLINE / 0.1)):
        try:
            return await work()
        except Unavailable:
            await asyncio.sleep(0.1)
    raise AssertionError("the API server stays away")
