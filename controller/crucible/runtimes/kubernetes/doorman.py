"""Knows whose pod has an address, for whoever serves all pods of a cluster at one port."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible.core.egress import plainly
from crucible.model import names
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.confirmed import Confirmed
from crucible.runtimes.kubernetes.reflector import Reflector
from crucible.runtimes.kubernetes.tenants import Tenants
from crucible.runtimes.kubernetes.upkeep import collection

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

    from crucible.core.egress import Address
    from crucible.model.door import Door
    from crucible.runtimes.kubernetes.cluster import Cluster
    from crucible.runtimes.kubernetes.tenants import Staff, Tenant

log = logging.getLogger(__name__)

_LOOK: Final = 0.5
_WAITING_ALL: Final = 256
_WAITING_EACH: Final = 16


class House(Protocol):
    """Whom pods come to."""

    def leave(self, place: str) -> None:
        """Cut off a pod, by its uid: an address is not its own any more."""

    def told(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Take in that a Plugin came, changed or went."""


class Doorman:
    """Says who somebody is by its address, as long as the cluster can be asked; nobody otherwise."""

    def __init__(  # noqa: PLR0913 - all that it knows pods by
        self,
        cluster: Cluster,
        door: Door,
        house: House,
        namespaces: Collection[str],
        wait: float,
        *,
        staff: Staff | None = None,
    ) -> None:
        """Begin with nobody.

        Args:
            cluster: its API server.
            door: what pods come for.
            house: whom they come to.
            namespaces: the only ones looked at; none: all.
            wait: seconds in which the cluster may still say whose a connection is.
            staff: the operator's pods, where they may come too.
        """
        self._wait = wait
        self._house = house
        self._tenants = Tenants(door, staff)
        self._plugins: set[marks.Owner] = set() if staff is None else {staff.owner}
        self._confirmed = Confirmed(cluster, time.monotonic, door, staff)
        self._changed = asyncio.Event()
        self._waiting: Counter[Address] = Counter()
        places = tuple(namespaces) or ("",)
        root = f"/apis/{names.API_VERSION}"
        self._followed = [
            *(
                Reflector(cluster, collection("/api/v1", "pods", each), marks.SELECTOR, self.pod)
                for each in places
            ),
            *(Reflector(cluster, collection(root, names.PLURAL, each), "", self.plugin) for each in places),
        ]
        self._staff = () if staff is None else (self._follow(cluster, staff),)

    def _follow(self, cluster: Cluster, staff: Staff) -> Reflector:
        path = collection("/api/v1", "pods", staff.namespace)
        return Reflector(cluster, path, f"{marks.OPERATOR}=true", self.pod)

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Return what has to go on, until cancelled."""
        return [each.run(lambda: None) for each in (*self._followed, *self._staff)]

    @property
    def unready(self) -> str:
        """Why no pod of a plugin should connect now: who cannot be known is not let through."""
        return next((each.problem for each in self._followed if each.problem), "")

    def pod(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Take in that a pod came, changed or went."""
        for place in self._tenants.told(before, after):
            self._house.leave(place)
        self._wake()

    def plugin(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Take in that a Plugin came, changed or went."""
        gone = owner_at(before) if before is not None else None
        here = owner_at(after) if after is not None else None
        if gone is not None and gone != here:
            self._plugins.discard(gone)
        if here is not None:
            self._plugins.add(here)
        self._house.told(before, after)
        if after is not None:
            after["spec"] = {}  # of all that a Plugin says, its sources among it, nothing more is of use here
        self._wake()

    async def who(self, address: Address) -> Tenant | None:
        """Return who has an address now, as the API server says; None where that stays unknown.

        A socket of both families calls an IPv4 address by an IPv6 one; pods say the one they have.
        """
        address = plainly(address)
        if self._known(address) is not None:
            return await self._sure(address)
        if self._waiting[address] >= _WAITING_EACH or self._waiting.total() >= _WAITING_ALL:
            return None
        self._waiting[address] += 1
        try:
            return await self._sure(address)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    async def _sure(self, address: Address) -> Tenant | None:
        try:
            async with asyncio.timeout(self._wait):
                while True:
                    tenant = self._known(address)
                    sure = tenant is not None and address in await self._confirmed.addresses(tenant)
                    if tenant is not None and sure and self._known(address) == tenant:
                        return tenant
                    await self._change()
        except TimeoutError:
            log.warning(
                "a connection from %s was refused: no pod of a plugin that may come is known to have it; "
                "where one has, the cluster's network hides the addresses of pods",
                address,
            )
            return None

    def _known(self, address: Address) -> Tenant | None:
        tenant = self._tenants.who(address)
        return tenant if tenant is not None and tenant.owner in self._plugins else None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        """Wait until something was told, or for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await self._changed.wait()


def owner_at(plugin: dict[str, Any]) -> marks.Owner:
    """Return a Plugin as what it owns names it."""
    meta = plugin["metadata"]
    return marks.Owner(meta["namespace"], meta["name"], meta["uid"])
