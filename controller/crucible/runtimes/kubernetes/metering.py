"""What pods use, as the cluster's metrics API tells it: cores lately and bytes now, and no more."""

from __future__ import annotations

import asyncio
import logging
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from crucible.errors import CrucibleError, NotFound, Unavailable
from crucible.model.usage import Usage
from crucible.runtimes.kubernetes.compile import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crucible.runtimes.kubernetes.cluster import Cluster

_API: Final = "/apis/metrics.k8s.io/v1beta1"
_FRESH: Final = 5.0
"""Seconds for which an answer serves: a metrics server looks every 15 by itself."""
_LOOK: Final = 60.0
"""Seconds between two looks whether there is a metrics API, while there is none."""
_NOBODY: Final = "crucible-nobody"
_ABSENT: Final = "the cluster serves no metrics.k8s.io: install metrics-server"
_UNIT: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}

log = logging.getLogger(__name__)


class Metering:
    """Asks the metrics API of one cluster, each pod once in a while however often it is wanted."""

    def __init__(self, cluster: Cluster, namespaces: tuple[str, ...], now: Callable[[], float]) -> None:
        """Ask nothing yet.

        Args:
            cluster: its API server.
            namespaces: the only ones that may be asked about; none: all.
            now: unix seconds.
        """
        self.lack = _ABSENT  # empty, once there is one
        self._cluster = cluster
        self._place = (namespaces or ("default",))[0]
        self._now = now
        self._known: dict[str, Usage] = {}

    async def look(self) -> None:
        """See whether there is a metrics API that answers to us; ``lack`` says why not."""
        try:
            await self._cluster.get(_API)
            await self._cluster.get(_path(self._place, _NOBODY))
        except NotFound as error:
            self.lack = "" if _NOBODY in str(error) else _ABSENT
        except CrucibleError as error:
            if error.retry:
                self.lack = "the cluster's metrics API does not answer: look at its metrics-server"
            else:
                self.lack = f"the operator may not read metrics: {error}; see the chart's rbac"
        else:
            self.lack = ""

    async def run(self, changed: Callable[[], None]) -> None:
        """Go on looking until there is one; one that goes away later is an outage, and refuses nobody."""
        while True:
            await asyncio.sleep(_LOOK)
            if self.lack:
                await self.look()
                if not self.lack:
                    log.info("what pods use is known from the cluster's metrics API now")
                    changed()

    async def usage(self, namespace: str, name: str) -> Usage:
        """Return what a pod uses.

        Raises:
            Unavailable: nobody has looked at it yet, or nobody answers.
        """
        key, now = f"{namespace}/{name}", self._now()
        found = self._known.get(key)
        if found is None or not 0 <= now - found.at < _FRESH:
            self._known = {each: known for each, known in self._known.items() if 0 <= now - known.at < _FRESH}
            try:
                found = usage_of(await self._cluster.get(_path(namespace, name)), now)
            except NotFound as error:
                raise Unavailable(f"no metrics of {name} yet") from error
            except CrucibleError as error:
                raise Unavailable(f"no metrics of {name}: {error}") from error
            self._known[key] = found
        return found


def usage_of(metrics: Mapping[str, Any], now: float) -> Usage:
    """Return what PodMetrics say of the plugin's container.

    Raises:
        Unavailable: nothing that can be read.
    """
    used = next((each["usage"] for each in metrics["containers"] if each["name"] == CONTAINER), None)
    if used is None:
        raise Unavailable("the metrics do not speak of the plugin's container")
    try:
        cores, memory = float(amount(used["cpu"])), int(amount(used["memory"]))
    except (KeyError, ValueError) as error:
        raise Unavailable(f"the metrics cannot be read: {error}") from error
    return Usage(at=now, cpu=0.0, memory=memory, memory_peak=None, pids=0, throttled=0.0, cores=cores)


def amount(text: str) -> Decimal:
    """Return a quantity of Kubernetes, as metrics write it: ``3476104n``, ``25392Ki``, ``0``.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)([numkMGT]?|[KMGT]i)", text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found[1]) * _UNIT[found[2]]


def _path(namespace: str, name: str) -> str:
    return f"{_API}/namespaces/{namespace}/pods/{name}"
