"""CEL rules as their definition arrives: what is wrong with one, and what of CEL this server does not know.

A rule is either evaluated as a real server would, or refused here: never accepted and ignored. Types are not
known before a rule runs; where they do not fit, the rule fails, and the object is refused with the reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import cel

from . import status
from .celib import FUNCTIONS
from .rules import looks_back, without_strings
from .structural import RULES, list_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .jsontypes import Json
    from .status import Cause
    from .structural import Schema

_REASONS: Final = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
_WORD: Final = re.compile(r"\w+")
_BASE: Final = frozenset(
    _WORD.findall(
        "size contains startsWith endsWith matches int uint double string bytes timestamp duration type dyn "
        "getFullYear getMonth getDate getDayOfMonth getDayOfWeek getDayOfYear getHours getMinutes getSeconds "
        "getMilliseconds hasValue value orValue or of none ofNonZeroValue"
    )
)
_SPACES: Final = frozenset({"optional", *(name.partition(".")[0] for name in FUNCTIONS if "." in name)})
_TYPES: Final = frozenset(_WORD.findall("bool int uint double string bytes list map null_type type"))
_KNOWN: Final = _BASE | {name.rpartition(".")[2] for name in FUNCTIONS}
_BOUND: Final = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_ESCAPED: Final = re.compile(r"\.\s*(\w*__(?:dash|dot|slash|underscores)__\w*|__[a-z]+__)")
_STEP: Final = re.compile(r"\.([A-Za-z_][\w$-]*)|\['([^'\]]+)'\]")


def check_rule_definitions(schema: Schema, where: str, outside: str = "") -> Iterator[Cause]:
    """Everything wrong with the rules in a schema.

    Args:
        schema: with its rules and those below.
        where: its path in the definition.
        outside: the path of a list above whose items cannot be told from those before; "": there is none.
    """
    rules = schema.get(RULES) or ()
    for at, rule in enumerate(rules if isinstance(rules, list) else ()):
        here = f"{where}.{RULES}[{at}]"
        if isinstance(rule, dict):
            yield from _check_rule(rule, schema, here, outside)
        else:
            yield status.type_invalid(here, "string", "must be an object")
    for name, below in (schema.get("properties") or {}).items():
        yield from check_rule_definitions(below, f"{where}.properties[{name}]", outside)
    items, extra = schema.get("items"), schema.get("additionalProperties")
    if isinstance(items, dict):
        lost = outside or ("" if list_kind(schema) == "map" else where)
        yield from check_rule_definitions(items, f"{where}.items", lost)
    if isinstance(extra, dict):
        yield from check_rule_definitions(extra, f"{where}.additionalProperties", outside)


def _check_rule(rule: dict[str, Json], schema: Schema, where: str, outside: str) -> Iterator[Cause]:
    text, told = str(rule.get("rule") or ""), rule.get("messageExpression")
    if not text.strip():
        yield status.required(f"{where}.rule", "rule is not specified")
        return
    yield from _check_words(rule, where)
    if rule.get("fieldPath") and not _leads_to_field(str(rule["fieldPath"]), schema):
        yield status.invalid(f"{where}.fieldPath", rule["fieldPath"], "fieldPath must be a valid path")
    yield from _check_expression(text, f"{where}.rule")
    if told is not None:
        yield from _check_expression(str(told), f"{where}.messageExpression")
    if rule.get("optionalOldSelf") is not None and not looks_back(text):
        detail = "may not be set if oldSelf is not used in rule"
        yield status.invalid(f"{where}.optionalOldSelf", rule["optionalOldSelf"], detail)
    if outside and looks_back(text):
        detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {outside}"
        yield status.invalid(f"{where}.rule", text, detail)


def _check_words(rule: dict[str, Json], where: str) -> Iterator[Cause]:
    """What can be wrong about a rule's words for people."""
    reason, message, told = rule.get("reason"), rule.get("message"), rule.get("messageExpression")
    if reason is not None and reason not in _REASONS:
        yield status.unsupported(f"{where}.reason", reason, _REASONS)
    if message is not None and not str(message).strip():
        yield status.invalid(f"{where}.message", message, "message must be non-empty if specified")
    elif "\n" in str(message or "").strip():
        yield status.invalid(f"{where}.message", message, "message must not contain line breaks")
    elif "\n" in str(rule["rule"]).strip() and not (message or told):
        detail = "message must be specified if rule contains line breaks"
        yield status.required(f"{where}.message", detail)
    if told is not None and not str(told).strip():
        detail = "messageExpression must be non-empty if specified"
        yield status.required(f"{where}.messageExpression", detail)


def _check_expression(text: str, where: str) -> Iterator[Cause]:
    """Whether an expression can be read, and all it names is known."""
    bare = without_strings(text)
    if not text.strip():
        return
    try:
        named = cel.compile(text).references()
    except ValueError as error:
        syntax = re.search(r"unsupported syntax '(\.\?|\[\?)'", str(error))
        detail = (
            f"optional field selection ({syntax[1]}) is not supported by this server: use has()"
            if syntax
            else f"compilation failed: {error}"
        )
        yield status.invalid(where, text, detail)
        return
    escaped = _ESCAPED.search(bare)
    unknown = [name for name in named["functions"] if name.isidentifier() and name not in _KNOWN]
    bound = set(_BOUND.findall(bare))
    strange = set(named["variables"]) - {"self", "oldSelf"} - _TYPES - _SPACES - bound
    if escaped:
        detail = f"the escaped field name {escaped[1]} is not supported by this server"
        yield status.invalid(where, text, detail)
    elif unknown:
        yield status.invalid(where, text, f"the CEL function {unknown[0]} is not supported by this server")
    elif strange:
        detail = f"compilation failed: undeclared reference to '{min(strange)}' (in container '')"
        yield status.invalid(where, text, detail)


def _leads_to_field(path: str, schema: Schema) -> bool:
    """Whether a path of ``.name`` and ``['name']`` leads from a schema to one below."""
    at, below = 0, schema
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return False
        name, extra = step[1] or step[2], below.get("additionalProperties")
        found = (below.get("properties") or {}).get(name, extra if isinstance(extra, dict) else None)
        if not isinstance(found, dict):
            return False
        at, below = step.end(), found
    return at > 0
