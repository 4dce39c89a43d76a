"""The CustomResourceDefinition, generated from the models.

``crucible schema`` prints it, ``crds/`` holds it, and a test fails when the two differ. The schema is
structural in Kubernetes' sense: no references, no unions, every value typed and bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.model import names
from crucible.model.fields import ListMap, NotYet
from crucible.model.manifest import PluginSpec
from crucible.model.plugin import markers, models
from crucible.model.status import PluginStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_KEPT: Final = {
    "type", "format", "pattern", "enum", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "required", "description", "example",
    "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
}  # fmt: skip
_NAME_RULE: Final = {
    "rule": "self.metadata.name.size() <= 50 && !self.metadata.name.contains('.')",
    "message": "metadata.name: at most 50 characters, and no dots",
}
_COLUMNS: Final = (
    ("Type", "string", ".spec.type", 0),
    ("Version", "string", ".spec.version", 0),
    ("Phase", "string", ".status.phase", 0),
    ("Ready", "integer", ".status.readyReplicas", 0),
    ("Restarts", "integer", ".status.restarts", 0),
    ("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason", 0),
    ("Message", "string", ".status.conditions[?(@.type=='Ready')].message", 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)


def plugin_crd() -> dict[str, Any]:
    """Return the CRD of Plugin as an API server takes it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in _COLUMNS
                    ],
                    "selectableFields": [{"jsonPath": ".spec.type"}],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                        },
                    },
                    "schema": {"openAPIV3Schema": plugin_schema()},
                }
            ],
        },
    }


def plugin_schema() -> dict[str, Any]:
    """Return the structural schema of a whole Plugin object."""
    return {
        "type": "object",
        "description": "A plugin: what it is, what it may do and what it may use.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": model_schema(PluginSpec),
            "status": model_schema(PluginStatus, serialized=True),
        },
        "x-kubernetes-validations": [_NAME_RULE],
    }


def model_schema(model: type[BaseModel], *, serialized: bool = False) -> dict[str, Any]:
    """Return the structural schema of one model, with the rules its markers stand for.

    Args:
        model: of the manifest or the status.
        serialized: describe what the model writes instead of what it reads; writes have no defaults.
    """
    schema = model.model_json_schema(mode="serialization" if serialized else "validation")
    definitions = schema.get("$defs", {})
    found = _structural(schema, definitions)
    _mark(found, model, defaults=not serialized)
    return found


def _structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Inline references, drop ``| None`` and keep only what a structural schema may say."""
    if "$ref" in schema:
        inner = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**inner, **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        (inner,) = (option for option in schema["anyOf"] if option.get("type") != "null")
        outer = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
        return _structural({**inner, **outer}, definitions)
    kept = {key: value for key, value in schema.items() if key in _KEPT}
    if kept.get("description"):
        kept["description"] = kept["description"].replace("``", "")
    if "properties" in schema:
        kept["properties"] = {
            name: _structural(inner, definitions) for name, inner in schema["properties"].items()
        }
    elif kept.get("type") == "object":
        values = schema.get("additionalProperties", True)
        if isinstance(values, dict):
            kept["additionalProperties"] = _structural(values, definitions)
        else:
            kept["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in schema:
        kept["items"] = _structural(schema["items"], definitions)
    return kept


def _mark(schema: dict[str, Any], model: type[BaseModel], *, defaults: bool) -> None:
    """Add defaults as people write them, list types, and a rule for every value this release refuses."""
    if not defaults:
        schema.pop("required", None)
    written = model.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
    rules: list[dict[str, str]] = schema.get("x-kubernetes-validations", [])
    for name, field in model.model_fields.items():
        alias = field.alias or name
        described = schema["properties"][alias]
        if defaults and isinstance(written.get(alias), str | int):
            described["default"] = written[alias]
        for marker in markers(field):
            rules += _rules(alias, described, marker)
        for inner, part in _inner(described, field):
            _mark(inner, part, defaults=defaults)
        if described.get("type") == "array":
            _mark_list(described, field)
    if rules:
        schema["x-kubernetes-validations"] = rules


def _mark_list(described: dict[str, Any], field: FieldInfo) -> None:
    """Say how two writers' lists merge: by a key, or not at all."""
    keys = [entry.key for entry in field.metadata if isinstance(entry, ListMap)]
    if not keys:
        described["x-kubernetes-list-type"] = "atomic"
        return
    described["x-kubernetes-list-type"] = "map"
    described["x-kubernetes-list-map-keys"] = keys
    described["items"].setdefault("required", keys)


def _inner(described: dict[str, Any], field: FieldInfo) -> Iterator[tuple[dict[str, Any], type[BaseModel]]]:
    for part in models(field.annotation):
        inner = described.get("items", described)
        if "properties" in inner:
            yield inner, part


def _rules(alias: str, described: dict[str, Any], marker: NotYet) -> Iterator[dict[str, str]]:
    """Say in CEL what :func:`crucible.model.plugin.parse_spec` says in Python."""
    listed = described.get("type") == "array"
    if marker.values:
        supported = [value for value in _choices(described) if value not in marker.values]
        allowed = ", ".join(f"'{value}'" for value in supported)
        rule = (
            f"!has(self.{alias}) || self.{alias}.all(item, item in [{allowed}])"
            if listed
            else f"!has(self.{alias}) || self.{alias} in [{allowed}]"
        )
        yield {
            "rule": rule,
            "message": f"{alias}: {', '.join(sorted(marker.values))} are not supported yet: {marker.instead}",
        }
    else:
        empty = f"!has(self.{alias}) || self.{alias}.size() == 0" if listed else f"!has(self.{alias})"
        yield {"rule": empty, "message": f"{alias} is not supported yet: {marker.instead}"}


def _choices(described: dict[str, Any]) -> list[str]:
    choices: list[str] = described.get("items", described)["enum"]
    return choices
