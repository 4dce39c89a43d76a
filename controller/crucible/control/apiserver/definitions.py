"""CustomResourceDefinitions: what makes one valid, and the resources it defines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import status
from .jsonpath import compile_path
from .jsontypes import clone, dig
from .metadata import META_SCHEMA, name_problem
from .resources import Column, Resource, Scale
from .rulechecks import check_rule_definitions
from .rules import compile_rules
from .structural import INT_OR_STRING, LIST_KEYS, LIST_TYPE, PRESERVE, fill_defaults
from .validate import compiled_pattern, validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .jsontypes import Json, Object
    from .status import Cause
    from .structural import Schema

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean"})
_COLUMN_TYPES = frozenset({"string", "integer", "number", "boolean", "date"})


def with_default_names(crd: Object) -> Object:
    """``crd`` with the names and settings a server fills in."""
    filled: Object = clone(crd)
    spec = filled.setdefault("spec", {})
    if not isinstance(spec, dict) or not isinstance(spec.get("names", {}), dict):
        return filled
    names = spec.setdefault("names", {})
    kind = str(names.get("kind", ""))
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})
    return filled


def check_definition(crd: Object) -> list[Cause]:
    """Everything that keeps a definition, names filled in, from being served."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [status.required("spec")]
    causes = [
        status.required(f"spec.{field}")
        for field, value in (
            ("group", spec.get("group")),
            ("names.plural", dig(spec, "names", "plural")),
            ("names.kind", dig(spec, "names", "kind")),
            ("versions", spec.get("versions")),
        )
        if not value
    ]
    if causes:
        return causes
    names = spec["names"]
    wanted = f"{names['plural']}.{spec['group']}"
    if crd["metadata"].get("name") != wanted:
        detail = 'must be spec.names.plural+"."+spec.group'
        causes.append(status.invalid("metadata.name", crd["metadata"].get("name", ""), detail))
    if spec.get("scope") not in {"Namespaced", "Cluster"}:
        causes.append(status.unsupported("spec.scope", spec.get("scope"), ("Cluster", "Namespaced")))
    problem = name_problem(str(spec["group"]))
    if problem:
        causes.append(status.invalid("spec.group", spec["group"], problem))
    strategy = dig(spec, "conversion", "strategy")
    if strategy != "None":
        causes.append(status.unsupported("spec.conversion.strategy", strategy, ("None",)))
    return causes + _check_versions(spec["versions"])


def _check_versions(versions: Json) -> list[Cause]:
    if not isinstance(versions, list) or not all(isinstance(version, dict) for version in versions):
        return [status.invalid("spec.versions", None, "must be a list of versions")]
    causes: list[Cause] = []
    if sum(version.get("storage") is True for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        causes.append(status.invalid("spec.versions", None, detail))
    for at, version in enumerate(versions):
        where = f"spec.versions[{at}]"
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", str(version.get("name", ""))):
            causes.append(status.invalid(f"{where}.name", version.get("name"), "must be a DNS-1035 label"))
        schema = dig(version, "schema", "openAPIV3Schema")
        if not isinstance(schema, dict):
            causes.append(status.required(f"{where}.schema.openAPIV3Schema", "schemas are required"))
            continue
        root = f"{where}.schema.openAPIV3Schema"
        if schema.get("type") != "object":
            causes.append(status.invalid(f"{root}.type", schema.get("type"), "must be object at the root"))
        causes += list(_check_schema(schema, root))
        causes += list(check_rule_definitions(schema, root))
        causes += list(_check_paths(version, where))
    return causes


def _check_paths(version: Object, where: str) -> Iterator[Cause]:
    for at, column in enumerate(version.get("additionalPrinterColumns") or ()):
        here = f"{where}.additionalPrinterColumns[{at}]"
        if column.get("type") not in _COLUMN_TYPES:
            yield status.unsupported(f"{here}.type", column.get("type"), sorted(_COLUMN_TYPES))
        try:
            compile_path(str(column.get("jsonPath", "")))
        except ValueError as error:
            yield status.invalid(f"{here}.jsonPath", column.get("jsonPath"), str(error))
    for at, field in enumerate(version.get("selectableFields") or ()):
        if not re.fullmatch(r"(\.[A-Za-z_]\w*)+", str(field.get("jsonPath", ""))):
            detail = "must be a simple path to a field"
            yield status.invalid(f"{where}.selectableFields[{at}].jsonPath", field.get("jsonPath"), detail)


def _check_schema(schema: Schema, where: str) -> Iterator[Cause]:
    kind = schema.get("type")
    if kind is None and not (schema.get(INT_OR_STRING) or schema.get(PRESERVE)):
        yield status.required(f"{where}.type", "must not be empty for specified object fields")
    elif kind is not None and kind not in _TYPES:
        yield status.unsupported(f"{where}.type", kind, sorted(_TYPES))
    yield from _check_pattern(schema, where)
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield status.forbidden_field(f"{where}.uniqueItems", detail)
    if "$ref" in schema:
        yield status.forbidden_field(f"{where}.$ref", "$ref is not supported")
    if schema.get("properties") and schema.get("additionalProperties"):
        detail = "additionalProperties and properties are mutually exclusive"
        yield status.forbidden_field(f"{where}.additionalProperties", detail)
    if kind == "array" and not isinstance(schema.get("items"), dict):
        yield status.required(f"{where}.items", "must be specified")
    yield from _check_list_type(schema, where)
    if "default" in schema:
        yield from validate(fill_defaults(schema["default"], schema), schema, f"{where}.default")
    yield from _check_below(schema, where)


def _check_pattern(schema: Schema, where: str) -> Iterator[Cause]:
    try:
        compiled_pattern(str(schema.get("pattern", "")))
    except re.error as error:
        detail = f"must be a valid regular expression: {error}"
        yield status.invalid(f"{where}.pattern", schema["pattern"], detail)


def _check_below(schema: Schema, where: str) -> Iterator[Cause]:
    for name, below in (schema.get("properties") or {}).items():
        yield from _check_schema(below, f"{where}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _check_schema(schema[name], f"{where}.{name}")


def _check_list_type(schema: Schema, where: str) -> Iterator[Cause]:
    kind, keys = schema.get(LIST_TYPE), schema.get(LIST_KEYS)
    if kind is not None and kind not in {"atomic", "set", "map"}:
        yield status.unsupported(f"{where}.{LIST_TYPE}", kind, ("atomic", "map", "set"))
    if kind == "map":
        items = schema.get("items") or {}
        if not keys:
            yield status.required(
                f"{where}.{LIST_KEYS}", 'must not be empty if x-kubernetes-list-type is "map"'
            )
        for key in keys or ():
            if key not in (items.get("properties") or {}):
                yield status.invalid(
                    f"{where}.{LIST_KEYS}", key, "entries must all be names of item properties"
                )
            elif key not in items.get("required", ()) and "default" not in items["properties"][key]:
                detail = (
                    "this property is in x-kubernetes-list-map-keys, "
                    "so it must have a default or be a required property"
                )
                yield status.required(f"{where}.items.properties[{key}].default", detail)
    elif keys:
        yield status.forbidden_field(
            f"{where}.{LIST_KEYS}", "may only be set if x-kubernetes-list-type is map"
        )


def accepted(crd: Object, now: str) -> Object:
    """The status of a definition that is served from now on."""
    spec, before = crd["spec"], crd.get("status") or {}
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    stored = list(before.get("storedVersions") or [])
    conditions = before.get("conditions") or [
        _condition("NamesAccepted", "NoConflicts", "no conflicts found", now),
        _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", now),
    ]
    return {
        "conditions": conditions,
        "acceptedNames": spec["names"],
        "storedVersions": stored if storage in stored else [*stored, storage],
    }


def _condition(kind: str, reason: str, message: str, now: str) -> Object:
    return {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}


def resources_of(crd: Object) -> tuple[Resource, ...]:
    """The resources a valid definition serves, storage version first."""
    spec = crd["spec"]
    versions = [version for version in spec["versions"] if version.get("served")]
    versions.sort(key=lambda version: not version.get("storage"))
    storage = next(str(v["name"]) for v in spec["versions"] if v.get("storage"))
    return tuple(_resource(spec, version, storage) for version in versions)


def _resource(spec: Object, version: Object, storage: str) -> Resource:
    names = spec["names"]
    schema: Schema = dict(version["schema"]["openAPIV3Schema"])
    properties = dict(schema.get("properties") or {})
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string", **(properties.get(name) or {})}
    declared = properties.get("metadata") or {}
    about = {"description": declared["description"]} if declared.get("description") else {}
    properties["metadata"] = {**META_SCHEMA, **about}
    schema["properties"] = properties
    subresources = version.get("subresources") or {}
    columns = version.get("additionalPrinterColumns")
    if columns is None:
        columns = [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
    return Resource(
        group=str(spec["group"]),
        version=str(version["name"]),
        plural=str(names["plural"]),
        singular=str(names["singular"]),
        kind=str(names["kind"]),
        list_kind=str(names["listKind"]),
        namespaced=spec["scope"] == "Namespaced",
        schema=schema,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        has_status="status" in subresources,
        scale=_scale(subresources["scale"]) if "scale" in subresources else None,
        columns=tuple(_column(column) for column in columns),
        field_labels=frozenset(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
        rules=compile_rules(schema),
        custom=True,
        counts_generation=True,
        storage_version=storage,
    )


def _scale(scale: Object) -> Scale:
    def steps(text: str) -> tuple[str, ...]:
        return tuple(text.strip(".").split("."))

    selector = scale.get("labelSelectorPath")
    return Scale(
        steps(scale["specReplicasPath"]),
        steps(scale["statusReplicasPath"]),
        steps(selector) if selector else None,
    )


def _column(column: Object) -> Column:
    return Column(
        name=str(column["name"]),
        type=str(column["type"]),
        path=compile_path(str(column["jsonPath"])),
        format=str(column.get("format") or ""),
        description=str(
            column.get("description")
            or f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
        ),
        priority=int(column.get("priority") or 0),
    )
