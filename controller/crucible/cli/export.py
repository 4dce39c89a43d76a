"""``crucible export``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.files import write_file
from crucible.cli.options import with_access
from crucible.cli.printing import yaml_of
from crucible.cli.terminal import note
from crucible.errors import InvalidInput
from crucible.manifests.applyset import ORIGIN, PART_OF
from crucible.manifests.resources import RESOURCES, Resource

EXAMPLES: Final = """\b
Examples:
  crucible export > everything.yaml
  crucible export -n team-a -o team-a/
  crucible apply -f everything.yaml

What people asked for: namespaces, Secrets, ConfigMaps and plugins, of every namespace or of the one named
with -n; nothing a server or a controller added. Secrets are readable in it: keep it as you keep those.
"""
_KEPT_META: Final = ("name", "namespace", "labels", "annotations")
_OF_TOOLS: Final = frozenset(
    {PART_OF, ORIGIN, "kubectl.kubernetes.io/last-applied-configuration", "kubernetes.io/metadata.name"}
)
"""Marks of whoever applied an object before: whoever applies it next sets their own."""
_BUILT_IN: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
_TOKENS: Final = "kubernetes.io/service-account-token"
_ROOT_CA: Final = "kube-root-ca.crt"


@with_access
def command(
    access: Access,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR|-", help="A file each in a folder, or all to -.")
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Print all that people asked for, as YAML that 'crucible apply' takes back."""
    folder = None if output == "-" else Path(output)
    if folder is not None and not force and folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty: name another folder, or write into it with --force")
    with Api(endpoint_of(access)) as api:
        found = list(_everything(api, access.namespace))
    if folder is None:
        print("---\n".join(yaml_of(document) for _, document in found), end="")
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for resource, document in found:
        write_file(folder / _file_name(resource, document["metadata"]), yaml_of(document).encode())
    note(f"{len(found)} objects written to {folder}")


def _everything(api: Api, namespace: str | None) -> Iterator[tuple[Resource, dict[str, Any]]]:
    for resource in RESOURCES:
        if resource.namespaced or namespace is None:
            items = api.get(resource.collection(namespace)).get("items", [])
        else:
            items = [api.get(resource.path("", namespace))]
        for item in items:
            if is_asked_for(resource, item):
                yield resource, bare(resource, item)


def is_asked_for(resource: Resource, item: Mapping[str, Any]) -> bool:
    """Whether a person made an object, and still wants it: neither the cluster nor another object did."""
    meta = item["metadata"]
    if meta.get("deletionTimestamp") or meta.get("ownerReferences"):
        return False
    if resource.kind == "Namespace":
        return meta["name"] not in _BUILT_IN
    return (
        item.get("type") != _TOKENS and meta["name"] != _ROOT_CA and not meta["namespace"].startswith("kube-")
    )


def bare(resource: Resource, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object less all that a server, a controller or an earlier tool added."""
    meta: dict[str, Any] = {}
    for field in _KEPT_META:
        value = item["metadata"].get(field)
        if isinstance(value, dict):
            value = {key: text for key, text in value.items() if key not in _OF_TOOLS}
        if value:
            meta[field] = value
    left_out = {"apiVersion", "kind", "metadata", "status"} | (
        {"spec"} if resource.kind == "Namespace" else set()
    )
    rest = {key: value for key, value in item.items() if key not in left_out}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **rest}


def _file_name(resource: Resource, meta: Mapping[str, Any]) -> str:
    parts = [resource.kind.lower(), *([meta["namespace"]] if resource.namespaced else []), meta["name"]]
    return f"{'.'.join(parts)}.yaml"
