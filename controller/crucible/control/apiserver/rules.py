"""CEL rules of a schema (``x-kubernetes-validations``), compiled once and evaluated on writes.

The base language, optionals without their own syntax, and the Kubernetes libraries of ``celib`` are
understood. What is not is refused with its definition, by ``rulechecks``.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import cel

from . import status
from .celib import FUNCTIONS
from .structural import RULES, item_keys, list_kind
from .validate import ABSENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .jsontypes import Json, Object
    from .status import Cause, Reason
    from .structural import Schema

_OLD = re.compile(r"\boldSelf\b")
_SELF = re.compile(r"(?<![.\w])(?:self|oldSelf)\b(?:\s*\.\s*([A-Za-z_]\w*)\b(?!\s*\())?")
_NAMES = ("name", "generateName")
_STRINGS = re.compile(r"""("(\\.|[^"\\])*"|'(\\.|[^'\\])*')""")
_LONGEST_MESSAGE = 5 * 1024
_FAILURES = (RuntimeError, TypeError, ValueError, KeyError, ArithmeticError)
logging.getLogger("cel").setLevel(logging.ERROR)  # what a function refuses is answered to whoever sent it


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule.

    Attributes:
        transition: It looks at what was before, so it runs only where there was something.
        optional: It looks at what was before, and runs where there was nothing too.
    """

    text: str
    message: str
    message_expression: Callable[[cel.Context], Json] | None
    reason: Reason
    field_path: str
    transition: bool
    optional: bool
    holds: Callable[[cel.Context], Json]


@dataclass(frozen=True, slots=True)
class RuleTree:
    """The rules of one schema node and of the nodes below it that have any.

    Attributes:
        reads: The fields of the node that its rules look at; None where they look at all of it.
        functions: What its rules call beyond the base language.
    """

    rules: tuple[Rule, ...]
    reads: frozenset[str] | None
    fields: dict[str, RuleTree]
    each: RuleTree | None
    schema: Schema
    functions: dict[str, Callable[..., Any]]


def compile_rules(schema: Schema, path: str = "") -> RuleTree | None:
    """The rules in a schema; None where there are none.

    Raises:
        ValueError: A rule cannot be understood; the message starts with its field path.
    """
    said = schema.get(RULES, ())
    rules = tuple(_compile(rule, f"{path}.{RULES}[{at}].rule") for at, rule in enumerate(said))
    texts = [str(rule.get(name) or "") for rule in said for name in ("rule", "messageExpression")]
    fields = {
        name: tree
        for name, below in schema.get("properties", {}).items()
        if (tree := compile_rules(below, f"{path}.properties[{name}]"))
    }
    below = schema.get("items") or schema.get("additionalProperties")
    each = compile_rules(below, f"{path}.items") if isinstance(below, dict) else None
    if not (rules or fields or each):
        return None
    called = {name: FUNCTIONS[name] for text in texts for name in functions_called(text)}
    return RuleTree(rules, fields_read(*texts), fields, each, schema, called)


def fields_read(*expressions: str) -> frozenset[str] | None:
    """The fields of ``self`` and ``oldSelf`` that expressions name; None where one may look at any."""
    found: set[str] = set()
    for text in expressions:
        for match in _SELF.finditer(_STRINGS.sub('""', text)):
            if not match[1]:
                return None
            found.add(match[1])
    return frozenset(found)


def functions_called(expression: str) -> frozenset[str]:
    """The functions of ours that an expression calls, by their names in ``celib``."""
    if not expression.strip():
        return frozenset()
    named = cel.compile(expression).references()
    spaces = ["", *(f"{name}." for name in named["variables"])]
    return frozenset(f"{space}{name}" for name in named["functions"] for space in spaces) & FUNCTIONS.keys()


def without_strings(expression: str) -> str:
    """An expression whose texts are all empty, so that what they say is not taken for its own words."""
    return _STRINGS.sub('""', expression)


def looks_back(expression: str) -> bool:
    """Whether an expression looks at what was before."""
    return bool(_OLD.search(without_strings(expression)))


def _compile(rule: dict[str, Json], where: str) -> Rule:
    text = str(rule.get("rule", ""))
    try:
        program = cel.compile(text)
        expression = rule.get("messageExpression")
        explain = cel.compile(expression).execute if expression else None
    except ValueError as error:
        raise ValueError(f"{where}: compilation failed: {error}") from error
    optional = rule.get("optionalOldSelf") is True
    return Rule(
        text=text,
        message=str(rule.get("message") or f"failed rule: {text.strip()}"),
        message_expression=explain,
        reason=cast("Reason", rule.get("reason") or "FieldValueInvalid"),
        field_path=str(rule.get("fieldPath") or ""),
        transition=looks_back(text) and not optional,
        optional=optional,
        holds=program.execute,
    )


def check_rules(value: Json, tree: RuleTree | None, path: str = "", old: Json = ABSENT) -> list[Cause]:
    """The rules that do not hold for an object; transition rules run where there is an ``old`` one.

    Where what rules look at is as it was, they do not run. Of metadata they see the names only.
    """
    return list(_broken(_named(value), tree, path, _named(old))) if tree else []


def _named(value: Json) -> Json:
    meta = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(meta, dict):
        return value
    return {**value, "metadata": {name: meta[name] for name in _NAMES if name in meta}}


def _broken(value: Json, tree: RuleTree, path: str, old: Json) -> Iterator[Cause]:
    if value is None:
        return
    if tree.rules:
        yield from _broken_here(_looked_at(value, tree.reads), tree, path, _looked_at(old, tree.reads))
    if isinstance(value, dict):
        yield from _broken_fields(value, tree, path, old if isinstance(old, dict) else {})
    elif isinstance(value, list) and tree.each:
        for at, item in enumerate(value):
            yield from _broken(item, tree.each, f"{path}[{at}]", _before(tree.schema, item, old))


def _looked_at(value: Json, reads: frozenset[str] | None) -> Json:
    """What rules can see of a value: turning it into CEL costs more than evaluating them."""
    if reads is None or not isinstance(value, dict):
        return value
    return {name: value[name] for name in reads if name in value}


def _broken_here(value: Json, tree: RuleTree, path: str, old: Json) -> Iterator[Cause]:
    if old is not ABSENT and value == old:
        return
    try:
        scopes = _Scopes(value, old, tree)
    except _FAILURES as error:
        yield status.rule_broken(path or "<nil>", f"rule evaluation error: {error}: {tree.rules[0].text}")
        return
    for rule in tree.rules:
        if not (rule.transition and old is ABSENT):
            cause = _judge(rule, scopes.optional if rule.optional else scopes.plain, path)
            if cause:
                yield cause


class _Scopes:
    """What the rules of one node see."""

    def __init__(self, value: Json, old: Json, tree: RuleTree) -> None:
        seen = {"self": value} if old is ABSENT else {"self": value, "oldSelf": old}
        self.plain = cel.Context(seen, functions=tree.functions)
        self.optional = self.plain
        if any(rule.optional for rule in tree.rules):
            before = cel.OptionalValue.none() if old is ABSENT else cel.OptionalValue.of(old)
            self.optional = cel.Context({"self": value, "oldSelf": before}, functions=tree.functions)


def _broken_fields(value: Object, tree: RuleTree, path: str, before: Object) -> Iterator[Cause]:
    for name, below in tree.fields.items():
        if name in value:
            where = f"{path}.{name}" if path else name
            yield from _broken(value[name], below, where, before.get(name, ABSENT))
    if tree.each and "items" not in tree.schema:
        for name, item in value.items():
            yield from _broken(item, tree.each, f"{path}[{name}]", before.get(name, ABSENT))


def _before(schema: Schema, item: Json, old: Json) -> Json:
    if not isinstance(old, list) or list_kind(schema) != "map":
        return ABSENT
    keys = item_keys(schema, item)
    return next((found for found in old if item_keys(schema, found) == keys), ABSENT)


def _judge(rule: Rule, scope: cel.Context, path: str) -> Cause | None:
    where = (path + rule.field_path).removeprefix(".") or "<nil>"
    try:
        if rule.holds(scope) is True:
            return None
    except _FAILURES as error:
        what = f"no such key: {error.args[0]}" if isinstance(error, KeyError) else str(error)
        return status.rule_broken(where, f"rule evaluation error: {what}: {rule.text}")
    return status.Cause(rule.reason, where, _worded(rule, scope))


def _worded(rule: Rule, scope: cel.Context) -> str:
    """The rule's message; that of its expression where it gives one line of text."""
    text = rule.message
    if rule.message_expression:
        try:
            told = rule.message_expression(scope)
        except _FAILURES:
            told = None
        if isinstance(told, str) and told.strip() and "\n" not in told and len(told) <= _LONGEST_MESSAGE:
            text = told.strip()
    return {
        "FieldValueForbidden": f"Forbidden: {text}",
        "FieldValueRequired": f"Required value: {text}",
        "FieldValueDuplicate": f"Duplicate value: {text}",
    }.get(rule.reason, f"Invalid value: {text}")
