"""The object that stands for a folder's set, as Kubernetes' ApplySets have one (KEP-3659).

It tells other tools that there is a set, who looks after it, and where its objects may be. kubectl leaves the
sets of others alone because of it. Pure.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from crucible import __version__
from crucible.manifests.resources import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ID: Final = "applyset.kubernetes.io/id"
TOOLING: Final = "applyset.kubernetes.io/tooling"
GROUP_KINDS: Final = "applyset.kubernetes.io/contains-group-kinds"
NAMESPACES: Final = "applyset.kubernetes.io/additional-namespaces"
NAMESPACE: Final = "kube-system"
"""Always there, and no part of what people export."""
_CONFIG: Final = next(resource for resource in RESOURCES if resource.kind == "ConfigMap")


def set_id(folder: Path) -> str:
    """Return the id of a folder's set: that of its parent object, so in the end of its absolute path."""
    told = f"{_name(folder)}.{NAMESPACE}.{_CONFIG.kind}."
    return f"applyset-{_base64(told.encode())}-v1"


def parent_of(folder: Path, namespaces: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """Return where a set's parent lives, and what it says.

    Args:
        folder: absolute.
        namespaces: all in which the set has objects, or soon will; empty for those in none.
    """
    name = _name(folder)
    others = sorted({namespace for namespace in namespaces if namespace} - {NAMESPACE})
    kinds = sorted(_group_kind(resource.kind, resource.api_version) for resource in RESOURCES)
    annotations = {TOOLING: f"crucible/v{__version__}", GROUP_KINDS: ",".join(kinds)}
    meta = {
        "name": name,
        "namespace": NAMESPACE,
        "labels": {ID: set_id(folder)},
        "annotations": annotations | ({NAMESPACES: ",".join(others)} if others else {}),
    }
    body = {"apiVersion": _CONFIG.api_version, "kind": _CONFIG.kind, "metadata": meta}
    return _CONFIG.path(NAMESPACE, name), body | {"data": {"folder": _text(folder)}}


def _name(folder: Path) -> str:
    return f"manifests-{hashlib.sha256(_text(folder).encode()).hexdigest()[:12]}"


def _text(folder: Path) -> str:
    return str(folder).encode(errors="surrogateescape").decode(errors="backslashreplace")


def _group_kind(kind: str, api_version: str) -> str:
    group = api_version.rpartition("/")[0]
    return f"{kind}.{group}" if group else kind


def _base64(text: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).decode().rstrip("=")
