"""CEL's ``format``: ``"%s has %d".format([name, count])``."""

from __future__ import annotations

import re
from typing import Any, Final

_VERB: Final = re.compile(r"%(?:(%)|(?:\.([0-9]{1,2}))?([sdfebxXo])|(.?))", re.DOTALL)
_WHOLE: Final = {"d": "d", "b": "b", "o": "o", "x": "x", "X": "X"}


def format_text(text: str, values: list[Any]) -> str:
    """Fill a text's verbs with values, each of which must be used.

    Raises:
        ValueError: a verb is unknown, does not fit its value, or there are more of one than of the other.
    """
    remaining = list(values)

    def fill(match: re.Match[str]) -> str:
        percent, precision, verb, unknown = match.groups()
        if percent:
            return "%"
        if verb is None:
            raise ValueError(f"could not parse formatting clause: unrecognized formatting clause {unknown!r}")
        if not remaining:
            raise ValueError("index out of range: there are more verbs than values")
        return _shown(verb, precision, remaining.pop(0))

    filled = _VERB.sub(fill, text)
    if remaining:
        raise ValueError("there are more values than verbs")
    return filled


def _shown(verb: str, precision: str | None, value: Any) -> str:  # noqa: ANN401 - whatever CEL holds
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    match value:
        case _ if verb == "s":
            return _as_text(value)
        case int() | float() if verb in {"f", "e"} and not isinstance(value, bool):
            return f"{value:.{precision or 6}{verb}}"
        case bool() if verb == "b":
            return str(int(value))
        case str() | bytes() if verb in {"x", "X"}:
            raw = (value.encode() if isinstance(value, str) else value).hex()
            return raw.upper() if verb == "X" else raw
        case _ if is_whole and verb in _WHOLE:
            return format(value, _WHOLE[verb])
        case _:
            raise ValueError(f"error during formatting: {type(value).__name__} does not fit %{verb}")


def _as_text(value: Any) -> str:  # noqa: ANN401
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else repr(value)
        case list():
            return f"[{', '.join(map(_as_text, value))}]"
        case _:
            raise ValueError(f"error during formatting: {type(value).__name__} cannot be shown with %s")
