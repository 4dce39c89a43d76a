"""Who may speak to the server: the Host it was reached by, no browser's Origin, and its token."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from .status import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


def check_request(headers: Mapping[str, str], token: str, *, has_certificate: bool) -> None:
    """Refuse requests that a web page could have made, and those without the token or a certificate.

    Raises:
        ApiError: 403 for Host and Origin, 401 for credentials.
    """
    host = headers.get("Host", "")
    name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
    if name.lower() not in LOOPBACK_NAMES:
        raise ApiError(403, "Forbidden", "the Host header does not name this machine's loopback address")
    if "Origin" in headers:
        raise ApiError(403, "Forbidden", "requests from web pages are refused")
    if has_certificate:
        return
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise ApiError(401, "Unauthorized", "Unauthorized")


def is_loopback(host: str) -> bool:
    """True if an address to listen on cannot be reached from elsewhere."""
    return host in {"localhost", "::1"} or (host.startswith("127.") and host.count(".") == 3)  # noqa: PLR2004 - dotted quad
