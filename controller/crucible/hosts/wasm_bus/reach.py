"""How the broker is reached."""

from __future__ import annotations

import socket
from typing import Final

HANDSHAKE: Final = 10.0
"""Seconds in which the other side answers."""


def reach(address: str, authority: str) -> socket.socket:
    """Connect to a Unix socket; or by TLS 1.3, to whom the authority vouches for by its name.

    Raises:
        OSError: nobody listens, or not who should.
        ValueError: that is no address.
    """
    scheme, found, rest = address.rpartition("://")
    if not found:
        return _unix(address)
    path = rest if rest.startswith("/") else ""
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    named = host and "/" not in host and port.isascii() and port.isdigit()
    if scheme != "tls" or not authority or not (path or named):
        raise ValueError("CRUCIBLE_BUS is tls://HOST:PORT or tls:///PATH, and CRUCIBLE_BUS_CA a certificate")
    import ssl  # noqa: PLC0415 - most have no use for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    context.load_verify_locations(cafile=authority)
    plain = _unix(path) if path else socket.create_connection((host, int(port)), HANDSHAKE)
    try:
        if not path:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="crucible-bus" if path else host)
    except BaseException:
        plain.close()
        raise


def _unix(path: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.settimeout(HANDSHAKE)
    try:
        found.connect(path)
    except BaseException:
        found.close()
        raise
    return found
