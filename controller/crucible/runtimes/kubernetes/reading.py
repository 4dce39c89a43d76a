"""Reads what a pod says of itself as an instance. Pure."""

from __future__ import annotations

from datetime import datetime
from signal import Signals
from typing import TYPE_CHECKING, Any, Final

from crucible.model.instance import Exit, Instance, State
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.compile import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.workload import Slot

_SIGNALLED: Final = 128
_LAST_SIGNAL: Final = 64
_MESSAGE: Final = 1024
_NEVER_RAN: Final = frozenset(
    {"StartError", "ContainerCannotRun", "ContainerStatusUnknown", "RunContainerError"}
)
_OUTSIDE: Final = {
    "Evicted": "was evicted by its node",
    "NodeLost": "was lost with its node",
    "NodeShutdown": "ended with its node's shutdown",
    "Terminated": "ended with its node's shutdown",
    "Shutdown": "ended with its node's shutdown",
    "Preempting": "made room for a pod of higher priority",
    "UnexpectedAdmissionError": "was refused by its node",
    "DeadlineExceeded": "ran into a deadline",
}
"""Reasons of a pod's status that come from outside of its plugin."""
_FIXES: Final = {
    "ErrImagePull": "the image cannot be pulled: check its name, the registry and --image-pull-secret",
    "ImagePullBackOff": "the image cannot be pulled: check its name, the registry and --image-pull-secret",
    "ErrImageNeverPull": "the image is not on the node, and --image-pull-policy is Never: load it there",
    "InvalidImageName": "the image's name is none: mend spec.source.image or --images",
    "CreateContainerConfigError": "a Secret that its variables are in, or a key of one, is missing: make it",
    "CreateContainerError": "the node cannot create the container",
    "RunContainerError": "the node cannot start the container",
    "Unschedulable": "no node has room for it: lower spec.resources, or add nodes",
    "SchedulingGated": "something holds back its scheduling: see the pod's schedulingGates",
}
"""What to do about a pod that does not start."""


def instance_of(pod: Mapping[str, Any], owner: marks.Owner, slot: Slot) -> Instance:
    """Return the instance that a pod of ours is."""
    meta = pod["metadata"]
    state, end = _state(pod), _exit(pod)
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    alive = state is not State.EXITED
    return Instance(
        plugin_uid=owner.uid,
        name=meta["name"],
        slot=slot,
        revision=labels.get(marks.REVISION, ""),
        state=state,
        created_at=unix_time(meta.get("creationTimestamp")),
        stopping_at=stopping_at(pod),
        exit=end,
        notices=_notices(pod) if state is State.STARTING else (),
        namespace=owner.namespace,
        plugin=owner.plugin,
        source=annotations.get(marks.SOURCE, ""),
        endpoints=_endpoints(pod, owner) if alive else (),
        ready=_ready(pod),
        config=annotations.get(marks.CONFIG, ""),
        reached=labels.get(marks.REACHED) != "no",
    )


def listens(pod: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ports that a pod's plugin may listen on."""
    containers = pod.get("spec", {}).get("containers") or [{}]
    return tuple(port["containerPort"] for port in containers[0].get("ports") or ())


def stopping_at(pod: Mapping[str, Any]) -> float | None:
    """Return when a pod was asked to end: its deletion's time is when it has to be over.

    One that is deleted without grace while it runs on a node is not asked: it is taken away.
    """
    meta = pod["metadata"]
    if "deletionTimestamp" not in meta:
        return None
    at_once = meta.get("deletionGracePeriodSeconds") == 0
    if at_once and pod.get("spec", {}).get("nodeName") and not _ended(pod):
        return None
    return unix_time(meta["deletionTimestamp"]) - float(meta.get("deletionGracePeriodSeconds") or 0)


def unix_time(text: object) -> float:
    """Return unix seconds for ``2026-01-31T09:30:00Z``; 0 for what is no time."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _state(pod: Mapping[str, Any]) -> State:
    if _ended(pod):
        return State.EXITED
    if "deletionTimestamp" in pod["metadata"]:
        return State.STOPPING
    return State.RUNNING if "running" in _container(pod) else State.STARTING


def _ended(pod: Mapping[str, Any]) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in {"Succeeded", "Failed"} or "terminated" in _container(pod)


def _container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of the plugin's container; empty before there is one."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == CONTAINER:
            state: Mapping[str, Any] = status.get("state") or {}
            return state
    return {}


def _ready(pod: Mapping[str, Any]) -> bool | None:
    """Return what the kubelet's probes came to; None where it does not say."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == CONTAINER and "ready" in status:
            return bool(status["ready"])
    return None


def _exit(pod: Mapping[str, Any]) -> Exit | None:
    if not _ended(pod):
        return None
    status, ended = (pod.get("status") or {}), _container(pod).get("terminated") or {}
    at = unix_time(ended.get("finishedAt")) or _last_change(pod)
    reason = str(status.get("reason") or "")
    if reason in _OUTSIDE or reason.startswith("OutOf") or _preempted(pod):
        return Exit(at=at, problem=_from_outside(pod, reason), lost=True)
    if not ended:
        why = status.get("message") or reason or "nobody saw its end"
        return Exit(at=at, problem=f"ended without a status: {why}"[:_MESSAGE], lost=True)
    if ended.get("reason") in _NEVER_RAN:
        why = ended.get("message") or ended["reason"]
        return Exit(at=at, problem=f"could not be started: {why}"[:_MESSAGE])
    return _of_code(int(ended.get("exitCode", 0)), at, ended)


def _of_code(code: int, at: float, ended: Mapping[str, Any]) -> Exit:
    """Return how a program ended; a signal shows as 128 and its number."""
    number = int(ended.get("signal") or 0) or code - _SIGNALLED
    oom = ended.get("reason") == "OOMKilled"
    if oom or (0 < number <= _LAST_SIGNAL and number in set(Signals)):
        return Exit(at=at, signal=number if 0 < number <= _LAST_SIGNAL else Signals.SIGKILL, oom=oom)
    return Exit(at=at, code=code)


def _preempted(pod: Mapping[str, Any]) -> bool:
    return any(
        condition.get("type") == "DisruptionTarget"
        and condition.get("status") == "True"
        and condition.get("reason") == "PreemptionByScheduler"
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )


def _from_outside(pod: Mapping[str, Any], reason: str) -> str:
    message = str(pod["status"].get("message") or "")
    word = "Preempting" if _preempted(pod) else reason
    what = _OUTSIDE.get(word, f"was refused by its node ({reason})")
    return (f"{what}: {message}" if message else what)[:_MESSAGE]


def _last_change(pod: Mapping[str, Any]) -> float:
    times = [
        unix_time(condition.get("lastTransitionTime"))
        for condition in (pod.get("status") or {}).get("conditions") or ()
    ]
    return max([*times, unix_time(pod["metadata"].get("creationTimestamp"))])


def _notices(pod: Mapping[str, Any]) -> tuple[str, ...]:
    """Say why a pod does not start, and the fix."""
    waiting = _container(pod).get("waiting") or {}
    if waiting.get("reason") in _FIXES:
        return (_notice(waiting["reason"], waiting.get("message")),)
    for condition in (pod.get("status") or {}).get("conditions") or ():
        held = condition.get("type") == "PodScheduled" and condition.get("status") == "False"
        if held and condition.get("reason") in _FIXES:
            return (_notice(condition["reason"], condition.get("message")),)
    waits = _waits_for_secrets(pod)
    return (waits,) if waits else ()


def _waits_for_secrets(pod: Mapping[str, Any]) -> str:
    """Say that a node mounts a pod's Secrets, which lasts for as long as one is missing; empty otherwise."""
    named = [
        volume["secret"].get("secretName", "")
        for volume in pod.get("spec", {}).get("volumes") or ()
        if "secret" in volume
    ]
    conditions = {
        each.get("type"): each.get("status") for each in (pod.get("status") or {}).get("conditions") or ()
    }
    placed, mounted = conditions.get("PodScheduled"), conditions.get("PodReadyToStartContainers")
    if not named or placed != "True" or mounted != "False":
        return ""
    return (
        f"SecretMissing: its node waits until Secret {', '.join(named)} is in namespace "
        f"{pod['metadata'].get('namespace', '')}: make what is missing; it then starts by itself"
    )[:_MESSAGE]


def _notice(reason: str, message: object) -> str:
    return f"{reason}: {_FIXES[reason]} ({message})"[:_MESSAGE] if message else f"{reason}: {_FIXES[reason]}"


def _endpoints(pod: Mapping[str, Any], owner: marks.Owner) -> tuple[str, ...]:
    host = f"{marks.service_name(owner)}.{owner.namespace}.svc"
    return tuple(f"{port} at {host}:{port}" for port in listens(pod))
