"""What is served: one value per resource, and the catalog of them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from . import status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .jsonpath import JsonPath
    from .rules import RuleTree
    from .structural import Schema

ALL_VERBS: Final = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
READ_VERBS: Final = ("get", "list", "watch")

CLUSTER_GROUPS: Final = frozenset(
    {"apps", "batch", "autoscaling", "policy", "extensions"}
    | {"events.k8s.io", "apiregistration.k8s.io", "certificates.k8s.io", "networking.k8s.io", "node.k8s.io"}
    | {"rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "discovery.k8s.io"}
    | {
        "admissionregistration.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "resource.k8s.io",
        "gateway.networking.k8s.io",
    }
)
"""Groups of a whole cluster. Nothing here would run or enforce their kinds, so they are refused in words."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``."""

    name: str
    type: str
    path: JsonPath
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its numbers, as steps below the object's root."""

    replicas: tuple[str, ...]
    status_replicas: tuple[str, ...]
    selector: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource in one version.

    Attributes:
        schema: The structural schema of the whole object, metadata included.
        custom: True for kinds a CRD defines; core kinds are false.
        counts_generation: True if ``metadata.generation`` is kept.
        field_labels: Paths that field selectors may name beside metadata.name and metadata.namespace.
        create_only: True for reviews, which are answered and never stored.
        graceful: True for kinds that somebody has to bring to an end before they go: deleting one marks it,
            and deleting it with a grace period of 0 removes it.
    """

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    list_kind: str
    namespaced: bool
    schema: Schema
    verbs: tuple[str, ...] = ALL_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    scale: Scale | None = None
    columns: tuple[Column, ...] = ()
    field_labels: frozenset[str] = frozenset()
    rules: RuleTree | None = None
    custom: bool = False
    counts_generation: bool = False
    label_name: bool = False
    create_only: bool = False
    graceful: bool = False
    subresources: tuple[str, ...] = ()
    storage_version: str = ""

    @property
    def collection(self) -> str:
        """The name objects are stored under, the same for all versions."""
        return status.qualified(self.plural, self.group)

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every resource served, by group, version and plural name."""

    resources: tuple[Resource, ...]
    index: Mapping[tuple[str, str, str], Resource] = field(init=False)

    def __post_init__(self) -> None:
        index = {(r.group, r.version, r.plural): r for r in self.resources}
        object.__setattr__(self, "index", index)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource at an address, or None."""
        return self.index.get((group, version, plural))

    def by_collection(self, collection: str) -> Resource | None:
        """Any version of a collection's resource."""
        return next((r for r in self.resources if r.collection == collection), None)

    def versions(self) -> dict[str, list[str]]:
        """Versions of every group, in the order they were declared."""
        found: dict[str, list[str]] = {}
        for resource in self.resources:
            versions = found.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        return found

    def of(self, group: str, version: str) -> list[Resource]:
        """The resources of one group and version."""
        return [r for r in self.resources if (r.group, r.version) == (group, version)]

    def replaced(self, more: Iterable[Resource]) -> Catalog:
        """This catalog with ``more``, which take the place of what is served at the same address."""
        found = {(r.group, r.version, r.plural): r for r in (*self.resources, *more)}
        return Catalog(tuple(found.values()))

    def extended(self, more: Iterable[Resource]) -> Catalog:
        """This catalog and ``more``."""
        return Catalog((*self.resources, *more))
