"""A cluster without nodes: the kinds that the local control plane lacks, and a kubelet that plays pods."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crucible.control.apiserver.corekinds import object_schema
from crucible.control.apiserver.resources import Resource
from crucible.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from crucible.control.apiserver import LogOptions
    from crucible.control.cluster import ClusterClient

ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
LIST = {"type": "array", "items": ANY}
NODE = "node-1"
PODS = "/api/v1/pods"


def cluster_kinds() -> tuple[Resource, ...]:
    """Return the kinds of a whole cluster that a plugin is run as, stored and otherwise left alone."""
    return (
        _kind("", "v1", "pods", "Pod", has_status=True, graceful=True, subresources=("log",)),
        _kind("", "v1", "services", "Service"),
        _kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", endpoints=LIST, ports=LIST),
        _kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
        _kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", has_status=True),
    )


def _kind(group: str, version: str, plural: str, kind: str, **more: Any) -> Resource:
    fields = {name: more.pop(name) for name in ("endpoints", "ports") if name in more}
    return Resource(
        group=group,
        version=version,
        plural=plural,
        singular=kind.lower(),
        kind=kind,
        list_kind=f"{kind}List",
        namespaced=True,
        schema=object_schema(f"{kind} of a cluster.", spec=ANY, status=ANY, **fields),
        storage_version=version,
        **more,
    )


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a pod.

    Attributes:
        waiting: it never runs, for this reason.
        message: what the node says to that.
        unschedulable: no node takes it.
        code: it runs, and ends with this status at once; None: it goes on.
        obeys: SIGTERM ends it.
    """

    waiting: str = ""
    message: str = ""
    unschedulable: bool = False
    code: int | None = None
    obeys: bool = True


RUNS = Fate()


class Kubelet:
    """Plays every pod of a cluster; what is to become of whose pods is in :attr:`fates`.

    Attributes:
        fates: by the plugin's name.
        seen: the uid of every pod that ever ran, by ``namespace/plugin/ordinal`` and in that order.
        most: how many of one replica ever ran at once, by the same.
        addresses: what pods get, one after the other: each is one that this host can speak from.
    """

    def __init__(self, client: ClusterClient) -> None:
        self.fates: dict[str, Fate] = {}
        self.alive: dict[str, dict[str, str]] = {}
        self.most: dict[str, int] = {}
        self.addresses = map("127.8.{0[0]}.{0[1]}".format, itertools.product(range(256), range(1, 255)))
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Play until cancelled."""
        while True:
            try:
                listed = await self._client.get(PODS)
                for pod in listed["items"]:
                    self._see(pod)
                params = {
                    "watch": "true",
                    "allowWatchBookmarks": "true",
                    "resourceVersion": listed["metadata"]["resourceVersion"],
                }
                async with self._client.watch(PODS, params) as events:
                    async for event in events:
                        if event["type"] in {"ADDED", "MODIFIED"}:
                            self._see(event["object"])
                        elif event["type"] == "DELETED":
                            self._forget(event["object"])
            except Unavailable:
                await asyncio.sleep(0.1)

    def _see(self, pod: dict[str, Any]) -> None:
        task = asyncio.create_task(self._play(pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, pod: dict[str, Any]) -> None:
        self.alive.get(replica_of(pod), {}).pop(pod["metadata"]["uid"], None)

    async def _play(self, pod: dict[str, Any]) -> None:
        """Bring a pod one step further."""
        try:
            await self._step(pod)
        except (NotFound, Conflict, Unavailable):
            return

    async def _step(self, pod: dict[str, Any]) -> None:
        fate = self.fates.get(plugin_of(pod), RUNS)
        status = pod.get("status") or {}
        if status.get("phase") in {"Succeeded", "Failed"}:
            return
        if "deletionTimestamp" in pod["metadata"]:
            if fate.obeys:
                await self.finish(pod, 143)
                await self._client.end(path_of(pod), pod["metadata"]["uid"], 0)
        elif fate.unschedulable:
            if not status.get("conditions"):
                await self.say(pod, {"phase": "Pending", "conditions": [_unschedulable(fate.message)]})
        elif not pod["spec"].get("nodeName"):
            await self._client.patch(path_of(pod), {"spec": {"nodeName": NODE}})
        elif fate.waiting:
            waiting = {"waiting": {"reason": fate.waiting, "message": fate.message}}
            await self.say(pod, _status("Pending", waiting))
        elif "running" not in _state_of(status):
            await self._start(pod, fate)

    async def _start(self, pod: dict[str, Any], fate: Fate) -> None:
        alive = self.alive.setdefault(replica_of(pod), {})
        alive[pod["metadata"]["uid"]] = pod["metadata"]["name"]
        self.most[replica_of(pod)] = max(self.most.get(replica_of(pod), 0), len(alive))
        if fate.code is None:
            address = next(self.addresses)
            there = {"podIP": address, "podIPs": [{"ip": address}]}
            running = _status("Running", {"running": {"startedAt": now()}}, ready=True)
            await self.say(pod, {**running, **there})
        else:
            await self.finish(pod, fate.code)

    async def finish(self, pod: dict[str, Any], code: int, reason: str = "", message: str = "") -> None:
        """End a pod's container."""
        word = reason or ("Completed" if code == 0 else "Error")
        ended = {
            "exitCode": code,
            "reason": word,
            "message": message,
            "finishedAt": now(),
            "startedAt": now(),
        }
        self._forget(pod)
        await self.say(pod, _status("Succeeded" if code == 0 else "Failed", {"terminated": ended}))

    async def take(self, pod: dict[str, Any], reason: str, message: str = "") -> None:
        """Take a pod away from outside of its plugin: ``Evicted``, ``NodeLost``."""
        self._forget(pod)
        await self.say(pod, {"phase": "Failed", "reason": reason, "message": message})

    async def say(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        """Write a pod's status, of that very pod."""
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        await self._client.patch(f"{path_of(pod)}/status", body)


class Output:
    """What pods printed and what they use, as the API server is asked for it; nobody lists pods from here."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = {}
        self.used: dict[str, dict[str, str]] = {}

    def list(self) -> Sequence[dict[str, Any]]:
        return ()

    def subscribe(self, changed: Any) -> None:
        return

    async def logs(self, namespace: str, name: str, options: LogOptions) -> AsyncIterator[bytes]:
        lines = self.lines.get(name, [])
        for line in lines if options.tail is None else lines[len(lines) - options.tail :]:
            yield (b"2026-01-31T09:30:00.123456789Z " if options.timestamps else b"") + line + b"\n"

    async def exec(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def metrics(self, namespace: str, name: str) -> Sequence[dict[str, Any]]:
        if name not in self.used:
            return ()
        return [
            {
                "kind": "PodMetrics",
                "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {"namespace": namespace, "name": name},
                "containers": [{"name": "plugin", "usage": dict(self.used[name])}],
            }
        ]


def plugin_of(pod: dict[str, Any]) -> str:
    """Return the name of the Plugin that owns a pod."""
    return str((pod["metadata"].get("ownerReferences") or [{}])[0].get("name", ""))


def replica_of(pod: dict[str, Any]) -> str:
    """Return whose pod it is, and which replica: ``namespace/plugin/ordinal``."""
    plugin = plugin_of(pod)
    ordinal = pod["metadata"]["name"].removeprefix(f"{plugin}-").partition("-")[0]
    return f"{pod['metadata']['namespace']}/{plugin}/{ordinal}"


def path_of(pod: dict[str, Any]) -> str:
    """Return a pod's path."""
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def now() -> str:
    """Return the time as the API has it."""
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status(phase: str, state: dict[str, Any], *, ready: bool = False) -> dict[str, Any]:
    container = {"name": "plugin", "state": state, "ready": ready, "restartCount": 0}
    return {"phase": phase, "containerStatuses": [container]}


def _state_of(status: dict[str, Any]) -> dict[str, Any]:
    statuses = status.get("containerStatuses") or [{}]
    return dict(statuses[0].get("state") or {})


def _unschedulable(message: str) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
