"""Discovery documents, aggregated and legacy, made from the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .jsontypes import Object
    from .resources import Catalog, Resource

STATUS_VERBS = ("get", "patch", "update")


def aggregated(catalog: Catalog, *, core: bool) -> Object:
    """The APIGroupDiscoveryList of the core group or of all named groups."""
    items = [
        {
            "metadata": {"name": group} if group else {},
            "versions": [
                {
                    "version": version,
                    "resources": [_aggregated_resource(r) for r in catalog.of(group, version)],
                    "freshness": "Current",
                }
                for version in versions
            ],
        }
        for group, versions in catalog.versions().items()
        if bool(group) != core
    ]
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    return {**head, "items": items}


def _aggregated_resource(resource: Resource) -> Object:
    found: Object = {
        "resource": resource.plural,
        "responseKind": _gvk(resource),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        found["shortNames"] = list(resource.short_names)
    if resource.categories:
        found["categories"] = list(resource.categories)
    below = [
        {"subresource": name, "responseKind": kind, "verbs": list(verbs)}
        for name, kind, verbs in subresources(resource)
    ]
    if below:
        found["subresources"] = below
    return found


def _gvk(resource: Resource) -> Object:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def subresources(resource: Resource) -> list[tuple[str, Object, tuple[str, ...]]]:
    """Name, kind and verbs of every subresource."""
    found: list[tuple[str, Object, tuple[str, ...]]] = []
    if resource.has_status:
        found.append(("status", _gvk(resource), STATUS_VERBS))
    if resource.scale:
        found.append(("scale", {"group": "autoscaling", "version": "v1", "kind": "Scale"}, STATUS_VERBS))
    for name in resource.subresources:
        kind = "PodExecOptions" if name == "exec" else resource.kind
        verbs = ("create", "get") if name == "exec" else ("get",)
        found.append((name, {"group": "", "version": "v1", "kind": kind}, verbs))
    return found


def legacy_versions(address: str) -> Object:
    """What ``/api`` answers."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def legacy_groups(catalog: Catalog) -> Object:
    """What ``/apis`` answers."""
    groups = [legacy_group(catalog, group) for group in catalog.versions() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def legacy_group(catalog: Catalog, group: str) -> Object:
    """What ``/apis/GROUP`` answers, without its kind."""
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version} for version in catalog.versions()[group]
    ]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def legacy_resources(catalog: Catalog, group: str, version: str) -> Object:
    """What ``/api/v1`` and ``/apis/GROUP/VERSION`` answer."""
    found: list[Object] = []
    for resource in catalog.of(group, version):
        item: Object = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            item["shortNames"] = list(resource.short_names)
        if resource.categories:
            item["categories"] = list(resource.categories)
        found.append(item)
        for name, kind, verbs in subresources(resource):
            below: Object = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind["kind"],
                "verbs": list(verbs),
            }
            if kind["kind"] == "Scale":
                below.update(group="autoscaling", version="v1")
            found.append(below)
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}
