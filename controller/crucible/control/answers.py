"""What an API server's error answers mean to us."""

from __future__ import annotations

import json
from typing import Any

from crucible.errors import (
    Conflict,
    CrucibleError,
    InvalidInput,
    InvalidManifest,
    NotFound,
    Unavailable,
    Violation,
)


def error_of(code: int, text: str) -> CrucibleError:
    """Return the error that an HTTP answer of 400 and above stands for.

    Args:
        code: HTTP status.
        text: the body, a Kubernetes Status or anything at all.
    """
    status = _status(text)
    message = status.get("message") or text[:500] or f"HTTP status {code}"
    match code:
        case 404:
            return NotFound(message)
        case 409 | 412:
            return Conflict(message)
        case 422 if causes := (status.get("details") or {}).get("causes"):
            return InvalidManifest(
                tuple(Violation(cause.get("field", ""), cause.get("message", "")) for cause in causes)
            )
        case 429 | 500 | 502 | 503 | 504:
            return Unavailable(message)
        case _:
            return InvalidInput(message)


def _status(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
