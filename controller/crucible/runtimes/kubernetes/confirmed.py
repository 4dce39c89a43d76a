"""Whether a pod is still who it was, by the API server's own word."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crucible.errors import CrucibleError, NotFound
from crucible.runtimes.kubernetes.tenants import addresses_of, tenant_of
from crucible.runtimes.kubernetes.upkeep import pod_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.core.egress import Address
    from crucible.model.door import Door
    from crucible.runtimes.kubernetes.cluster import Cluster
    from crucible.runtimes.kubernetes.tenants import Staff, Tenant

log = logging.getLogger(__name__)

FRESH: Final = 2.0
"""Seconds for which the API server's word that a pod is there, and has its address, is taken."""
_KNOWN: Final = 4096


@dataclass(slots=True)
class Confirmed:
    """Asks the API server itself whether a pod is still there: a watch may lag, and say nothing of it.

    Attributes:
        cluster: its API server.
        now: monotonic seconds.
        door: which pods want to come through.
        staff: whose pods may besides.
    """

    cluster: Cluster
    now: Callable[[], float]
    door: Door
    staff: Staff | None = None
    _asked: dict[str, tuple[float, asyncio.Task[frozenset[Address]]]] = field(default_factory=dict)

    async def addresses(self, tenant: Tenant) -> frozenset[Address]:
        """Return the addresses that the very pod has now; none where that cannot be said."""
        at, task = self._asked.get(tenant.uid, (-FRESH, None))
        if task is None or self.now() - at >= FRESH:
            if len(self._asked) >= _KNOWN:
                self._asked = {uid: one for uid, one in self._asked.items() if self.now() - one[0] < FRESH}
            task = asyncio.get_running_loop().create_task(self._ask(tenant))
            self._asked[tenant.uid] = (self.now(), task)
        return await asyncio.shield(task)

    async def _ask(self, tenant: Tenant) -> frozenset[Address]:
        try:
            pod = await self.cluster.get(pod_path(tenant.owner.namespace, tenant.pod))
        except NotFound:
            return frozenset()
        except CrucibleError as error:
            where = f"{tenant.owner.namespace}/{tenant.pod}"
            log.warning("%s: whose its connections are is not sure: %s", where, error)
            return frozenset()
        return addresses_of(pod) if tenant_of(pod, self.door, self.staff) == tenant else frozenset()
