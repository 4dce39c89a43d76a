"""Plugins as pods of a Kubernetes cluster."""

from __future__ import annotations

from crucible.runtimes.kubernetes.cluster import Cluster
from crucible.runtimes.kubernetes.runtime import KubernetesRuntime
from crucible.runtimes.kubernetes.settings import KubernetesSettings

__all__ = ["Cluster", "KubernetesRuntime", "KubernetesSettings"]
