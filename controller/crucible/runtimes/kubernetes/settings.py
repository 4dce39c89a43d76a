"""What an administrator says of a cluster, and what the cluster says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.model.door import Door

if TYPE_CHECKING:
    from crucible.model.volume import ClaimVolume
    from crucible.model.workload import Workload


@dataclass(frozen=True, slots=True)
class DoorService:
    """What is behind a door, in a cluster: the egress proxy or the broker, as plugins' pods reach it.

    Attributes:
        namespace: where it runs.
        name: of its Service.
        address: of its Service, which stays while that does; a pod can resolve no name.
        labels: that select its pods.
        port: of its Service and its pods, the same.
    """

    namespace: str
    name: str
    address: str
    labels: tuple[tuple[str, str], ...]
    port: int

    def __str__(self) -> str:
        """``namespace/name``, as ``--egress`` and ``--bus`` have it."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """How plugins become pods on one cluster.

    Attributes:
        images: prefix of the types' images: ``PREFIX/python:TAG``.
        tag: their tag.
        pull_policy: when nodes ask a registry, in Kubernetes' own words.
        pull_secret: name of a Secret in each namespace of plugins; empty: none.
        seccomp: a profile that every node has, relative to the kubelet's folder; ``{type}`` in it becomes the
            plugin's type; empty: the container runtime's default.
        user_namespaces: pods get a user namespace of their own.
        network_policies: somebody vouched that the cluster's network enforces NetworkPolicies.
        vm_runtime_class: the RuntimeClass for isolation ``vm``; empty: that isolation is not offered.
        priority_class: of every pod; empty: the cluster's default.
        volumes: claims that plugins may be granted, each in the namespace of whoever asks.
        egress: the proxy that lets plugins out; None: there is none, and nothing lets them out.
        bus: the broker; None: there is none, and no plugin is on the bus.
        stores: it has a backbone, which keeps plugins' stores.
        namespaces: the only ones looked at; empty: all.
    """

    images: str = "crucible"
    tag: str = "latest"
    pull_policy: str = "IfNotPresent"
    pull_secret: str = ""
    seccomp: str = ""
    user_namespaces: bool = False
    network_policies: bool = False
    vm_runtime_class: str = ""
    priority_class: str = ""
    namespaces: tuple[str, ...] = ()
    volumes: tuple[ClaimVolume, ...] = ()
    egress: DoorService | None = None
    bus: DoorService | None = None
    stores: bool = False

    @property
    def ways(self) -> dict[Door, DoorService]:
        """What is behind the doors that this cluster has."""
        found = {Door.EGRESS: self.egress, Door.BUS: self.bus}
        return {door: service for door, service in found.items() if service is not None}

    def ways_of(self, workload: Workload) -> dict[Door, DoorService]:
        """Return what is behind the doors of an instance: its manifest asks, and the cluster has it."""
        return {door: service for door, service in self.ways.items() if door in workload.doors}

    def seccomp_of(self, workload: Workload) -> str:
        """Return the profile of one workload; a whole image gets that of ``service``, as any program does."""
        return self.seccomp.replace("{type}", "service" if workload.image else workload.type)
