"""Our kubeconfig; merging it into a user's is done where no server is loaded."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.control.kubeconfig import merge_kubeconfig
from crucible.settings import Places, default_root

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .jsontypes import Object
    from .tls import TlsFiles

__all__ = ["Certificate", "certificate_of", "context_name", "kubeconfig_for", "merge_kubeconfig"]

NAME: Final = "crucible"
BY_CERTIFICATE: Final = "certificate"
_CHOSEN: Final = "CRUCIBLE_STATE"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate and its key, PEM."""

    certificate: bytes
    key: bytes


def certificate_of(files: TlsFiles) -> Certificate:
    """The client certificate a server issued."""
    return Certificate(files.client_cert.read_bytes(), files.client_key.read_bytes())


def context_name(state_dir: Path, environment: Mapping[str, str] = os.environ) -> str:
    """The name of a server's context: ``crucible`` for the usual state folder, for others one of their own.

    It is made of the folder's path, so it stays the same and two folders never share one kubeconfig's entry.
    """
    usual = default_root({key: value for key, value in environment.items() if key != _CHOSEN})
    real = os.path.realpath(state_dir)
    if real == os.path.realpath(Places(usual).control):
        return NAME
    return f"{NAME}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}"


def kubeconfig_for(name: str, url: str, ca_pem: bytes, token: str, certificate: Certificate) -> Object:
    """A kubeconfig whose namespace is ``default``: one context by token, the current, one by certificate.

    Args:
        name: of the cluster and the first context; the second one's adds ``-certificate``.
        url: of the server.
        ca_pem: the authority that signed its certificate.
        token: for the first context.
        certificate: for the second.
    """
    second = f"{name}-{BY_CERTIFICATE}"
    cluster = {"server": url, "certificate-authority-data": _base64(ca_pem)}
    keys = {
        "client-certificate-data": _base64(certificate.certificate),
        "client-key-data": _base64(certificate.key),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}, {"name": second, "user": keys}],
        "contexts": [
            {"name": each, "context": {"cluster": name, "user": each, "namespace": "default"}}
            for each in (name, second)
        ],
        "current-context": name,
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
