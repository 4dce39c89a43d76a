"""Expressions of custom probes: CEL, held to a part of it whose cost is the length of its text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN: Final = frozenset({"usage", "probes", "age"})
"""What an expression may speak of: what the instance uses, its other probes by name, its age in seconds."""
FIGURES: Final = frozenset({"memory", "cpu", "pids", "throttled"})
"""What is known of ``usage``, where the runtime can tell it."""
CHECKS: Final = frozenset({"startup", "ready", "live"})
"""The names that ``probes`` may have."""
_LOOPS: Final = frozenset(
    {"all", "exists", "exists_one", "existsOne", "map", "filter", "transformList", "transformMap", "matches"}
)
"""Words that make an expression run over lists, or over text in ways that take long."""
_STRINGS: Final = re.compile(r"""("(\\.|[^"\\])*"|'(\\.|[^'\\])*')""")
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_MEMBER: Final = re.compile(r"(?<![\w.])(usage|probes)\s*\.\s*([A-Za-z_]\w*)(?!\w|\s*\()")
_MEMBERS: Final = {"usage": FIGURES, "probes": CHECKS}
_FAILURES: Final = (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError)


class Unfit(ValueError):
    """An expression that cannot be evaluated, or gave no truth; says why."""


def check(text: str) -> None:
    """Compile an expression and look at what it speaks of.

    Raises:
        Unfit: it is no CEL, runs in loops, or speaks of what there is not.
    """
    bare = _STRINGS.sub("''", text)
    loops = sorted(_LOOPS & set(_WORD.findall(bare)))
    if loops or '"""' in text or "'''" in text:
        raise Unfit(f"uses {', '.join(loops) or 'a long string'}, which could keep the controller busy")
    unknown = sorted(set(_compiled(text).references()["variables"]) - KNOWN)
    if unknown:
        raise Unfit(f"speaks of {', '.join(unknown)}; there is {', '.join(sorted(KNOWN))}")
    for whole, member in _MEMBER.findall(bare):
        if member not in _MEMBERS[whole]:
            there = ", ".join(f"{whole}.{name}" for name in sorted(_MEMBERS[whole]))
            raise Unfit(f"speaks of {whole}.{member}; there is {there}")


def figures(text: str) -> tuple[str, ...]:
    """Return the figures of use that an expression names, in whatever way."""
    return tuple(sorted(FIGURES & set(_WORD.findall(text))))


def holds(text: str, facts: Mapping[str, Any]) -> bool:
    """Return whether an expression holds.

    Raises:
        Unfit: it cannot be evaluated with these facts, or is neither true nor false.
    """
    import cel  # noqa: PLC0415 - 130 ms that only a plugin with an expression has to pay

    try:
        found = _compiled(text).execute(cel.Context(dict(facts)))
    except _FAILURES as error:
        raise Unfit(f"cannot be evaluated: {error}") from None
    if not isinstance(found, bool):
        raise Unfit(f"is {found!r}, neither true nor false")
    return found


@lru_cache(maxsize=512)
def _compiled(text: str) -> Any:  # noqa: ANN401 - cel has no types
    import cel  # noqa: PLC0415 - the same

    try:
        return cel.compile(text)
    except _FAILURES as error:
        first = (str(error).strip().splitlines() or ["it cannot be parsed"])[0]
        raise Unfit(f"is no CEL expression: {first}") from None
