"""Paths of the Kubernetes API, read into what they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .resources import CLUSTER_GROUPS
from .status import ApiError

if TYPE_CHECKING:
    from .resources import Catalog, Resource

_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_CORE_KINDS = frozenset(
    {"bindings", "componentstatuses", "endpoints", "limitranges", "nodes", "persistentvolumeclaims"}
    | {"persistentvolumes", "podtemplates", "replicationcontrollers", "resourcequotas", "serviceaccounts"}
)


@dataclass(frozen=True, slots=True)
class Address:
    """What a path names, before anyone knows whether it is served."""

    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str


@dataclass(frozen=True, slots=True)
class Target:
    """A served resource, and what of it is meant."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


def read_path(path: str) -> Address | None:
    """The resource a path names, or None where it names none."""
    parts = path.strip("/").split("/")
    match parts:
        case ["api", version, *rest] if rest:
            return _address("", version, rest)
        case ["apis", group, version, *rest] if rest:
            return _address(group, version, rest)
        case _:
            return None


def _address(group: str, version: str, rest: list[str]) -> Address | None:
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:  # noqa: PLR2004 - namespaces/NAME/plural
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *more = [*rest, "", "", ""][: max(4, len(rest) + 1)]
    if any(more) or not plural or (len(rest) > 1 and not name):
        return None
    return Address(group, version, namespace, plural, name, subresource)


def resolve(address: Address, catalog: Catalog) -> Target | None:
    """The target of an address, or None where nothing is served there."""
    resource = catalog.find(address.group, address.version, address.plural)
    if resource is None:
        return None
    if resource.namespaced != bool(address.namespace) and (address.name or not resource.namespaced):
        return None
    return Target(resource, address.namespace, address.name, address.subresource)


def refusal(address: Address | None, method: str) -> ApiError | None:
    """Why a kind of a whole cluster is not served here, or None where the path is simply unknown."""
    if address is None:
        return None
    known = address.group in CLUSTER_GROUPS or (not address.group and address.plural in _CORE_KINDS)
    if not known and method in {"GET", "HEAD", "OPTIONS"}:
        return None
    what = f"{address.plural}.{address.group}" if address.group else address.plural
    message = (
        f"this server speaks the Kubernetes API for plugins only: nothing here would run or enforce {what}, "
        "so they are refused. Apply them to a Kubernetes cluster, or install their definition first if they "
        "are custom resources"
    )
    details = {"group": address.group, "kind": address.plural}
    return ApiError(404, "NotFound", message, {key: value for key, value in details.items() if value})
