"""Instances as the Pods that kubectl knows: listed, described, their output read. Never written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from crucible.control.rates import Rates
from crucible.errors import NotFound
from crucible.model import names
from crucible.model.instance import State
from crucible.model.status import format_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from crucible.control.apiserver import LogOptions
    from crucible.model.instance import Instance
    from crucible.runtimes.base import ExecSession, LogLine, Runtime


class RuntimePods:
    """Shows a runtime's instances to the API server."""

    def __init__(self, runtime: Runtime, now: Callable[[], float] = time.time) -> None:
        self._runtime = runtime
        self._now = now
        self.rates = Rates(runtime)
        self._changed: Callable[[], None] | None = None

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call this whenever the list would be another."""
        self._changed = changed

    def tell(self) -> None:
        """Say that an instance changed."""
        if self._changed is not None:
            self._changed()

    def list(self) -> Sequence[dict[str, Any]]:
        """Return every instance as a Pod."""
        return [
            pod_of(instance, self._runtime.capabilities.runtime) for instance in self._runtime.instances()
        ]

    def logs(self, namespace: str, name: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Yield an instance's output.

        Raises:
            NotFound: no such instance.
        """
        instance = self._find(namespace, name)
        at_least = _begin(options, self._now())
        if options.previous:
            instance = self._before(instance)
        lines = self._runtime.logs(
            instance.plugin_uid, instance.slot, tail=options.tail, follow=options.follow
        )
        # As the kubelet has it: the tail is of all there is, and of that what is young enough.
        return (_shown(line, timestamps=options.timestamps) async for line in lines if line.at >= at_least)

    async def exec(
        self, namespace: str, name: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Run a command inside an instance.

        Raises:
            NotFound: no such instance.
            Conflict: it does not run.
            Unsupported: its runtime cannot.
        """
        instance = self._find(namespace, name)
        return await self._runtime.exec(instance.plugin_uid, instance.slot, command, stdin=stdin, tty=tty)

    async def metrics(self, namespace: str, name: str) -> Sequence[dict[str, Any]]:
        """Return what running instances use; an empty namespace or name stands for all."""
        return await self.rates.of(
            instance
            for instance in self._runtime.instances()
            if namespace in {"", instance.namespace} and name in {"", instance.name}
        )

    def _find(self, namespace: str, name: str) -> Instance:
        for instance in self._runtime.instances():
            if (instance.namespace, instance.name) == (namespace, name):
                return instance
        raise NotFound(f'pods "{name}" not found')

    def _before(self, instance: Instance) -> Instance:
        """Return the instance that served the same replica before."""
        earlier = [
            other
            for other in self._runtime.instances(instance.plugin_uid)
            if other.slot.ordinal == instance.slot.ordinal and other.slot.attempt < instance.slot.attempt
        ]
        if not earlier:
            raise NotFound(f"nothing is kept of an instance before {instance.name}")
        return max(earlier, key=lambda other: other.slot.attempt)


def _begin(options: LogOptions, now: float) -> float:
    """Return the time of the oldest line asked for."""
    if options.since_time is not None:
        return options.since_time
    return 0 if options.since is None else now - options.since


def _shown(line: LogLine, *, timestamps: bool) -> bytes:
    """Return a line as it is sent; its time is written as the kubelet writes it, in UTC."""
    if not timestamps:
        return line.text + b"\n"
    return f"{format_time(line.at)[:-1]}000Z ".encode() + line.text + b"\n"


def pod_of(instance: Instance, runtime: str) -> dict[str, Any]:
    """Return one instance as a Pod that says what it is and how it is."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": instance.name,
            "namespace": instance.namespace,
            "creationTimestamp": format_time(instance.created_at)[:19] + "Z",
            "labels": {
                f"{names.GROUP}/plugin": instance.plugin,
                f"{names.GROUP}/ordinal": str(instance.slot.ordinal),
                f"{names.GROUP}/revision": instance.revision,
            },
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": instance.plugin,
                    "uid": instance.plugin_uid,
                    "controller": True,
                }
            ],
        },
        "spec": {"containers": [{"name": "plugin", "image": instance.source}], "nodeName": runtime},
        "status": _pod_status(instance),
    }


def _pod_status(instance: Instance) -> dict[str, Any]:
    ready = instance.state is State.RUNNING
    moment = format_time(instance.created_at)[:19] + "Z"
    return {
        "phase": _phase(instance),
        "startTime": moment,
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [
            {
                "name": "plugin",
                "image": instance.source,
                "imageID": instance.source,
                "ready": ready,
                "restartCount": 0,
                "state": _state(instance, moment),
            }
        ],
    }


def _phase(instance: Instance) -> str:
    match instance.state:
        case State.STARTING:
            return "Pending"
        case State.RUNNING | State.STOPPING:
            return "Running"
        case State.EXITED:
            return "Succeeded" if instance.exit is not None and instance.exit.code == 0 else "Failed"


def _state(instance: Instance, moment: str) -> dict[str, Any]:
    if instance.exit is None:
        if instance.state is State.STARTING:
            return {"waiting": {"reason": "Starting"}}
        return {"running": {"startedAt": moment}}
    end = instance.exit
    return {
        "terminated": {
            "exitCode": end.code if end.code is not None else 128 + (end.signal or 0),
            "reason": end.reason,
            "message": str(end),
            "startedAt": moment,
            "finishedAt": format_time(end.at)[:19] + "Z",
        }
    }
