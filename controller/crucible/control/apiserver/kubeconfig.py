"""Kubeconfigs: ours, and ours merged into a user's."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .jsontypes import Object

NAME: Final = "crucible"


def kubeconfig_for(url: str, ca_pem: bytes, token: str) -> Object:
    """A kubeconfig with one context, whose namespace is ``default``."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(ca_pem).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }


def merge_kubeconfig(existing: Object, ours: Object) -> Object:
    """``existing`` with our cluster, user and context set; everything else in it stays.

    The current context changes only where there was none.
    """
    merged: Object = {"apiVersion": "v1", "kind": "Config", **existing}
    for section in ("clusters", "users", "contexts"):
        added = ours.get(section) or []
        names = {item["name"] for item in added}
        kept = [item for item in existing.get(section) or [] if item.get("name") not in names]
        merged[section] = [*kept, *added]
    merged["current-context"] = existing.get("current-context") or ours.get("current-context", "")
    return merged
