"""Label and field selectors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .jsontypes import dig
from .metadata import label_key_problem, label_value_problem
from .status import bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .jsontypes import Object
    from .resources import Resource

Operator = Literal["=", "!=", "in", "notin", "exists", "!"]

_TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|[^\s=!(),]+)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One comma-separated part of a label selector."""

    key: str
    operator: Operator
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the labels satisfy it; a missing label satisfies != and notin."""
        has = self.key in labels
        match self.operator:
            case "exists":
                return has
            case "!":
                return not has
            case "=" | "in":
                return has and labels[self.key] in self.values
            case "!=" | "notin":
                return not has or labels[self.key] not in self.values


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One part of a field selector."""

    path: tuple[str, ...]
    value: str
    equal: bool


@dataclass(frozen=True, slots=True)
class Selector:
    """What a list or watch is narrowed to."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()

    def __bool__(self) -> bool:
        """True if it narrows anything."""
        return bool(self.labels or self.fields)

    def matches(self, body: Object) -> bool:
        """True if the object is selected."""
        labels = body["metadata"].get("labels") or {}
        return all(part.matches(labels) for part in self.labels) and all(
            (_field_text(body, term.path) == term.value) == term.equal for term in self.fields
        )

    @property
    def name(self) -> str | None:
        """The one name selected by ``metadata.name=``, if any."""
        wanted = (t.value for t in self.fields if t.equal and t.path == ("metadata", "name"))
        return next(wanted, None)


def _field_text(body: Object, path: tuple[str, ...]) -> str:
    if path == ("source",):
        path = ("source", "component")
    value = dig(body, *path)
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Read a label selector such as ``app=web,tier in (a,b),!canary``.

    Raises:
        ApiError: 400, the text is malformed.
    """
    tokens = _tokens(text)
    found = []
    while tokens:
        found.append(_requirement(tokens, text))
        if tokens and (tokens.pop(0) != "," or not tokens):
            raise _unreadable(text, "expected ',' and another requirement")
    return tuple(found)


def _tokens(text: str) -> list[str]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if not match:
            raise _unreadable(text, f"unexpected character at {at}")
        tokens.append(match.group(1))
        at = match.end()
    return tokens


def _requirement(tokens: list[str], text: str) -> Requirement:
    first = tokens.pop(0)
    if first == "!":
        return Requirement(_key(tokens, text), "!", frozenset())
    tokens.insert(0, first)
    key = _key(tokens, text)
    if not tokens or tokens[0] == ",":
        return Requirement(key, "exists", frozenset())
    operator = tokens.pop(0)
    match operator:
        case "=" | "==" | "!=":
            value = tokens.pop(0) if tokens and tokens[0] != "," else ""
            _check_value(value, text)
            return Requirement(key, "!=" if operator == "!=" else "=", frozenset({value}))
        case "in" | "notin":
            return Requirement(key, "in" if operator == "in" else "notin", _values(tokens, text))
        case _:
            raise _unreadable(text, f"found '{operator}', expected: in, notin, =, ==, !=")


def _key(tokens: list[str], text: str) -> str:
    key = tokens.pop(0) if tokens else ""
    problem = label_key_problem(key)
    if problem:
        raise _unreadable(text, f"key {key!r}: {problem}")
    return key


def _values(tokens: list[str], text: str) -> frozenset[str]:
    if not tokens or tokens.pop(0) != "(":
        raise _unreadable(text, "expected '('")
    values, expects_value = set(), True
    while tokens:
        part = tokens.pop(0)
        if part in {")", ","} and expects_value:
            values.add("")
        if part == ")":
            return frozenset(values)
        if part == ",":
            expects_value = True
        elif not expects_value:
            break
        else:
            _check_value(part, text)
            values.add(part)
            expects_value = False
    raise _unreadable(text, "expected ',' or ')'")


def _check_value(value: str, text: str) -> None:
    problem = label_value_problem(value)
    if problem:
        raise _unreadable(text, f"value {value!r}: {problem}")


def _unreadable(text: str, why: str) -> Exception:
    return bad_request(f"unable to parse requirement: {why} in label selector {text!r}")


def parse_fields(text: str, resource: Resource) -> tuple[FieldTerm, ...]:
    """Read a field selector such as ``metadata.name=a,status.phase!=Failed``.

    Raises:
        ApiError: 400, the text is malformed or names a field that is not selectable.
    """
    allowed = {"metadata.name", *resource.field_labels}
    if resource.namespaced:
        allowed.add("metadata.namespace")
    terms = []
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", part.strip(), re.DOTALL)
        if not match:
            raise bad_request(f"invalid field selector {text!r}; can't understand {part.strip()!r}")
        name, operator, value = match.groups()
        if name not in allowed:
            raise bad_request(f"field label not supported: {name}")
        plain = re.sub(r"\\(.)", r"\1", value)
        terms.append(FieldTerm(tuple(name.split(".")), plain, operator != "!="))
    return tuple(terms)
