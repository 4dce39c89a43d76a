"""Semantic versions and ranges of them: ``>=2,<3``, ``^1.4``, ``~1.4.2``, ``*``."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PART: Final = re.compile(r"(\^|~|==|=|!=|>=|<=|>|<)?([0-9.]+)(?:-([0-9A-Za-z.-]+))?")
Key = tuple[tuple[int, ...], tuple[tuple[int, int, str], ...]]
"""Compares as semantic versions do: a pre-release comes before its release."""
_COMPARE: Final[dict[str, Callable[[Key, Key], bool]]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def fits(version: str, wanted: str) -> bool:
    """Return whether a version is in a range.

    A pre-release is, only where a part of the range names one of the same three numbers: ``3.0.0-rc.1`` does
    not meet ``>=2``.

    Args:
        version: a semantic version.
        wanted: a range that matches ``fields.RANGE_PATTERN``; all of its parts have to hold.
    """
    if wanted == "*":
        return "-" not in version.partition("+")[0]
    parts = [_PART.fullmatch(part.strip()) for part in wanted.split(",")]
    numbers, pre = _split(version)
    named = [_numbers(part[2]) for part in parts if part is not None and part[3]]
    if pre and numbers not in named:
        return False
    return all(part is not None and _holds(part, _key(numbers, pre)) for part in parts)


def is_empty(wanted: str) -> bool:
    """Return whether no version can be in a range, as in ``>=3,<2``.

    What a range lets in begins at what one of its parts names, right behind it, or at the first version there
    is; ``!=`` can take out one of those for each part that says so.
    """
    if wanted == "*":
        return False
    parts = [part for each in wanted.split(",") if (part := _PART.fullmatch(each.strip())) is not None]
    begins = {(0, 0, 0), *(_numbers(part[2]) for part in parts)}
    begins |= {_next(_numbers(part[2]), part[2].count(".") + 1, part[1] or "") for part in parts}
    tries = {
        f"{major}.{minor}.{patch + more}" for major, minor, patch in begins for more in range(len(parts) + 1)
    }
    for part in parts:
        if part[3]:
            release = ".".join(map(str, _numbers(part[2])))
            tries |= {f"{release}-{part[3]}"}
            tries |= {
                f"{release}-{start}{more}" for start in ("", f"{part[3]}.") for more in range(len(parts) + 1)
            }
    return not any(fits(version, wanted) for version in tries)


def _holds(part: re.Match[str], version: Key) -> bool:
    sign, text, pre = part[1] or "", part[2], part[3] or ""
    low = _numbers(text)
    given = text.count(".") + 1
    if sign in _COMPARE and not (sign in {"=", "=="} and given < 3):  # noqa: PLR2004 - major, minor, patch
        return _COMPARE[sign](version, _key(low, pre))
    return _key(low, pre) <= version < _key(_next(low, given, sign), "0")


def _next(low: tuple[int, ...], given: int, sign: str) -> tuple[int, ...]:
    """Return the first version that a caret, a tilde or a version given in part leaves out."""
    if sign == "^":
        kept = next((at for at in range(given) if low[at]), given - 1)
    elif sign == "~":
        kept = min(given - 1, 1)
    else:
        kept = given - 1
    return (*low[:kept], low[kept] + 1, *(0 for _ in range(2 - kept)))


def _split(version: str) -> tuple[tuple[int, ...], str]:
    release, _, pre = version.partition("+")[0].partition("-")
    return _numbers(release), pre


def _numbers(text: str) -> tuple[int, ...]:
    found = [int(word) for word in text.split(".")]
    return tuple(found + [0] * (3 - len(found)))


def _key(numbers: tuple[int, ...], pre: str) -> Key:
    if not pre:
        return numbers, ((2, 0, ""),)
    words = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in pre.split("."))
    return numbers, words
