"""OpenAPI v3 documents: enough for ``kubectl explain`` and for validation on the server."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .jsontypes import encode
from .metadata import META_SCHEMA

if TYPE_CHECKING:
    from .jsontypes import Object
    from .resources import Catalog, Resource

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_DELETE = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


def index(catalog: Catalog) -> Object:
    """What ``/openapi/v3`` answers: each group version's document, with a hash to cache it by."""
    paths = {}
    for group, versions in catalog.versions().items():
        for version in versions:
            where = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(encode(document(catalog, group, version))).hexdigest().upper()[:32]
            paths[where] = {"serverRelativeURL": f"/openapi/v3/{where}?hash={digest}"}
    return {"paths": paths}


def document(catalog: Catalog, group: str, version: str) -> Object:
    """The document of one group version."""
    paths: Object = {}
    schemas: Object = {
        _META: META_SCHEMA,
        _DELETE: {"type": "object", "description": "How to delete an object."},
    }
    for resource in catalog.of(group, version):
        paths.update(_paths(resource))
        schemas[_schema_name(resource)] = _schema(resource)
        if "list" in resource.verbs:
            schemas[_schema_name(resource) + "List"] = _list_schema(resource)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Crucible local control plane", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _gvk(resource: Resource, kind: str | None = None) -> Object:
    return {"group": resource.group, "version": resource.version, "kind": kind or resource.kind}


def _schema_name(resource: Resource) -> str:
    parts = ".".join(reversed(resource.group.split("."))) if resource.group else "io.k8s.api.core"
    return f"{parts}.{resource.version}.{resource.kind}"


def _schema(resource: Resource) -> Object:
    properties = {
        **resource.schema.get("properties", {}),
        "metadata": {
            "description": "Standard object's metadata.",
            "allOf": [{"$ref": f"#/components/schemas/{_META}"}],
        },
    }
    return {
        **resource.schema,
        "properties": properties,
        "x-kubernetes-group-version-kind": [_gvk(resource)],
    }


def _list_schema(resource: Resource) -> Object:
    return {
        "type": "object",
        "description": f"{resource.list_kind} is a list of {resource.kind}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "items": {
                "type": "array",
                "items": {"$ref": f"#/components/schemas/{_schema_name(resource)}"},
            },
        },
        "x-kubernetes-group-version-kind": [_gvk(resource, resource.list_kind)],
    }


_QUERY = ("pretty", "dryRun", "fieldManager", "fieldValidation")


def _parameters(*names: str) -> list[Object]:
    return [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in names
    ]


def _operation(resource: Resource, action: str, *query: str) -> Object:
    reference = {"$ref": f"#/components/schemas/{_schema_name(resource)}"}
    return {
        "operationId": f"{action}{resource.version.capitalize()}{resource.kind}",
        "parameters": _parameters(*query),
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
    }


def _paths(resource: Resource) -> Object:
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    many, one = f"{base}{scope}/{resource.plural}", f"{base}{scope}/{resource.plural}/{{name}}"
    verbs = resource.verbs
    collection, single = {}, {}
    if "list" in verbs:
        collection["get"] = _operation(
            resource, "list", "labelSelector", "fieldSelector", "limit", "continue"
        )
    if "create" in verbs:
        collection["post"] = _operation(resource, "post", *_QUERY)
    if "get" in verbs:
        single["get"] = _operation(resource, "get", "pretty")
    if "update" in verbs:
        single["put"] = _operation(resource, "put", *_QUERY)
    if "patch" in verbs:
        single["patch"] = _operation(resource, "patch", *_QUERY, "force")
    if "delete" in verbs:
        single["delete"] = _operation(resource, "delete", "dryRun", "propagationPolicy")
    return {path: found for path, found in ((many, collection), (one, single)) if found}
