"""Our kubeconfig; merging it into a user's is done where no server is loaded."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from crucible.control.kubeconfig import merge_kubeconfig

if TYPE_CHECKING:
    from .jsontypes import Object

__all__ = ["NAME", "kubeconfig_for", "merge_kubeconfig"]

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
