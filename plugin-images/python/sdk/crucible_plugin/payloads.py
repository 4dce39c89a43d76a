"""Values to payloads and back: JSON, and bytes as they are."""

from __future__ import annotations

import json

from crucible_plugin.errors import Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def to_bytes(value: object) -> bytes:
    """Return a payload: bytes as they are, nothing for None, JSON for all else.

    Raises:
        TypeError: it has no JSON form.
    """
    if isinstance(value, bytes):
        return value
    return b"" if value is None else _encode(value).encode()


def from_bytes(payload: bytes) -> Any:  # noqa: ANN401 - it is what somebody sent
    """Return the value of a payload; None for an empty one.

    Raises:
        Malformed: it is no JSON.
    """
    if not payload:
        return None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise Malformed("the payload is no JSON: take it as bytes with raw=True") from None
