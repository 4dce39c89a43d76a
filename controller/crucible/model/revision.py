"""PluginRevision: what a Plugin ran as, once and for all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.errors import InvalidManifest, Violation
from crucible.model import names
from crucible.model.plugin import parse_spec
from crucible.model.status import SourceReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity

_TEXT: Final = {"type": "string"}
_LONGEST: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Revision:
    """A snapshot of what was asked for, what its source was, and what came of both.

    Attributes:
        name: of the object that keeps it.
        revision: of the workload.
        spec: the manifest.
        source: what its source was resolved to.
        restart: value of the restart annotation then.
    """

    name: str
    revision: str
    spec: PluginSpec
    source: SourceReport
    restart: str = ""


def revision_name(plugin: str, revision: str) -> str:
    """Return the name of the object that keeps a revision of a Plugin."""
    return f"{plugin}-{revision}"


def revision_object(identity: Identity, revision: Revision) -> dict[str, Any]:
    """Return the object that keeps a revision; it goes with its Plugin."""
    manifest = revision.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.REVISION_KIND,
        "metadata": {
            "name": revision.name,
            "namespace": identity.namespace,
            "labels": {names.PLUGIN_LABEL: identity.name},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": identity.name,
                    "uid": identity.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "plugin": identity.name,
            "version": revision.spec.version,
            "revision": revision.revision,
            "manifest": json.dumps(manifest, sort_keys=True),
            "source": revision.source.model_dump(mode="json", by_alias=True),
            "restart": revision.restart,
        },
    }


def read_revision(found: Mapping[str, Any], plugin_uid: str) -> Revision:
    """Read what a revision's object holds.

    Raises:
        InvalidManifest: it is another Plugin's, or holds what this release does not run.
    """
    owners = found["metadata"].get("ownerReferences") or ()
    if plugin_uid not in {owner.get("uid") for owner in owners}:
        raise InvalidManifest((Violation("metadata.ownerReferences", "it belongs to another Plugin"),))
    spec = found["spec"]
    try:
        manifest = json.loads(spec["manifest"])
    except (TypeError, ValueError):
        raise InvalidManifest((Violation("spec.manifest", "is no JSON"),)) from None
    return Revision(
        name=found["metadata"]["name"],
        revision=spec["revision"],
        spec=parse_spec(manifest),
        source=SourceReport.model_validate(spec["source"]),
        restart=spec.get("restart") or "",
    )


def revision_crd() -> dict[str, Any]:
    """Return the CRD of PluginRevision as an API server takes it."""
    columns = (("Plugin", ".spec.plugin"), ("Version", ".spec.version"), ("Revision", ".spec.revision"))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.REVISION_PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.REVISION_KIND,
                "listKind": f"{names.REVISION_KIND}List",
                "plural": names.REVISION_PLURAL,
                "singular": names.REVISION_KIND.lower(),
                "shortNames": ["plgrev"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        *({"name": name, "type": "string", "jsonPath": path} for name, path in columns),
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def _schema() -> dict[str, Any]:
    source = {name: {**_TEXT, "maxLength": 1024} for name in ("digest", "resolvedFor", "image")}
    return {
        "type": "object",
        "description": "What a Plugin ran as: written once by the controller, never changed.",
        "required": ["spec"],
        "properties": {
            "apiVersion": _TEXT,
            "kind": _TEXT,
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "description": "What was asked for, and what its source was.",
                "required": ["plugin", "version", "revision", "manifest", "source"],
                "x-kubernetes-validations": [
                    {"rule": "self == oldSelf", "message": "a revision never changes"}
                ],
                "properties": {
                    "plugin": {**_TEXT, "maxLength": 63, "description": "Of which Plugin."},
                    "version": {**_TEXT, "maxLength": 128, "description": "Its version."},
                    "revision": {**_TEXT, "maxLength": 64, "description": "Of the workload."},
                    "manifest": {**_TEXT, "maxLength": _LONGEST, "description": "Its spec, as JSON."},
                    "source": {
                        "type": "object",
                        "description": "What its source was resolved to.",
                        "properties": source,
                    },
                    "restart": {**_TEXT, "maxLength": 256, "description": "The restart asked for then."},
                },
            },
        },
    }
