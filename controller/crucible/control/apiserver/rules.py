"""CEL rules of a schema (``x-kubernetes-validations``), compiled once and evaluated on writes.

The base language is understood; the Kubernetes libraries (``isURL``, ``quantity``, ...) and optionals are
not, and a CRD that needs them is refused when it is created.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cel

from . import status
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
_NOT_HERE = re.compile(
    r"\b(isURL|url|quantity|isQuantity|ip|isIP|cidr|isCIDR|format|authorizer|semver|isSemver)\s*\("
    r"|\.(lowerAscii|upperAscii|split|join|trim|replace|substring|charAt|indexOf|lastIndexOf|find|findAll"
    r"|sum|min|max|isSorted|getHost|getPort|getScheme|orValue|hasValue|optMap|format)\s*\(|\.\?|\[\?"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule."""

    text: str
    message: str
    message_expression: Callable[[cel.Context], Json] | None
    reason: Reason
    field_path: str
    transition: bool
    holds: Callable[[cel.Context], Json]


@dataclass(frozen=True, slots=True)
class RuleTree:
    """The rules of one schema node and of the nodes below it that have any.

    Attributes:
        reads: The fields of the node that its rules look at; None where they look at all of it.
    """

    rules: tuple[Rule, ...]
    reads: frozenset[str] | None
    fields: dict[str, RuleTree]
    each: RuleTree | None
    schema: Schema


def compile_rules(schema: Schema, path: str = "") -> RuleTree | None:
    """The rules in a schema; None where there are none.

    Raises:
        ValueError: A rule cannot be understood; the message starts with its field path.
    """
    said = schema.get(RULES, ())
    rules = tuple(_compile(rule, f"{path}.{RULES}[{at}].rule") for at, rule in enumerate(said))
    explanations = [str(rule.get("messageExpression") or "") for rule in said]
    fields = {
        name: tree
        for name, below in schema.get("properties", {}).items()
        if (tree := compile_rules(below, f"{path}.properties[{name}]"))
    }
    below = schema.get("items") or schema.get("additionalProperties")
    each = compile_rules(below, f"{path}.items") if isinstance(below, dict) else None
    reads = fields_read(*(str(rule.get("rule", "")) for rule in said), *explanations)
    return RuleTree(rules, reads, fields, each, schema) if rules or fields or each else None


def fields_read(*expressions: str) -> frozenset[str] | None:
    """The fields of ``self`` and ``oldSelf`` that expressions name; None where one may look at any."""
    found: set[str] = set()
    for text in expressions:
        for match in _SELF.finditer(_STRINGS.sub('""', text)):
            if not match[1]:
                return None
            found.add(match[1])
    return frozenset(found)


def _compile(rule: dict[str, Json], where: str) -> Rule:
    text = str(rule.get("rule", ""))
    bare = _STRINGS.sub('""', text)
    if rule.get("optionalOldSelf"):
        raise ValueError(f"{where}: optionalOldSelf is not supported by this server")
    missing = _NOT_HERE.search(bare)
    if missing:
        raise ValueError(f"{where}: {missing.group().strip('( ')} is outside the CEL base language")
    try:
        program = cel.compile(text)
        expression = rule.get("messageExpression")
        explain = cel.compile(expression).execute if expression else None
    except ValueError as error:
        raise ValueError(f"{where}: compilation failed: {error}") from error
    return Rule(
        text=text,
        message=str(rule.get("message") or f"failed rule: {text.strip()}"),
        message_expression=explain,
        reason=cast("Reason", rule.get("reason") or "FieldValueInvalid"),
        field_path=str(rule.get("fieldPath") or ""),
        transition=bool(_OLD.search(bare)),
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
        scope = cel.Context({"self": value} if old is ABSENT else {"self": value, "oldSelf": old})
    except (RuntimeError, TypeError, ValueError) as error:
        yield status.rule_broken(path or "<nil>", f"rule evaluation error: {error}: {tree.rules[0].text}")
        return
    for rule in tree.rules:
        if not (rule.transition and old is ABSENT):
            cause = _judge(rule, scope, path)
            if cause:
                yield cause


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
    where = (path + rule.field_path) if rule.field_path else (path or "<nil>")
    try:
        if rule.holds(scope) is True:
            return None
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        what = f"no such key: {error.args[0]}" if isinstance(error, KeyError) else str(error)
        return status.rule_broken(where, f"rule evaluation error: {what}: {rule.text}")
    return status.Cause(rule.reason, where, _worded(rule, scope))


def _worded(rule: Rule, scope: cel.Context) -> str:
    text = rule.message
    if rule.message_expression:
        try:
            text = str(rule.message_expression(scope))
        except (RuntimeError, TypeError, ValueError, KeyError):
            text = rule.message
    return {
        "FieldValueForbidden": f"Forbidden: {text}",
        "FieldValueRequired": f"Required value: {text}",
        "FieldValueDuplicate": f"Duplicate value: {text}",
    }.get(rule.reason, f"Invalid value: {text}")
