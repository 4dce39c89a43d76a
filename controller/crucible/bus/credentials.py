"""From the words of a :class:`Joining` to a TLS context: version 1.3, both sides show who they are."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from crucible.errors import Unavailable

if TYPE_CHECKING:
    from crucible.model.backbone import Joining


def context_of(joining: Joining) -> ssl.SSLContext:
    """Return how to speak TLS to the backbone.

    Raises:
        Unavailable: the certificates are none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=joining.authority)
        _load(context, f"{joining.certificate}\n{joining.key}")
    except (ssl.SSLError, ValueError) as error:
        raise Unavailable(f"the certificates for the backbone cannot be used: {error}") from error
    return context


def _load(context: ssl.SSLContext, chain: str) -> None:
    """Load a certificate and its key. Python takes them from files only: from one in memory alone."""
    held = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(held, "w", closefd=False) as file:
            file.write(chain)
        context.load_cert_chain(f"/proc/self/fd/{held}")
    finally:
        os.close(held)
