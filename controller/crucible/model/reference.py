"""The manifest reference, written from the same schema as the CRD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crucible.model import names
from crucible.model.crd import plugin_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = f"""# The manifest

`{names.API_VERSION}`, kind `{names.KIND}`. Written from the models by `make generate`; do not edit.

A field is enforced, or it is refused. Fields marked *not yet* are part of the manifest and refused by this
release as soon as they hold anything. Amounts of memory are written like `64Mi`, cpu like `500m`, durations
like `1m30s`.

"""


def reference() -> str:
    """Return the reference as Markdown: a table for the spec, then one for each object in it."""
    spec = plugin_schema()["properties"]["spec"]
    return _HEAD + "\n".join(_section("spec", spec))


def _section(path: str, schema: dict[str, Any]) -> Iterator[str]:
    later = [rule["message"] for rule in schema.get("x-kubernetes-validations", [])]
    required = schema.get("required", [])
    yield f"## {path}\n"
    yield f"{schema.get('description', '')}\n"
    yield "| field | type | default | what it says |"
    yield "|---|---|---|---|"
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field)
        yield f"| `{name}` | {_kind(field)} | {default} | {_prose(name, field, later)} |"
    yield ""
    for rule in later:
        if "not supported yet" not in rule:
            yield f"Rule: {rule}.\n"
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        if "properties" in inner:
            yield from _section(f"{path}.{name}{'[]' if 'items' in field else ''}", inner)


def _kind(field: dict[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return f"amount, like `{field['example']}`"
    if "enum" in field:
        return " ".join(f"`{choice}`" for choice in field["enum"])
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}, at most {field['maxItems']}"
    if "additionalProperties" in field:
        return f"map to {_kind(field['additionalProperties'])}, at most {field.get('maxProperties', 'any')}"
    if field.get("type") == "string" and "example" in field:
        return f"string, like `{field['example']}`"
    bounds = [
        f"{word} {field[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("maxLength", "at most"))
        if key in field
    ]
    return " ".join([field.get("type", "any"), *bounds])


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    value: object = field["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "empty"


def _prose(name: str, field: dict[str, Any], later: list[str]) -> str:
    text: str = field.get("description", "").replace("|", "\\|").replace("\n", " ")
    marks = [
        rule.removeprefix(f"{name}: ") for rule in later if rule.startswith((f"{name} is not", f"{name}: "))
    ]
    refused = [mark for mark in marks if "not supported yet" in mark]
    if not refused:
        return text
    whole = refused[0].startswith(f"{name} is not")
    return f"{text} *Not yet.*" if whole else f"{text} *{refused[0][:1].upper()}{refused[0][1:]}.*"
