"""Says in words how well each control holds on a cluster. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crucible.model.enforcement import Capabilities, Control, Enforcement, Level
from crucible.model.manifest import PluginType
from crucible.model.volume import accesses

if TYPE_CHECKING:
    from crucible.runtimes.kubernetes.settings import KubernetesSettings

_HELD_BY: Final = {
    Control.NAMESPACES: "pid, network, mount, ipc, uts and cgroup namespaces of its pod",
    Control.ROOT_FS: "a read-only root file system",
    Control.PRIVILEGES: "no capabilities, no privilege escalation, no service account token",
    Control.CPU: "the pod's cpu limit",
    Control.MEMORY: "the pod's memory limit",
    Control.LISTEN: "a Service for the declared ports",
    Control.FILES: "claims of the plugin's own namespace alone, read-only unless granted for writing",
    Control.SECRETS: "volumes in memory that the kubelet fills, read-only; the operator may read no Secret",
    Control.SECRET_ENV: "references that the kubelet resolves; the pod's specification holds no value",
    Control.DISK: "sized volumes and the pod's ephemeral-storage limit: the kubelet evicts who goes over",
}
_NOT_HELD: Final = {
    Control.PIDS: "a pod cannot say how many processes it may have; what holds is podPidsLimit of the "
    "kubelet's configuration, the same for every pod of a node",
    Control.OPEN_FILES: "a pod cannot say how many files it may open; what holds is the container runtime's "
    "own RLIMIT_NOFILE",
}

_NO_BROKER: Final = "no broker runs in this cluster: install the chart with bus.enabled=true"
_BY_BROKER: Final = ("ping", "bus")
"""A kind of probe, and a way in which a configuration reaches what runs: the operator asks the broker."""

_KUBELET: Final = frozenset({"process", "http", "tcp", "exec", "grpc"})
"""Kinds of probe that the kubelet asks."""


def capabilities(settings: KubernetesSettings, unmetered: str = "") -> Capabilities:
    """Return what the core may count on.

    Args:
        settings: what is known of the cluster.
        unmetered: why it is not known what pods use; empty: it is.
    """
    judging, uncounted = ("resource", "custom"), "a cluster's metrics do not count it: leave it out"
    kinds = _KUBELET if unmetered else _KUBELET.union(judging)
    vm = {"vm"} if settings.vm_runtime_class else set()
    return Capabilities(
        runtime="kubernetes",
        types=frozenset(kind.value for kind in PluginType),
        isolation=frozenset({"process", "container", "language"} | vm),
        controls=tuple(_enforcement(control, settings) for control in Control),
        sources=frozenset({"inline", "image"}),
        volumes=accesses(settings.volumes),
        probes=kinds if settings.bus is None else kinds | {"ping"},
        deliveries=frozenset({"restart", "file"} if settings.bus is None else {"restart", "file", "bus"}),
        no_freezer="a pod cannot be frozen: Kubernetes has no way to; use 'crucible suspend'",
        asks=_KUBELET,
        usage=frozenset({"memory", "cpu"}),
        lacks=(
            *((name, _NO_BROKER) for name in _BY_BROKER if settings.bus is None),
            ("signal", "nobody but the kubelet can signal a pod's processes; write file, or restart"),
            *((kind, unmetered) for kind in judging if unmetered),
            *((figure, uncounted) for figure in ("pids", "throttled")),
        ),
    )


def _enforcement(control: Control, settings: KubernetesSettings) -> Enforcement:
    if control is Control.EGRESS:
        return _egress(settings)
    if control is Control.BUS:
        return _bus(settings)
    if control is Control.STORE:
        return _store(settings)
    if control in _NOT_HELD:
        return Enforcement(control, Level.DEGRADED, _NOT_HELD[control])
    if control is Control.NETWORK:
        return _network(settings)
    if control is Control.SYSCALLS:
        return Enforcement(control, Level.ENFORCED, _system_calls(settings))
    if control is Control.IDENTITY:
        vm = " or virtual machine" if settings.vm_runtime_class else ""
        where = f", in a user namespace of its pod{vm}" if settings.user_namespaces else ""
        return Enforcement(control, Level.ENFORCED, f"a user and group id of its own, not root{where}")
    return Enforcement(control, Level.ENFORCED, _HELD_BY[control])


def _system_calls(settings: KubernetesSettings) -> str:
    if settings.seccomp:
        return f"seccomp: the profile {settings.seccomp}, which the administrator says every node has"
    return (
        "seccomp: RuntimeDefault, the list of each node's container runtime, wider than that of the other "
        "runtimes; install ours on the nodes (`crucible seccomp --help`) for the same"
    )


def _egress(settings: KubernetesSettings) -> Enforcement:
    if settings.egress is None:
        return Enforcement(
            Control.EGRESS,
            Level.UNAVAILABLE,
            "no egress proxy runs in this cluster: install the chart with egress.enabled=true, or start the "
            "operator with --egress NAMESPACE/SERVICE",
        )
    if not settings.network_policies:
        return Enforcement(
            Control.EGRESS,
            Level.DEGRADED,
            f"the egress proxy {settings.egress} judges what comes to it, and nobody vouched that this "
            "cluster's network keeps plugins from going around it: start the operator with "
            "--network-policies=enforced where it does",
        )
    return Enforcement(
        Control.EGRESS,
        Level.ENFORCED,
        f"the egress proxy {settings.egress}, which knows a pod by its address; a NetworkPolicy leaves no "
        "other way out",
    )


def _bus(settings: KubernetesSettings) -> Enforcement:
    if settings.bus is None:
        return Enforcement(
            Control.BUS,
            Level.UNAVAILABLE,
            "no broker runs in this cluster: install the chart with bus.enabled=true, or start the operator "
            "with --bus NAMESPACE/SERVICE",
        )
    return Enforcement(
        Control.BUS,
        Level.ENFORCED,
        f"the broker {settings.bus}, which knows a pod by its address and judges every message; TLS 1.3",
    )


def _store(settings: KubernetesSettings) -> Enforcement:
    if settings.bus is None or not settings.stores:
        return Enforcement(
            Control.STORE,
            Level.UNAVAILABLE,
            "the broker has nowhere to keep it: install the chart with bus.enabled=true and "
            "bus.nats.enabled=true, or with bus.nats.url, a server of yours",
        )
    return Enforcement(
        Control.STORE, Level.ENFORCED, "the broker counts every byte before the backbone keeps it"
    )


def _network(settings: KubernetesSettings) -> Enforcement:
    if settings.network_policies:
        by = "a NetworkPolicy: out to what is behind granted doors alone, and in to the declared ports"
        return Enforcement(Control.NETWORK, Level.ENFORCED, by)
    return Enforcement(
        Control.NETWORK,
        Level.DEGRADED,
        "a NetworkPolicy denies everything but the declared ports, and nobody vouched that this cluster's "
        "network enforces such policies: start the operator with --network-policies=enforced where it does",
    )
