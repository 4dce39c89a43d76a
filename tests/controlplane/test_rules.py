"""CEL rules: what is evaluated, what is refused with the definition, and what people are told."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from probe import CRDS, PLUGINS, Probe, plugin

from crucible.control.apiserver.rulechecks import check_rule_definitions
from crucible.control.apiserver.rules import check_rules, compile_rules, fields_read

if TYPE_CHECKING:
    from crucible.control.apiserver.status import Cause

RULES = "x-kubernetes-validations"


def ruled(rule: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", RULES: [{"rule": rule, **more}]}


def judged(rule: str, value: Any, **more: Any) -> list[Cause]:
    schema = ruled(rule, **more)
    assert list(check_rule_definitions(schema, "")) == [], "the definition is accepted"
    return check_rules(value, compile_rules(schema))


SAMPLE = {"s": "Hello", "n": 3, "l": [1, 2, 3], "d": [2, 2], "t": ["a", "b"], "o": {"k": "v"}}
HOLDS = [
    # strings
    "self.s.lowerAscii() == 'hello' && self.s.upperAscii() == 'HELLO'",
    "self.s.charAt(1) == 'e' && self.s.substring(1, 3) == 'el' && self.s.substring(3) == 'lo'",
    "self.s.indexOf('l') == 2 && self.s.lastIndexOf('l') == 3 && self.s.indexOf('z') == -1",
    "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
    "self.t.join('-') == 'a-b' && self.t.join() == 'ab' && ' x '.trim() == 'x'",
    "self.s.replace('l', 'L') == 'HeLLo' && self.s.replace('l', 'L', 1) == 'HeLlo'",
    "'%s has %d of %.2f%%'.format([self.s, self.n, 1.5]) == 'Hello has 3 of 1.50%'",
    "'%s %s %s'.format([true, null, [1, 'a']]) == 'true null [1, a]' && '%x %b'.format([255, 5]) == 'ff 101'",
    # lists and sets
    "self.l.sum() == 6 && self.l.min() == 1 && self.l.max() == 3 && self.l.isSorted()",
    "![3, 1].isSorted() && self.d.lastIndexOf(2) == 1 && self.d.indexOf(7) == -1",
    "sets.contains(self.l, [1, 2]) && sets.equivalent(self.d, [2]) && !sets.intersects(self.l, [9])",
    # regular expressions
    "'abc 123'.find('[0-9]+') == '123' && '123 abc 456'.findAll('[0-9]+', 1) == ['123']",
    "'a'.find('z') == ''",
    # URLs
    "isURL('https://user@example.com:80/a%20b?k=1&k=2#f') && !isURL('../relative') && !isURL('not a url')",
    "url('https://example.com:80/p').getHost() == 'example.com:80'",
    "url('https://[::1]:80/').getHostname() == '::1'",
    "url('https://example.com/a%20b').getEscapedPath() == '/a%20b' && url('/p').getScheme() == ''",
    "url('https://e.com:8080').getPort() == '8080'",
    "url('https://e.com?k=1&k=2').getQuery() == {'k': ['1', '2']}",
    # addresses
    "isIP('127.0.0.1') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && ip('::1').family() == 6",
    "ip('127.0.0.1').isLoopback() && ip('fe80::1').isLinkLocalUnicast() && ip('10.0.0.1').isGlobalUnicast()",
    "ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::0:1')",
    "ip('2001:DB8::0:1') == ip('2001:db8::1')",
    "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0') && cidr('10.0.0.0/8').containsIP('10.9.9.9')",
    "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
    "cidr('10.1.2.3/8').prefixLength() == 8 && cidr('10.1.2.3/8').ip() == ip('10.1.2.3')",
    # quantities
    "quantity('1Ki') == quantity('1024') && isQuantity('1.5G') && !isQuantity('1 Gi') && !isQuantity('')",
    "quantity('500m').isLessThan(quantity('1')) && quantity('2').compareTo(quantity('1')) == 1",
    "quantity('1').add(quantity('500m')) == quantity('1.5') && quantity('-1').sign() == -1",
    "quantity('1k').sub(1) == quantity('999') && quantity('50k').asInteger() == 50000",
    "!quantity('1m').isInteger()",
    # optionals, as far as they need no syntax of their own
    "optional.of(1).hasValue() && optional.none().orValue(2) == 2",
    "self.l.all(x, x > 0) && self.o.exists(k, self.o[k] == 'v')",
    "self.t.map(x, x.upperAscii()) == ['A', 'B']",
    "bool('true') && type(self.n) == int && dyn(self.n) == 3",
]


@pytest.mark.parametrize("rule", HOLDS)
def test_what_kubernetes_adds_to_the_language_is_evaluated(rule: str) -> None:
    assert judged(rule, SAMPLE) == []
    (cause,) = judged(f"!({rule})", SAMPLE)
    assert cause.message == f"Invalid value: failed rule: !({rule})", "it was evaluated, not only failed"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("quantity(self.s).sign() == 1", "quantity parse error"),
        ("ip(self.s).family() == 4", "does not appear to be an IPv4 or IPv6 address"),
        ("cidr('10.0.0.0').prefixLength() == 8", "network address parse error"),
        ("url('../x').getHost() == ''", "URL parse error"),
        ("'%d'.format([self.s]) == ''", "does not fit %d"),
        ("'%s'.format([]) == ''", "more verbs than values"),
        ("'%y'.format([1]) == ''", "unrecognized formatting clause"),
        ("self.n / 0 == 1", "division by zero"),
        ("self.none == 1", "no such key: none"),
        ("self.s > 1", "rule evaluation error"),
    ],
)
def test_what_a_function_refuses_breaks_the_rule(rule: str, said: str) -> None:
    (cause,) = judged(rule, SAMPLE)
    assert "rule evaluation error" in cause.message
    assert said in cause.message


@pytest.mark.parametrize(
    ("rule", "field", "said"),
    [
        ({"rule": " "}, "rule", "rule is not specified"),
        ({"rule": "self.s =="}, "rule", "compilation failed"),
        ({"rule": "self.?s.orValue('') == ''"}, "rule", "optional field selection (.?) is not supported"),
        ({"rule": "self[?'s'].hasValue()"}, "rule", "optional field selection ([?) is not supported"),
        ({"rule": "optional.of(1).optMap(x, x + 1).hasValue()"}, "rule", "function optMap is not supported"),
        ({"rule": "semver('1.0.0').major() == 1"}, "rule", "CEL function major is not supported"),
        (
            {"rule": "!format.dns1123Label().validate('a').hasValue()"},
            "rule",
            "is not supported by this server",
        ),
        ({"rule": "cel.bind(x, 1, x == 1)"}, "rule", "CEL function bind is not supported"),
        ({"rule": "self.l.all(i, x, x > i)"}, "rule", "CEL function all is not supported"),
        ({"rule": "other.s == ''"}, "rule", "undeclared reference to 'other' (in container '')"),
        ({"rule": "self.a__dash__b == 1"}, "rule", "the escaped field name a__dash__b is not supported"),
        ({"rule": "true", "messageExpression": "'a' +"}, "messageExpression", "compilation failed"),
        (
            {"rule": "true", "messageExpression": "semver('1')"},
            "messageExpression",
            "semver is not supported",
        ),
        ({"rule": "true", "messageExpression": " "}, "messageExpression", "must be non-empty if specified"),
        ({"rule": "true", "message": "a\nb"}, "message", "must not contain line breaks"),
        ({"rule": "true &&\ntrue"}, "message", "must be specified if rule contains line breaks"),
        ({"rule": "true", "reason": "Because"}, "reason", 'supported values: "FieldValueInvalid"'),
        ({"rule": "true", "fieldPath": ".nowhere"}, "fieldPath", "must be a valid path"),
        ({"rule": "true", "fieldPath": ".l[0]"}, "fieldPath", "must be a valid path"),
        ({"rule": "true", "optionalOldSelf": True}, "optionalOldSelf", "oldSelf is not used in rule"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused_with_its_definition(
    rule: dict[str, Any], field: str, said: str
) -> None:
    schema = {"properties": {"l": {"items": {}}}, RULES: [rule]}
    (cause,) = check_rule_definitions(schema, "root")
    assert cause.field == f"root.{RULES}[0].{field}"
    assert said in cause.message


def test_a_transition_rule_where_items_cannot_be_told_apart_is_refused() -> None:
    items = ruled("self == oldSelf")
    for kind, refused in (("atomic", 1), ("set", 1), ("map", 0)):
        schema = {"properties": {"l": {"items": items, "x-kubernetes-list-type": kind}}}
        causes = list(check_rule_definitions(schema, "root"))
        assert len(causes) == refused
        assert all("uncorrelatable portion of the schema within root.properties[l]" in str(c) for c in causes)


def test_an_optional_old_self_is_judged_on_creation_too() -> None:
    schema = ruled("!oldSelf.hasValue() || oldSelf.value().n <= self.n", optionalOldSelf=True)
    schema[RULES] += [{"rule": "oldSelf.orValue({'n': 5}).n == 5", "optionalOldSelf": True}]
    schema[RULES] += [{"rule": "self.n == oldSelf.n"}]
    assert list(check_rule_definitions(schema, "")) == []
    tree = compile_rules(schema)
    assert check_rules({"n": 1}, tree) == [], "the plain transition rule does not run where there was nothing"
    lower = [cause.message for cause in check_rules({"n": 4}, tree, old={"n": 5})]
    assert len(lower) == 2
    assert ["orValue" in text for text in lower] == [False, False]
    assert len(check_rules({"n": 9}, tree, old={"n": 8})) == 2


async def test_people_are_told_by_the_rules_own_words(probe: Probe, crd: dict[str, Any]) -> None:
    changed = copy.deepcopy(crd["spec"])
    spec = changed["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec[RULES] = [
        {
            "rule": "self.replicas <= self.max",
            "message": "too many",
            "messageExpression": "'%d replicas are more than %d'.format([self.replicas, self.max])",
            "fieldPath": ".replicas",
            "reason": "FieldValueForbidden",
        },
        {"rule": "self.image != 'bad'", "message": "bad image", "messageExpression": "self.none"},
        {"rule": "self.image != 'two'", "message": "one line", "messageExpression": "'two\\nlines'"},
        {"rule": "self.image != 'blank'", "message": "no blank", "messageExpression": "' '"},
    ]
    assert (await probe.patch(f"{CRDS}/plugins.probe.dev", {"spec": changed})).code == 200
    refused = await probe.post(PLUGINS, plugin("a", replicas=9))
    assert refused.body["details"]["causes"] == [
        {
            "reason": "FieldValueForbidden",
            "field": "spec.replicas",
            "message": "Forbidden: 9 replicas are more than 5",
        }
    ]
    for image, said in (("bad", "bad image"), ("two", "one line"), ("blank", "no blank")):
        refused = await probe.post(PLUGINS, plugin("a", image=image))
        assert [cause["message"] for cause in refused.body["details"]["causes"]] == [f"Invalid value: {said}"]


async def test_a_definition_with_an_unknown_function_is_refused_in_words(
    probe: Probe, crd: dict[str, Any]
) -> None:
    changed = copy.deepcopy(crd["spec"])
    changed["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][RULES] = [
        {"rule": "isSemver(self.image)"}
    ]
    refused = await probe.patch(f"{CRDS}/plugins.probe.dev", {"spec": changed})
    assert refused.code == 422
    assert "the CEL function isSemver is not supported by this server" in refused.body["message"]


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("has(self.a) && self.b.c == oldSelf.d", {"a", "b", "d"}),
        ("self.a == 'self.b'", {"a"}),
        ("x.self.a == self.b", {"b"}),
        ("self == oldSelf", None),
        ("self.all(key, key != 'a')", None),
        ("self.size () > 1", None),
        ("self['a'] == 1", None),
    ],
)
def test_the_fields_a_rule_looks_at_are_known(rule: str, fields: set[str] | None) -> None:
    assert fields_read(rule) == fields


def test_a_transition_rule_runs_where_what_it_looks_at_changed() -> None:
    tree = compile_rules({"x-kubernetes-validations": [{"rule": "self.a == oldSelf.a"}]})
    assert check_rules({"a": 1, "b": 2}, tree, old={"a": 1, "b": 1}) == []
    assert [cause.reason for cause in check_rules({"a": 2}, tree, old={"a": 1})] == ["FieldValueInvalid"]


def test_what_cel_cannot_hold_breaks_the_rule_and_nothing_else() -> None:
    tree = compile_rules({"x-kubernetes-validations": [{"rule": "self.a == 'x'"}]})
    (cause,) = check_rules({"a": "\ud800"}, tree)
    assert "rule evaluation error" in cause.message
