"""The broker of a cluster without nodes: the program, and clients that speak from pods' addresses."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING, Any

from beside import Beside, serve
from ground import DEADLINE
from raw import Raw

from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from ground import LocalGround

SERVICE = "crucible-bus"
WAIT = 3.0
"""Seconds that the broker waits until it knows whose a connection is."""
ACCOUNT = "crucible"
"""The operator's service account."""
LABEL = marks.DOOR_LABELS[Door.BUS]


class Meeting(Beside):
    """One ``crucible broker``, and who comes to it."""

    def __init__(self, local: LocalGround, name: str = "broker", *more: str) -> None:
        super().__init__(local.place / f"{name}.log")
        self.local = local
        self._more = more

    async def open(self, *operator: str) -> None:
        """Make the Service, start the broker and an operator that was told of it, and whatever else."""
        await serve(self.local, SERVICE, 3129, "bus")
        self.begin()
        self.local.start("one", "--bus", f"{self.local.namespace}/{SERVICE}", *operator)
        await self.local.until(lambda: self.port("bus"), self.log)

    async def hire(self) -> dict[str, Any]:
        """Make the pod that the operator speaks from: it runs on this host, so its address is the host's."""
        pod = await self.staff("operator")
        await self.local.kubelet.say(pod, {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]})
        await self.announce()
        return pod

    async def staff(
        self, name: str, namespace: str = "default", label: str = "true", **spec: Any
    ) -> dict[str, Any]:
        """Make a pod like the operator's, and return it once it has an address of its own."""
        meta = {"name": name, "namespace": namespace, "labels": {marks.OPERATOR: label}}
        like = {"serviceAccountName": ACCOUNT, "containers": [{"name": "operator", "image": "crucible"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {**like, **spec}}
        where = f"/api/v1/namespaces/{namespace}/pods"
        await self.local.client.create(where, body)

        async def runs() -> dict[str, Any] | None:
            pod = await self.local.client.get(f"{where}/{name}")
            return pod if pod.get("status", {}).get("podIP") else None

        return dict(await self.local.until(runs))

    async def announce(self) -> None:
        """Say in the Service's slice where the broker is now."""
        where = {
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "bus", "port": self.port("bus")}],
        }
        meta = {"name": f"{SERVICE}-a", "labels": {"kubernetes.io/service-name": SERVICE}}
        body = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, **where}
        path = self.local.path("endpointslices", f"{SERVICE}-a")
        await self.local.client.apply(path, body, "tests")

    async def show_door(self, pod: str, *, named: bool = True) -> None:
        """Make the broker's own pod, ready, in which people outside look for its door."""
        labels = {"app.kubernetes.io/part-of": "crucible", "app.kubernetes.io/component": "bus"}
        ports = [{"name": "callers", "containerPort": self.port("callers")}] if named else []
        spec = {"containers": [{"name": "broker", "image": "crucible", "ports": ports}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": labels}, "spec": spec}
        await self.local.client.create(self.local.path("pods"), body)

        async def runs() -> dict[str, Any] | None:
            found = await self.local.client.get(self.local.path("pods", pod))
            return found if found.get("status", {}).get("podIP") else None

        made = await self.local.until(runs)
        await self.local.kubelet.say(made, {"conditions": [{"type": "Ready", "status": "True"}]})

    async def until_it_speaks(self, identity: str = "one") -> None:
        """Wait until the operator has its line to the broker that was announced last."""

        def speaks() -> bool:
            said = re.findall(r"speaks to 127|cannot be spoken to", self.local.log(identity))
            return said[-1:] == ["speaks to 127"]

        await self.local.until(speaks, self.log)

    def begin(self) -> None:
        """Start the broker; do not wait for it."""
        operator = f"{self.local.namespace}/{ACCOUNT}"
        self.run(self.local, "broker", "--wait", str(WAIT), "--operator", operator, *self._more)

    async def close(self) -> None:
        self.kill()
        await Raw.hang_up()

    async def plugin(self, name: str, store: dict[str, str] | None = None, **bus: Any) -> dict[str, Any]:
        """Apply a plugin on the bus, and return its pod once it runs."""
        capabilities = {"bus": bus} if store is None else {"bus": bus, "store": store}
        await self.local.apply(name, capabilities=capabilities)
        await self.local.until_ready(name)
        (pod,) = await self.local.running(name)
        return dict(pod)

    async def authority(self) -> str:
        """Return the certificate that pods are shown, once it is there."""

        async def found() -> str:
            shown = await self.local.client.get(self.local.path("configmaps", marks.AUTHORITY))
            return str(shown["data"][marks.AUTHORITY_KEY])

        return str(await self.local.until(found, self.log))

    async def trust(self) -> ssl.SSLContext:
        """Return how a pod speaks."""
        context = ssl.create_default_context(cadata=await self.authority())
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    async def connect(self, address: str, trust: ssl.SSLContext | None = None) -> Raw | None:
        """Connect from an address; None for one that is nobody's and turned away."""
        trust = trust or await self.trust()
        try:
            async with asyncio.timeout(DEADLINE):
                streams = await asyncio.open_connection(
                    "127.0.0.1", self.port("bus"), ssl=trust, server_hostname="bus", local_addr=(address, 0)
                )
        except (ConnectionError, ssl.SSLEOFError):
            return None
        return Raw(*streams)

    async def join(self, pod: dict[str, Any], *methods: str) -> Raw:
        """Connect from a pod's address, and introduce the plugin."""
        found = await self.connect(pod["status"]["podIP"])
        assert found is not None, self.log()
        return await found.greeted(methods=list(methods))


def is_on_bus(pod: dict[str, Any]) -> bool:
    """Whether rules and the broker's own look both take a pod for one that is on the bus."""
    return Door.BUS in marks.doors_of(pod) and pod["metadata"]["labels"].get(LABEL) == "true"
