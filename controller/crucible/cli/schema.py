"""``crucible schema``."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from crucible.errors import InvalidInput
from crucible.model import names

EXAMPLES: Final = """\b
Examples:
  crucible schema --output plugin.schema.json
  crucible schema --crd | kubectl apply -f -

Editors with a YAML language server check and complete manifests that begin with this line:
  # yaml-language-server: $schema=plugin.schema.json
"""
_HEADER: Final = "# Generated from controller/crucible/model by 'make generate'. Do not edit.\n"


def command(
    crd: Annotated[bool, typer.Option("--crd", help="The CustomResourceDefinition, as YAML.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write a file, when it would change.")
    ] = None,
) -> None:
    """Print the JSON Schema of a plugin's manifest, or the CustomResourceDefinition."""
    text = crd_yaml() if crd else json.dumps(editor_schema(), indent=2) + "\n"
    if output is None:
        print(text, end="")
        return
    try:
        if not output.exists() or output.read_text() != text:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text)
    except OSError as error:
        raise InvalidInput(f"{output}: cannot be written: {error.strerror}") from None


def crd_yaml() -> str:
    """Return the CRD as it lies in ``crds/``."""
    from crucible.cli.printing import yaml_of  # noqa: PLC0415 - the JSON Schema needs no YAML
    from crucible.model.crd import plugin_crd  # noqa: PLC0415 - loads every model

    return _HEADER + yaml_of(plugin_crd())


def editor_schema() -> dict[str, Any]:
    """Return the manifest's JSON Schema (2020-12), as editors read it: what is unknown is marked."""
    from crucible.model.crd import plugin_schema  # noqa: PLC0415 - see above

    plugin = plugin_schema()
    text = {"type": "object", "additionalProperties": {"type": "string"}}
    metadata = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "maxLength": 50, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "namespace": {"type": "string"},
            "labels": text,
            "annotations": text,
        },
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": names.KIND,
        "description": plugin["description"],
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": names.API_VERSION},
            "kind": {"const": names.KIND},
            "metadata": metadata,
            "spec": _for_editors(plugin["properties"]["spec"]),
        },
        "additionalProperties": False,
    }


def _for_editors(schema: dict[str, Any]) -> dict[str, Any]:
    """Turn a structural schema into plain JSON Schema, with nothing but known fields allowed."""
    kept = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "example" in kept:
        kept["examples"] = [kept.pop("example")]
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "number", "string"]
    if "properties" in kept:
        kept["properties"] = {name: _for_editors(inner) for name, inner in kept["properties"].items()}
        kept["additionalProperties"] = False
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = _for_editors(kept["additionalProperties"])
    if "items" in kept:
        kept["items"] = _for_editors(kept["items"])
    return kept
