"""The values: every one checked, every one explained, none without effect."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from release import CHART, Object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from release import Release

VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())

BAD: dict[str, tuple[Object, str]] = {
    "unknown": ({"replica": 2}, "additional properties 'replica' not allowed"),
    "unknown-deep": ({"metrics": {"servicemonitor": {}}}, "at '/metrics': additional properties"),
    "type": ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    "too-many": ({"replicas": 50}, "at '/replicas': maximum: got 50, want 5"),
    "root": ({"runAsUser": 0}, "at '/runAsUser': minimum: got 0, want 1"),
    "privileged-port": ({"health": {"port": 80}}, "at '/health/port': minimum"),
    "digest": ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
    "namespace": ({"watchNamespaces": ["A_B"]}, "at '/watchNamespaces/0': 'A_B' does not match pattern"),
    "namespace-twice": ({"watchNamespaces": ["a", "a"]}, "at '/watchNamespaces': items at 0 and 1 are equal"),
    "choice": ({"admission": {"action": "block"}}, "at '/admission/action': value must be one of"),
    "cidr": ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, "/apiServer/cidrs/0'"),
    "port": ({"networkPolicy": {"apiServer": {"ports": []}}}, "at '/networkPolicy/apiServer/ports'"),
    "amount": ({"resources": {"limits": {"memory": "lots"}}}, "at '/resources/limits/memory'"),
    "our-label": ({"podLabels": {"crucible.dev/plugin": "x"}}, "at '/podLabels/crucible.dev~1plugin'"),
    "chart-label": ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "at '/commonLabels/app.kubern"),
    "variable": ({"env": {"a b": "x"}}, "'a b'"),
    "alerts-scheme": ({"alerts": {"url": "ftp://a"}}, "at '/alerts/url': 'ftp://a' does not match pattern"),
    "alerts-twice": (
        {"alerts": {"url": "http://a", "secretName": "b"}},
        "alerts.url and alerts.secretName: set one of them",
    ),
    "volume": ({"plugins": {"volumes": {"notes": {"path": "/srv"}}}}, "at '/plugins/volumes/notes'"),
    "volume-name": ({"plugins": {"volumes": {"No": {"claim": "notes"}}}}, "invalid propertyName 'No'"),
    "volume-group": (
        {"plugins": {"volumes": {"notes": {"claim": "notes", "group": 0}}}},
        "at '/plugins/volumes/notes/group': minimum: got 0, want 1",
    ),
    "no-account": ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed where"),
    "egress-account": (
        {"serviceAccount": {"create": False, "name": "a"}, "egress": {"enabled": True}},
        "egress.serviceAccountName is needed where",
    ),
    "bus-account": (
        {"serviceAccount": {"create": False, "name": "a"}, "bus": {"enabled": True}},
        "bus.serviceAccountName is needed where",
    ),
    "two-brokers": (
        {"bus": {"enabled": True, "replicas": 2}},
        "bus.replicas: 2 brokers need a place to meet: set bus.nats.enabled=true",
    ),
    "two-servers": (
        {"bus": {"enabled": True, "nats": {"enabled": True, "url": "tls://nats.example.org"}}},
        "bus.nats.url is a server of yours, bus.nats.enabled makes one: leave one out",
    ),
    "one-server": (
        {"bus": {"enabled": True, "nats": {"enabled": True, "copies": 3}}},
        "bus.nats.copies: 3 servers cannot keep an event each, for bus.nats.enabled makes one",
    ),
    "plain-nats": ({"bus": {"nats": {"url": "nats://nats.example.org"}}}, "at '/bus/nats/url'"),
    "copies": ({"bus": {"nats": {"copies": 2}}}, "at '/bus/nats/copies'"),
    "egress-address": ({"egress": {"clusterIP": "None"}}, "at '/egress/clusterIP'"),
    "nothing-to-scrape": (
        {"metrics": {"service": False, "serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor.enabled needs metrics.service",
    ),
    "nothing-to-alert": (
        {"metrics": {"service": False, "rules": {"enabled": True}}},
        "metrics.rules.enabled needs metrics.service",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "words"), BAD.values(), ids=BAD)
def test_a_bad_value_is_refused_and_named(release: Release, values: Object, words: str) -> None:
    assert words in release.refusal(values)


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path


def described(path: str) -> Object:
    found = SCHEMA
    for name in path.split("."):
        found = found["properties"][name]
        if "$ref" in found:
            found = SCHEMA["definitions"][found["$ref"].rpartition("/")[2]]
        if "properties" not in found:
            break
    return found


@pytest.mark.parametrize("path", tuple(leaves(VALUES)))
def test_every_value_has_a_schema_and_is_used(path: str) -> None:
    assert described(path)
    parts = path.split(".")
    uses = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    assert any(re.search(rf"\.Values\.{re.escape(use)}\b", TEMPLATES) for use in uses)


def test_every_object_of_the_schema_is_closed() -> None:
    def walk(schema: Any) -> Iterator[Object]:
        if isinstance(schema, dict):
            if schema.get("type") == "object" and "properties" in schema:
                yield schema
            for inner in schema.values():
                yield from walk(inner)

    assert all(one["additionalProperties"] is False for one in walk(SCHEMA))


def test_every_value_of_the_schema_stands_in_the_values_with_its_default() -> None:
    def compare(schema: Object, values: Object, path: str = "") -> Iterator[str]:
        for name, inner in schema.get("properties", {}).items():
            if name not in values:
                yield f"{path}.{name}"
            elif "properties" in inner:
                yield from compare(inner, values[name], f"{path}.{name}")

    assert list(compare(SCHEMA, VALUES)) == [".global"]
