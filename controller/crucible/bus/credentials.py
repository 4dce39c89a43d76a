"""TLS contexts: version 1.3 only, from certificates and keys that lie in memory."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from crucible.errors import Unavailable

if TYPE_CHECKING:
    from crucible.model.backbone import Joining


def context_of(joining: Joining) -> ssl.SSLContext:
    """Return how to speak TLS to the backbone: both sides show who they are.

    Raises:
        Unavailable: the certificates are none.
    """
    context = _version_3(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=joining.authority)
        _load(context, f"{joining.certificate}\n{joining.key}")
    except (ssl.SSLError, ValueError) as error:
        raise Unavailable(f"the certificates for the backbone cannot be used: {error}") from error
    return context


def dialling(joining: Joining) -> ssl.SSLContext:
    """Return how to speak TLS to machines that we go to: both sides show who they are.

    To whom the other's certificate is made out, the caller compares by itself. TLS would do so for a name
    that it first says in plain text, and who is met here is nobody else's business.

    Raises:
        Unavailable: the certificates are none.
    """
    context = context_of(joining)
    context.check_hostname = False
    return context


def meeting(joining: Joining) -> ssl.SSLContext:
    """Return how to speak TLS to machines that come to us: both sides show who they are.

    Raises:
        Unavailable: the certificates are none.
    """
    context = _version_3(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # each connection is one handshake, which nobody can replay
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=joining.authority)
        _load(context, f"{joining.certificate}\n{joining.key}")
    except (ssl.SSLError, ValueError) as error:
        raise Unavailable(f"the certificates for direct lines cannot be used: {error}") from error
    return context


def serving(certificate: str, key: str) -> ssl.SSLContext:
    """Return how to speak TLS to plugins, who are known by other means: this side alone shows who it is.

    Args:
        certificate: in PEM, those of who vouches for it included.
        key: its key, in PEM.

    Raises:
        Unavailable: they are none.
    """
    context = _version_3(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # each connection is one handshake, which nobody can replay
    try:
        _load(context, f"{certificate}\n{key}")
    except (ssl.SSLError, ValueError) as error:
        raise Unavailable(f"the certificate for the bus cannot be used: {error}") from error
    return context


def renew(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Show another certificate from the next connection on."""
    _load(context, f"{certificate}\n{key}")


def _version_3(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
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
