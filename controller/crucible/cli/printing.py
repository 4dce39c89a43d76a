"""Objects as programs read them: JSON, YAML, names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from crucible.cli.options import Data, Output
from crucible.manifests.resources import PLUGIN
from crucible.model.document import is_only_text_in_quotes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc] # libyaml, where it is
    """Puts in quotes what other readers, ours among them, would not take for text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if is_only_text_in_quotes(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def yaml_of(value: object) -> str:
    """Return YAML as people write it, every key in the order it came; our own reader reads it the same."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=110)
    return text


def objects_as(items: Sequence[Mapping[str, Any]], output: Output, *, single: bool) -> str:
    """Return Plugins as json, yaml or name.

    Args:
        items: as the API server sent them.
        output: which of the three.
        single: print the one object itself instead of a List.
    """
    if output is Output.NAME:
        return "".join(f"{PLUGIN.label}/{item['metadata']['name']}\n" for item in items)
    shown = [_tidy(item) for item in items]
    whole: object = (
        shown[0] if single else {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": shown}
    )
    return yaml_of(whole) if output is Output.YAML else json.dumps(whole, indent=2) + "\n"


def _tidy(item: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out managedFields, which no one reads, and name the kind, which lists leave out."""
    meta = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    head = {"apiVersion": PLUGIN.api_version, "kind": PLUGIN.kind}
    return {**head, **item, "metadata": meta}


def data_as(value: object, output: Data) -> str:
    """Return facts as json or yaml."""
    return yaml_of(value) if output is Data.YAML else json.dumps(value, indent=2) + "\n"
