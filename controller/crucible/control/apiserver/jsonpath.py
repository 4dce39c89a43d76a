"""The JSONPath subset of printer columns: fields, indexes, wildcards and equality filters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .jsontypes import Json

_STEP = re.compile(
    r"\.(?P<field>(?:\\.|[^.\[\]\\])+)"
    r"|\[(?P<quote>['\"])(?P<quoted>(?:\\.|(?!(?P=quote)).)+)(?P=quote)\]"
    r"|\[(?P<index>-?\d+)\]"
    r"|\[(?P<star>\*)\]"
    r"|\[\?\(@\.(?P<key>[\w.-]+)\s*==\s*(?P<mark>['\"])(?P<wanted>.*?)(?P=mark)\)\]"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Keep the items whose ``key`` has the text ``wanted``."""

    key: tuple[str, ...]
    wanted: str


Step = str | int | None | Filter
"""A field name, an index, None for ``*``, or a filter."""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A compiled path."""

    text: str
    steps: tuple[Step, ...]

    def find(self, value: Json) -> list[Json]:
        """Every value the path reaches, in order."""
        found = [value]
        for step in self.steps:
            found = [below for item in found for below in _below(item, step)]
        return found

    def first(self, value: Json) -> Json:
        """The first value the path reaches, or None."""
        return next(iter(self.find(value)), None)


def compile_path(text: str) -> JsonPath:
    """Read a path such as ``.status.conditions[?(@.type=="Ready")].status``.

    Raises:
        ValueError: The text is not in the subset.
    """
    steps: list[Step] = []
    bare = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    at = 0
    while at < len(bare):
        match = _STEP.match(bare, at)
        if not match:
            raise ValueError(f"unsupported JSONPath {text!r} at position {at}")
        steps.append(_step(match))
        at = match.end()
    return JsonPath(text, tuple(steps))


def _step(match: re.Match[str]) -> Step:
    if match["field"] is not None:
        name = re.sub(r"\\(.)", r"\1", match["field"])
        return None if name == "*" else name
    if match["quoted"] is not None:
        return re.sub(r"\\(.)", r"\1", match["quoted"])
    if match["index"] is not None:
        return int(match["index"])
    if match["star"] is not None:
        return None
    return Filter(tuple(match["key"].split(".")), match["wanted"])


def _below(value: Json, step: Step) -> list[Json]:
    match step:
        case str():
            return [value[step]] if isinstance(value, dict) and step in value else []
        case int():
            inside = isinstance(value, list) and -len(value) <= step < len(value)
            return [value[step]] if inside else []
        case None:
            return list(value.values()) if isinstance(value, dict) else list(value or ())
        case Filter(key, wanted):
            items = value if isinstance(value, list) else []
            return [item for item in items if _text(item, key) == wanted]


def _text(value: Json, key: tuple[str, ...]) -> str | None:
    for name in key:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return str(value).lower() if isinstance(value, bool) else str(value)
