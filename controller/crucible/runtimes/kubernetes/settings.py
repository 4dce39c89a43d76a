"""What an administrator says of a cluster, and what the cluster says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crucible.model.volume import ClaimVolume
    from crucible.model.workload import Workload


@dataclass(frozen=True, slots=True)
class EgressService:
    """The egress proxy of a cluster, as plugins' pods reach it.

    Attributes:
        namespace: where it runs.
        name: of its Service.
        address: of its Service, which stays while that does; a pod can resolve no name.
        labels: that select the proxy's pods.
    """

    namespace: str
    name: str
    address: str
    labels: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """``namespace/name``, as ``--egress`` has it."""
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
    egress: EgressService | None = None

    def seccomp_of(self, workload: Workload) -> str:
        """Return the profile of one workload; a whole image gets that of ``service``, as any program does."""
        return self.seccomp.replace("{type}", "service" if workload.image else workload.type)
