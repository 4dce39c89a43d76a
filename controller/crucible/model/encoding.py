"""JSON as bytes and back, as fast as there is a way."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json


def encoded(value: object) -> bytes:
    """Return what JSON holds as JSON.

    Raises:
        RecursionError: it is nested too deeply.
    """
    try:
        return to_json(value)
    except PydanticSerializationError:  # half of a surrogate pair, or deeper than that encoder goes
        return json.dumps(value).encode()


def decoded(text: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return what a JSON text says.

    Raises:
        ValueError: it is none.
    """
    try:
        return from_json(text)
    except ValueError:  # no JSON, or the same
        return json.loads(text)
