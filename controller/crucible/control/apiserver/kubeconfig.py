"""Our kubeconfig; merging it into a user's is done where no server is loaded."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.control.kubeconfig import merge_kubeconfig

if TYPE_CHECKING:
    from .jsontypes import Object
    from .tls import TlsFiles

__all__ = ["NAME", "Certificate", "certificate_of", "kubeconfig_for", "merge_kubeconfig"]

NAME: Final = "crucible"
BY_CERTIFICATE: Final = "crucible-certificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate and its key, PEM."""

    certificate: bytes
    key: bytes


def certificate_of(files: TlsFiles) -> Certificate:
    """The client certificate a server issued."""
    return Certificate(files.client_cert.read_bytes(), files.client_key.read_bytes())


def kubeconfig_for(url: str, ca_pem: bytes, token: str, certificate: Certificate) -> Object:
    """A kubeconfig whose namespace is ``default``: one context by token, the current, one by certificate."""
    cluster = {"server": url, "certificate-authority-data": _base64(ca_pem)}
    keys = {
        "client-certificate-data": _base64(certificate.certificate),
        "client-key-data": _base64(certificate.key),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token}}, {"name": BY_CERTIFICATE, "user": keys}],
        "contexts": [
            {"name": name, "context": {"cluster": NAME, "user": name, "namespace": "default"}}
            for name in (NAME, BY_CERTIFICATE)
        ],
        "current-context": NAME,
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
