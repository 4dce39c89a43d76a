"""Who is behind a pod's address: what the egress proxy and the broker of a cluster know of it.

A pod is known at a door only while all of this is so: its owner is the Plugin of that uid, its name is a slot
of that Plugin, it was made to reach what is behind that door, it has a network of its own, it has not ended,
and no other such pod has its address. Everyone else is nobody, and nobody gets in. The broker knows the
operator by its address too: its pod is in that namespace, runs as that service account, and bears the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from crucible.core.admission import admit
from crucible.core.egress import Grant, grant_of, plainly, read_grant
from crucible.errors import InvalidManifest
from crucible.model.bus import CONTROLLER
from crucible.model.plugin import read_identity
from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.core.egress import Address
    from crucible.model.door import Door

_OVER: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Tenant:
    """One pod of a Plugin.

    Attributes:
        owner: the Plugin.
        pod: the pod's name.
        uid: the pod's uid: another pod of the same name is another tenant.
    """

    owner: marks.Owner
    pod: str
    uid: str


@dataclass(frozen=True, slots=True)
class Staff:
    """The pods of the operator: whoever may make one there has all of the operator's rights already.

    Attributes:
        namespace: where they are.
        account: the service account that they run as.
    """

    namespace: str
    account: str

    @property
    def owner(self) -> marks.Owner:
        """What stands where a Plugin would; no Plugin can be called so."""
        return marks.Owner(self.namespace, CONTROLLER, CONTROLLER)


class Tenants:
    """The pods of plugins by their addresses. Fed by whoever follows the cluster's pods.

    A pod that may not come through this door claims its address too: it is one more that has it.
    """

    def __init__(self, door: Door, staff: Staff | None = None) -> None:
        """Begin with nobody at a door, through which the operator may come or may not."""
        self._door, self._staff = door, staff
        self._claims: dict[Address, dict[str, Tenant | None]] = {}

    def told(self, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> frozenset[str]:
        """Take in that a pod came, changed or went; return the uids of those who lost an address by that."""
        left, kept = _claimed(before), _claimed(after)
        had = {address: self.who(address) for address in left | kept}
        for address in left:
            claims = self._claims.get(address, {})
            claims.pop((before or {})["metadata"]["uid"], None)
            if not claims:
                self._claims.pop(address, None)
        for address in kept:
            found = after or {}
            tenant = tenant_of(found, self._door, self._staff)
            self._claims.setdefault(address, {})[found["metadata"]["uid"]] = tenant
        return frozenset(
            tenant.uid
            for address, tenant in had.items()
            if tenant is not None and self.who(address) != tenant
        )

    def who(self, address: Address) -> Tenant | None:
        """Return the one pod that has an address; one that several claim changes hands, and is nobody's."""
        claims = self._claims.get(plainly(address), {})
        return next(iter(claims.values())) if len(claims) == 1 else None


def tenant_of(pod: Mapping[str, Any], door: Door, staff: Staff | None = None) -> Tenant | None:
    """Return whose a pod is that may come through a door; None for any other, and for one that has ended."""
    owner, meta = marks.owner_of(pod), pod["metadata"]
    if pod["spec"].get("hostNetwork") or _is_over(pod):
        return None
    if staff is not None and owner is None and _is_staff(pod, staff):
        return Tenant(staff.owner, meta["name"], meta["uid"])
    if owner is None or marks.slot_of(pod) is None or door not in marks.doors_of(pod):
        return None
    return Tenant(owner, meta["name"], meta["uid"])


def _is_staff(pod: Mapping[str, Any], staff: Staff) -> bool:
    meta = pod["metadata"]
    labelled = (meta.get("labels") or {}).get(marks.OPERATOR) == "true"
    account = pod["spec"].get("serviceAccountName")
    return labelled and meta.get("namespace") == staff.namespace and account == staff.account


def addresses_of(pod: Mapping[str, Any]) -> frozenset[Address]:
    """Return the addresses that a pod's status names."""
    status = pod.get("status") or {}
    texts = [*(each.get("ip") for each in status.get("podIPs") or ()), status.get("podIP")]
    found = set()
    for text in filter(None, texts):
        try:
            found.add(plainly(ip_address(text)))
        except ValueError:
            continue
    return frozenset(found)


def _claimed(pod: Mapping[str, Any] | None) -> frozenset[Address]:
    return frozenset() if pod is None or _is_over(pod) else addresses_of(pod)


def _is_over(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in _OVER


def grant_now(plugin: Mapping[str, Any]) -> Grant:
    """Return what a Plugin may reach; one that is refused or on its way out reaches nothing."""
    if read_identity(plugin).deleting:
        return Grant()
    try:
        return read_grant(grant_of(admit(plugin)))
    except InvalidManifest:
        return Grant()
