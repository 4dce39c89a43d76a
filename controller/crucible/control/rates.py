"""What instances use by the second, as PodMetrics: the difference of two looks at what they used so far."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from crucible.model import names
from crucible.model.status import format_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from crucible.model.instance import Instance
    from crucible.model.usage import Traffic, Usage
    from crucible.model.workload import Slot
    from crucible.runtimes.base import Runtime

_LEAST: Final = 1.0
"""Seconds between two looks: less says too little."""
_MOST: Final = 60.0
"""Seconds after which a look is too old to tell how it is now."""


class Rates:
    """Looks when asked. What it saw last serves the next who asks; nothing is looked at in between."""

    def __init__(self, runtime: Runtime, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._runtime = runtime
        self._pause = pause
        self._seen: dict[tuple[str, Slot], Usage] = {}
        self.traffic: Callable[[], Awaitable[Mapping[str, Traffic]]] = _none
        """Tells what went through the egress proxy, by Plugin."""

    async def of(self, instances: Iterable[Instance]) -> list[dict[str, Any]]:
        """Return PodMetrics of those that run and whose usage the host can say; may take a second."""
        wanted = [instance for instance in instances if instance.alive]
        now = await self._look(wanted)
        before = {key: self._seen.get(key) for key in now}
        if not all(_serves(before[key], usage) for key, usage in now.items()):
            await self._pause(_LEAST)
            before, now = dict(now), await self._look(wanted)
        self._remember(now)
        traffic = await self.traffic()
        return [
            metrics_of(instance, earlier, usage, traffic.get(instance.plugin_uid))
            for instance in wanted
            if (usage := now.get(_key(instance))) and (earlier := before.get(_key(instance)))
        ]

    async def _look(self, instances: list[Instance]) -> dict[tuple[str, Slot], Usage]:
        found = await asyncio.gather(*(self._runtime.usage(*_key(instance)) for instance in instances))
        return {_key(instance): usage for instance, usage in zip(instances, found, strict=True) if usage}

    def _remember(self, now: dict[tuple[str, Slot], Usage]) -> None:
        alive = {_key(instance) for instance in self._runtime.instances() if instance.alive}
        kept = {key: usage for key, usage in self._seen.items() if key in alive}
        self._seen = kept | now


async def _none() -> Mapping[str, Traffic]:
    return {}


def metrics_of(
    instance: Instance, before: Usage, after: Usage, traffic: Traffic | None = None
) -> dict[str, Any]:
    """Return one instance's PodMetrics; beside cpu and memory it says what else is counted."""
    window = after.at - before.at
    rate = (after.cpu - before.cpu) / window if window > 0 else 0.0
    usage = {
        "cpu": f"{max(round(rate * 1e9), 0)}n",
        "memory": f"{after.memory >> 10}Ki",
        f"{names.GROUP}/cpu-seconds": f"{round(after.cpu * 1000)}m",
        f"{names.GROUP}/throttled-seconds": f"{round(after.throttled * 1000)}m",
        f"{names.GROUP}/pids": str(after.pids),
    }
    if after.disk is not None:
        usage[f"{names.GROUP}/disk"] = f"{-(-after.disk // 1024)}Ki"
    if after.memory_peak is not None:
        usage[f"{names.GROUP}/memory-peak"] = f"{after.memory_peak >> 10}Ki"
    return {
        "apiVersion": "metrics.k8s.io/v1beta1",
        "kind": "PodMetrics",
        "metadata": {
            "name": instance.name,
            "namespace": instance.namespace,
            "creationTimestamp": format_time(after.at)[:19] + "Z",
            "labels": {
                f"{names.GROUP}/plugin": instance.plugin,
                f"{names.GROUP}/ordinal": str(instance.slot.ordinal),
            },
            **({"annotations": {names.EGRESS: json.dumps(asdict(traffic))}} if traffic else {}),
        },
        "timestamp": format_time(after.at)[:19] + "Z",
        "window": f"{window:.3f}s",
        "containers": [{"name": "plugin", "usage": usage}],
    }


def _key(instance: Instance) -> tuple[str, Slot]:
    return instance.plugin_uid, instance.slot


def _serves(earlier: Usage | None, now: Usage) -> bool:
    return earlier is not None and _LEAST <= now.at - earlier.at <= _MOST
