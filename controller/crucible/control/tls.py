"""The TLS context for an API server."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crucible.control.kubeconfig import Endpoint


def tls_of(endpoint: Endpoint) -> ssl.SSLContext:
    """Return the TLS context an endpoint asks for; certificates are always verified."""
    context = ssl.create_default_context(cadata=endpoint.ca or None)
    if endpoint.certificate:
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder, "chain.pem")
            chain.touch(mode=0o600)
            chain.write_text(f"{endpoint.certificate}\n{endpoint.key}")
            context.load_cert_chain(chain)
    return context
