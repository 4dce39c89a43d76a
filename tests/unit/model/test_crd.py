from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from crucible.model.crd import plugin_crd, plugin_schema
from crucible.model.manifest import PluginSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

CRD = Path(__file__).parents[3] / "crds" / "plugins.crucible.dev.yaml"


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_the_file_in_the_repository_is_the_one_the_models_make() -> None:
    assert yaml.safe_load(CRD.read_text()) == plugin_crd(), "run 'make generate'"


def test_the_schema_is_structural() -> None:
    for path, node in nodes(plugin_schema()):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "$defs", "title"} & node.keys(), path
        if node.get("type") == "array":
            assert "items" in node, path
            assert node["x-kubernetes-list-type"] in {"atomic", "map"}, path


def test_everything_a_person_writes_is_bounded_and_described() -> None:
    for path, node in nodes(plugin_schema()["properties"]["spec"]):
        match node.get("type"):
            case "string":
                assert {"maxLength", "enum", "pattern"} & node.keys(), path
            case "array":
                assert "maxItems" in node, path
            case "integer":
                assert {"minimum", "maximum"} <= node.keys(), path
        assert "description" in node or path.endswith(("[]", "inline[]")), path


def test_keys_of_list_maps_are_required() -> None:
    for path, node in nodes(plugin_schema()):
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path


def test_defaults_are_written_as_people_write_them() -> None:
    resources = plugin_schema()["properties"]["spec"]["properties"]["resources"]["properties"]
    assert resources["cpu"]["default"] == "500m"
    assert resources["memory"]["default"] == "128Mi"


def test_defaults_of_the_schema_and_of_the_models_are_the_same() -> None:
    spec = plugin_schema()["properties"]["spec"]
    small: dict[str, Any] = {
        "version": "1.0.0",
        "type": "python",
        "source": {"inline": {"main.py": ""}},
        "entrypoint": ["main.py"],
    }
    filled = small | {
        name: {key: inner["default"] for key, inner in node["properties"].items() if "default" in inner}
        for name, node in spec["properties"].items()
        if node.get("type") == "object" and "properties" in node and name not in small
    }
    filled |= {name: node["default"] for name, node in spec["properties"].items() if "default" in node}
    assert PluginSpec.model_validate_json(json.dumps(filled)) == PluginSpec.model_validate_json(
        json.dumps(small)
    )


def test_no_field_is_named_like_a_yaml_boolean() -> None:
    for path, node in nodes(plugin_schema()):
        assert not {"y", "n", "on", "off", "yes", "no"} & node.get("properties", {}).keys(), path
