"""From one file's content to objects that can be sent: everything is checked before anything is."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crucible.core.admission import admit
from crucible.errors import InvalidInput, InvalidManifest, InvalidSource, Violation
from crucible.manifests.resources import PLUGIN, RESOURCES, Resource
from crucible.model import names
from crucible.model.document import Document, read_documents
from crucible.packages.folder import digest_of, read_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crucible.model.manifest import PluginSpec

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PLUGIN_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_SERVERS_OWN: Final = frozenset(
    {"creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "uid"}
)
"""Metadata that only a server writes; what ``get -o yaml`` printed can be applied again."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object a person wants.

    Attributes:
        resource: its kind.
        namespace: where it belongs; empty for what lives in none.
        name: its name.
        body: what to send.
        place: the file and line it came from.
    """

    resource: Resource
    namespace: str
    name: str
    body: dict[str, Any]
    place: str

    @property
    def label(self) -> str:
        """``plugin.crucible.dev/name``, as output names it."""
        return f"{self.resource.label}/{self.name}"

    @property
    def path(self) -> str:
        """Where it lives in the API."""
        return self.resource.path(self.namespace, self.name)

    def with_body(self, body: dict[str, Any]) -> Wanted:
        """Return the same object with another body."""
        return replace(self, body=body)


def wanted_of(
    data: bytes, place: Path | str, namespace: str | None, default: str, *, strict: bool = True
) -> tuple[tuple[Wanted, ...], tuple[Violation, ...]]:
    """Read and check every manifest of one file.

    Args:
        data: the file's bytes; one more than the limit is enough to have it refused.
        place: where it is, which relative source paths count from; or what to call it.
        namespace: the one that was asked for; None: each manifest's own.
        default: for manifests that name none.
        strict: check Plugins whole; without, only what names the object.

    Returns:
        What it wants, and all that is wrong with it: file, line, field and fix.
    """
    try:
        documents = [single for document in read_documents(data, str(place)) for single in _unlist(document)]
    except InvalidInput as error:
        return (), (Violation("", str(error)),)
    found: list[Wanted] = []
    problems: list[Violation] = []
    for document in documents:
        wrong, wanted = _read(document, place, namespace, default, strict=strict)
        problems += [Violation("", f"{document.place_of(bad.field)}: {bad}") for bad in wrong]
        found += [wanted] if wanted else []
    return tuple(found), tuple(problems)


def _unlist(document: Document) -> Iterator[Document]:
    """Yield the items of a List, which is what ``get -o yaml`` prints, or the document itself."""
    content = document.content
    if content.get("kind") not in {"List", f"{names.KIND}List"} or not isinstance(content.get("items"), list):
        yield document
        return
    for index, item in enumerate(content["items"]):
        prefix = f"items[{index}]"
        lines = {
            path.removeprefix(f"{prefix}."): line
            for path, line in document.lines.items()
            if path.startswith(f"{prefix}.")
        }
        if not isinstance(item, dict):
            raise InvalidInput(f"{document.place_of(prefix)}: {prefix} is no object")
        yield Document(document.file, document.lines.get(prefix, document.line), item, lines)


def _read(
    document: Document, place: Path | str, namespace: str | None, default: str, *, strict: bool
) -> tuple[tuple[Violation, ...], Wanted | None]:
    """Return what is wrong with a document, or what it wants."""
    content = document.content
    resource, violations = _resource(content)
    violations += tuple(_metadata(content.get("metadata"), namespace))
    if resource is None or violations:
        return violations, None
    meta = {key: value for key, value in content["metadata"].items() if key not in _SERVERS_OWN}
    where = ""
    if resource.namespaced:
        where = meta["namespace"] = meta.get("namespace") or namespace or default
    body = {key: value for key, value in content.items() if key != "status"} | {"metadata": meta}
    if resource is PLUGIN and strict:
        try:
            body = _whole_plugin(body, place)
        except InvalidManifest as error:
            return error.violations, None
    return (), Wanted(resource, where, meta["name"], body, document.place_of(""))


def _resource(content: dict[str, Any]) -> tuple[Resource | None, tuple[Violation, ...]]:
    """Find the kind of a document, or say which ones there are."""
    version, kind = content.get("apiVersion"), content.get("kind")
    missing = tuple(
        Violation(
            field, f"is required: a plugin begins with apiVersion: {names.API_VERSION} and kind: Plugin"
        )
        for field, value in (("apiVersion", version), ("kind", kind))
        if not isinstance(value, str)
    )
    if missing:
        return None, missing
    for resource in RESOURCES:
        if (resource.api_version, resource.kind) == (version, kind):
            return resource, ()
    same = [resource for resource in RESOURCES if resource.kind == kind]
    if same:
        return None, (Violation("apiVersion", f"{version} has no {kind}: write {same[0].api_version}"),)
    kinds = [resource.kind for resource in RESOURCES]
    close = difflib.get_close_matches(str(kind), kinds, n=1)
    hint = f"did you mean {close[0]}?" if close else f"crucible applies {', '.join(kinds)}"
    return None, (Violation("kind", f"{kind} is not known here: {hint}"),)


def _metadata(meta: object, namespace: str | None) -> Iterator[Violation]:
    if not isinstance(meta, dict):
        yield Violation("metadata", "is required: write at least metadata.name")
        return
    name = meta.get("name")
    if not isinstance(name, str) or len(name) > 253 or not _NAME.fullmatch(name):  # noqa: PLR2004 - a DNS name's
        yield Violation(
            "metadata.name", "is required: lower-case letters, digits and '-', a letter or digit first"
        )
    own = meta.get("namespace")
    if own is not None and (not isinstance(own, str) or not _NAME.fullmatch(own)):
        yield Violation("metadata.namespace", "is no name: lower-case letters, digits and '-'")
    elif own and namespace and own != namespace:
        yield Violation(
            "metadata.namespace", f"is {own}, but --namespace says {namespace}: drop one of the two"
        )
    for field in ("labels", "annotations"):
        entries = meta.get(field)
        for key, value in entries.items() if isinstance(entries, dict) else ():
            if not isinstance(value, str):
                yield Violation(f"metadata.{field}.{key}", "is no text: write it in quotes")
        if entries is not None and not isinstance(entries, dict):
            yield Violation(f"metadata.{field}", "is no mapping: write 'key: value' lines")


def _whole_plugin(body: dict[str, Any], place: Path | str) -> dict[str, Any]:
    """Check a Plugin, and make its source one that the controller can find.

    Raises:
        InvalidManifest: with every violation.
    """
    unknown = [
        Violation(key, f"unknown field: a Plugin has {', '.join(sorted(_PLUGIN_FIELDS - {'status'}))}")
        for key in body
        if key not in _PLUGIN_FIELDS
    ]
    try:
        spec = admit(body)
    except InvalidManifest as error:
        raise InvalidManifest((*unknown, *error.violations)) from None
    if unknown:
        raise InvalidManifest(tuple(unknown))
    if spec.source.path is None:
        return body
    folder = place.parent if isinstance(place, Path) else Path()
    return _with_folder(body, spec, (folder / spec.source.path).resolve())


def _with_folder(body: dict[str, Any], spec: PluginSpec, folder: Path) -> dict[str, Any]:
    """Write the folder's absolute path and the digest of what is in it, so that a change is noticed."""
    try:
        tree = read_folder(folder)
    except InvalidSource as error:
        raise InvalidManifest((Violation("spec.source.path", str(error)),)) from None
    if spec.entrypoint[0] not in tree:
        offer = difflib.get_close_matches(spec.entrypoint[0], tree, n=1)
        hint = f"did you mean {offer[0]}?" if offer else f"{folder} holds {_some(tree)}"
        raise InvalidManifest(
            (Violation("spec.entrypoint[0]", f"{spec.entrypoint[0]} is not in the source: {hint}"),)
        )
    annotations = (body["metadata"].get("annotations") or {}) | {names.SOURCE_DIGEST: digest_of(tree)}
    return body | {
        "metadata": body["metadata"] | {"annotations": annotations},
        "spec": body["spec"] | {"source": {"path": str(folder)}},
    }


def _some(entries: Iterable[str], most: int = 5) -> str:
    found = sorted(entries)
    return (", ".join(found[:most]) or "nothing") + (" and more" if len(found) > most else "")


def given_twice(found: Iterable[Wanted]) -> Iterator[Violation]:
    """Yield a violation for every object that an earlier manifest holds too."""
    first: dict[str, Wanted] = {}
    for wanted in found:
        other = first.setdefault(wanted.path, wanted)
        if other is not wanted:
            yield Violation("", f"{wanted.place}: {wanted.label} is also in {other.place}: keep one")
