"""Where objects live in the API, and what can be read of a Plugin that some server sent."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from crucible.manifests.resources import PLUGIN
from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import Mapping


def collection(namespace: str | None, plural: str = names.PLURAL) -> str:
    """Return the path of the Plugins of one namespace; None: of all."""
    where = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
    return f"/apis/{names.API_VERSION}{where}/{plural}"


def plugin_path(namespace: str, name: str) -> str:
    """Return the path of one Plugin."""
    return PLUGIN.path(namespace, name)


def core(namespace: str | None, plural: str) -> str:
    """Return the path of a collection of the core group."""
    where = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
    return f"/api/v1{where}/{plural}"


def condition(plugin: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return one condition of a Plugin's status; empty when it has none of that type."""
    conditions = (plugin.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def holds(plugin: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition of a Plugin is true."""
    return condition(plugin, kind).get("status") == "True"


def replicas_of(plugin: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return what the status says of each replica."""
    return tuple((plugin.get("status") or {}).get("instances") or ())


def moment(text: str | None) -> float | None:
    """Return the unix seconds of an API timestamp; None where there is none."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
