"""The kinds that manifests may hold, and where their objects live in the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from crucible.model import names


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind that can be applied and deleted.

    Attributes:
        api_version: group and version.
        kind: as manifests name it.
        plural: as paths name it.
        label: as output names it, before the object's name.
        namespaced: lives in a namespace.
    """

    api_version: str
    kind: str
    plural: str
    label: str
    namespaced: bool = True

    def path(self, namespace: str, name: str) -> str:
        """Return the path of one object."""
        return f"{self.collection(namespace)}/{quote(name, safe='')}"

    def collection(self, namespace: str | None = None) -> str:
        """Return the path of the objects of one namespace; None: of all."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        inside = self.namespaced and namespace is not None
        where = f"/namespaces/{quote(namespace or '', safe='')}" if inside else ""
        return f"{root}{where}/{self.plural}"


PLUGIN: Final = Resource(names.API_VERSION, names.KIND, names.PLURAL, f"{names.SINGULAR}.{names.GROUP}")
RESOURCES: Final = (
    # In the order they are applied: what others refer to comes first.
    Resource("v1", "Namespace", "namespaces", "namespace", namespaced=False),
    Resource("v1", "Secret", "secrets", "secret"),
    Resource("v1", "ConfigMap", "configmaps", "configmap"),
    PLUGIN,
)
