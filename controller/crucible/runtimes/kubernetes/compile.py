"""Compiles a workload into a pod that satisfies Pod Security ``restricted``. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from crucible.core.doors import bus_variables, proxy_variables
from crucible.core.guest import host_flags
from crucible.core.scratch import scratch_sizes
from crucible.model.door import Door
from crucible.model.workload import config_digest
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.volumes import (
    AUTHORITY,
    CONFIG,
    LOG_ROOM,
    SOURCE,
    TMP,
    claims_of,
    mounts,
    volumes,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from crucible.model.probe import Probe
    from crucible.model.workload import Limits, Slot, Workload
    from crucible.runtimes.kubernetes.settings import KubernetesSettings

CONTAINER = "plugin"
_PROBES: Final = {"startup": "startupProbe", "ready": "readinessProbe", "live": "livenessProbe"}


def pod(
    workload: Workload, slot: Slot, settings: KubernetesSettings, config: str, paths: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the pod of one instance.

    Args:
        workload: what it runs.
        slot: which instance it is.
        settings: of the cluster.
        config: name of the ConfigMap with its configuration and files.
        paths: the plugin's files; empty for a whole image.
    """
    owner = marks.owner_of_workload(workload)
    ways = settings.ways_of(workload)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": marks.pod_name(owner, slot),
            "namespace": owner.namespace,
            "labels": marks.pod_labels(owner, slot.ordinal, workload.revision, ways),
            "annotations": {
                marks.SOURCE: workload.source,
                marks.FILES: config,
                **({marks.CONFIG: config_digest(workload.config)} if workload.live_config else {}),
            },
            "ownerReferences": [owner.reference],
        },
        "spec": {
            "containers": [_container(workload, slot, settings, source=bool(paths))],
            "volumes": volumes(workload, settings, config, paths, marks.pod_name(owner, slot)),
            "restartPolicy": "Never",  # restarts are the controller's
            "terminationGracePeriodSeconds": _grace(workload),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostNetwork": False,
            "hostPID": False,
            "hostIPC": False,
            "shareProcessNamespace": False,
            "securityContext": _pod_security(workload, settings),
            "topologySpreadConstraints": _spread(owner),
            **_offered(workload, settings),
        },
    }


def _container(
    workload: Workload, slot: Slot, settings: KubernetesSettings, *, source: bool
) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": workload.image or f"{settings.images}/{workload.type}:{settings.tag}",
        "imagePullPolicy": settings.pull_policy,
        **_command(workload, source=source),
        "env": _variables(workload, slot, settings.ways_of(workload)),
        "ports": [{"containerPort": port, "protocol": "TCP"} for port in workload.listen],
        "resources": _resources(workload.limits),
        **{_PROBES[name]: found for name, probe in workload.probes if (found := kubelet_probe(probe))},
        "volumeMounts": mounts(workload, settings, source=source),
        "securityContext": {
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **_lifecycle(workload),
        "terminationMessagePolicy": "File",
        "stdin": False,
        "tty": False,
    }


def _grace(workload: Workload) -> int:
    """Return the seconds from the request to end until the end; the kubelet counts the hook's among them."""
    hook = workload.pre_stop.timeout if workload.pre_stop is not None else 0.0
    return max(round(workload.grace + hook), 1)


def _lifecycle(workload: Workload) -> dict[str, Any]:
    if workload.pre_stop is None:
        return {}
    return {"lifecycle": {"preStop": {"exec": {"command": list(workload.pre_stop.command)}}}}


def kubelet_probe(probe: Probe) -> dict[str, Any]:
    """Return a probe in the kubelet's words; empty for one that asks only whether the instance runs.

    The kubelet counts in whole seconds, so times are rounded up.
    """
    if probe.http is not None:
        asked: dict[str, Any] = {"httpGet": {**probe.http.model_dump(), "scheme": "HTTP"}}
    elif probe.tcp is not None:
        asked = {"tcpSocket": probe.tcp.model_dump()}
    elif probe.grpc is not None:
        asked = {"grpc": probe.grpc.model_dump()}
    elif probe.exec is not None:
        asked = {"exec": {"command": list(probe.exec.command)}}
    else:
        return {}
    return {
        **asked,
        "periodSeconds": math.ceil(probe.interval),
        "timeoutSeconds": math.ceil(probe.timeout),
        "failureThreshold": probe.failures,
        "successThreshold": probe.successes,
        "initialDelaySeconds": math.ceil(probe.initial),
    }


def _command(workload: Workload, *, source: bool) -> dict[str, Any]:
    """Name program and arguments.

    A type's image starts its interpreter itself: its entrypoint is the words before the program, which only
    the image knows. A whole image keeps its own entrypoint unless the manifest names another.
    """
    if source:
        program = f"{SOURCE}/{workload.entrypoint[0]}"
        words = [*host_flags(workload), program, *workload.entrypoint[1:]]
        return {"args": [_plain(word) for word in words], "workingDir": SOURCE}
    return {"command": [_plain(word) for word in workload.entrypoint]} if workload.entrypoint else {}


def _plain(text: str) -> str:
    """Return a text that the kubelet turns into this one: it expands ``$(NAME)``, and ``$$`` to ``$``."""
    return text.replace("$", "$$")


def _variables(workload: Workload, slot: Slot, ways: Collection[Door]) -> list[dict[str, Any]]:
    """Return the variables of a pod; of those from Secrets it says where the kubelet finds them, no more."""
    hidden = {variable.name for variable in workload.secret_env}
    plain = [
        {"name": name, "value": _plain(value)}
        for name, value in _environment(workload, slot, ways)
        if name not in hidden
    ]
    return plain + [
        {
            "name": variable.name,
            "valueFrom": {"secretKeyRef": {"name": variable.secret, "key": variable.key, "optional": False}},
        }
        for variable in workload.secret_env
    ]


def _environment(workload: Workload, slot: Slot, ways: Collection[Door]) -> tuple[tuple[str, str], ...]:
    """Return every variable that is set; the manifest's own come last and so prevail."""
    owner = marks.owner_of_workload(workload)
    files = () if workload.image else (("CRUCIBLE_SOURCE", SOURCE),)
    usual = () if workload.image else (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"))
    given = (
        *usual,
        ("HOME", TMP),
        ("CRUCIBLE_PLUGIN", workload.plugin),
        ("CRUCIBLE_NAMESPACE", workload.namespace),
        ("CRUCIBLE_INSTANCE", marks.pod_name(owner, slot)),
        ("CRUCIBLE_CONFIG", CONFIG),
        *files,
        *(proxy_variables(Door.EGRESS) if Door.EGRESS in ways else ()),
        *(bus_variables(Door.BUS, AUTHORITY) if Door.BUS in ways else ()),
        *workload.env,
    )
    return tuple(dict(given).items())


def _resources(limits: Limits) -> dict[str, Any]:
    """Return limits, and requests that are the same: what is promised is there, and not more."""
    scratch, _ = scratch_sizes(limits)
    amounts = {
        "cpu": f"{limits.cpu}m",
        "memory": str(limits.memory),
        "ephemeral-storage": str(scratch + LOG_ROOM),
    }
    return {"limits": amounts, "requests": dict(amounts)}


def _pod_security(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    user = marks.user_of(workload.plugin_uid, user_namespaces=_users_of_its_own(workload, settings))
    profile = (
        {"type": "Localhost", "localhostProfile": settings.seccomp_of(workload)}
        if settings.seccomp
        else {"type": "RuntimeDefault"}
    )
    groups = {claim.group for _, claim in claims_of(workload, settings) if claim.group is not None}
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "seccompProfile": profile,
        **({"supplementalGroups": sorted(groups)} if groups else {}),
    }


def _spread(owner: marks.Owner) -> list[dict[str, Any]]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": place,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": marks.select(owner)},
        }
        for place in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def _users_of_its_own(workload: Workload, settings: KubernetesSettings) -> bool:
    """Whether a pod gets a user namespace: a virtual machine has users of its own, and its runtime none."""
    return settings.user_namespaces and workload.isolation != "vm"


def _offered(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    """Return what only some clusters have."""
    found: dict[str, Any] = {}
    ways = settings.ways_of(workload)
    if ways:  # no name can be resolved inside
        found["hostAliases"] = [{"ip": way.address, "hostnames": [str(door)]} for door, way in ways.items()]
    if _users_of_its_own(workload, settings):
        found["hostUsers"] = False
    if workload.isolation == "vm":
        found["runtimeClassName"] = settings.vm_runtime_class
    if settings.priority_class:
        found["priorityClassName"] = settings.priority_class
    if settings.pull_secret:
        found["imagePullSecrets"] = [{"name": settings.pull_secret}]
    return found
