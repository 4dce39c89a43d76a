from __future__ import annotations

from typing import Any

import cel
import pytest
from build import plugin

from crucible.core.admission import admit, violations_of
from crucible.model.source import SPEC_RULES


def refusals(**spec: Any) -> list[str]:
    return [str(violation) for violation in violations_of(plugin(**spec))]


def test_a_small_manifest_is_admitted_with_every_default() -> None:
    spec = admit(plugin())
    assert spec.resources.memory == 128 * 2**20
    assert spec.resources.cpu == 500
    assert spec.capabilities.network.connect == ()
    assert spec.stop_grace == 10.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"resorces": {}}, "spec.resorces: unknown field: did you mean resources?"),
        ({"resources": {"pid": 3}}, "spec.resources.pid: unknown field: did you mean pids?"),
        ({"zzz": 1}, "spec.zzz: unknown field: remove it (known: version, "),
        ({"replicas": "1"}, "spec.replicas: input should be a valid integer"),
        ({"replicas": 101}, "spec.replicas: input should be less than or equal to 100"),
        ({"version": "1"}, "spec.version: '1' is not a semantic version: write three numbers like 1.4.2"),
        ({"resources": {"memory": "64Q"}}, "spec.resources.memory: '64Q' is not an amount of bytes"),
        ({"resources": {"memory": "1Mi"}}, "spec.resources.memory: input should be greater than or equal"),
        ({"resources": {"cpu": True}}, "spec.resources.cpu: true is not an amount of cpu"),
        ({"type": "cobol"}, "spec.type: input should be 'python', 'javascript'"),
        (
            {
                "capabilities": {
                    "files": [
                        {"volume": "a", "mount": "/data/a"},
                        {"volume": "b", "mount": "/data/ab"},
                        {"volume": "c", "mount": "/data/a/deep/c"},
                    ]
                }
            },
            "spec.capabilities.files[2].mount: /data/a/deep/c lies in /data/a, which is "
            "spec.capabilities.files[0].mount; volumes do not lie in each other: write /data/NAME for each",
        ),
        ({"env": [{"name": "A"}]}, "spec.env[0]: give exactly one of value and secret"),
        ({"env": [{"name": "A B", "value": ""}]}, "spec.env[0].name: string should match pattern"),
        ({"env": [{"name": "LD_PRELOAD", "value": "x"}]}, "spec.env[0]: names that begin with CRUCIBLE_"),
        ({"env": [{"name": "A", "value": "a\0b"}]}, "spec.env[0]: the value contains a NUL byte"),
        ({"source": {}}, "spec.source: give exactly one of inline, path"),
        ({"source": {"inline": {"main.py": ""}, "path": "/x"}}, "spec.source: give exactly one of inline"),
        ({"source": {"inline": {"/main.py": ""}}}, "'/main.py' points outside the source"),
        ({"source": {"inline": {"a/../../b": ""}}}, "points outside the source"),
        ({"source": {"inline": {"a//b": ""}}}, "is not a plain relative path"),
        (
            {"source": {"inline": {"main.py": "", "main.py/x": ""}}},
            "is a file and, by another name, a folder",
        ),
        ({"source": {"inline": {"main.py": "é" * 140_000}}}, "are larger than 256 KiB"),
        ({"entrypoint": []}, "spec.entrypoint: is required: name the program"),
        ({"entrypoint": ["../main.py"]}, "spec.entrypoint[0]: '../main.py' points outside the source"),
        ({"entrypoint": ["other.py"]}, "spec.entrypoint[0]: other.py is not among the files"),
        ({"entrypoint": ["main.py", "a\0b"]}, "spec.entrypoint: contains a NUL byte"),
        ({"recovery": {"strategy": ["quarantine", "restart"]}}, "quarantine ends recovery: write it last"),
        ({"recovery": {"strategy": ["restart", "restart"]}}, "a strategy is named twice"),
        ({"sandbox": {"allowDegraded": ["gravity"]}}, "spec.sandbox.allowDegraded[0]: input should be"),
        ({"config": 1}, "spec.config: input should be"),
    ],
)
def test_what_is_wrong_is_refused_by_field_with_the_fix(spec: dict[str, Any], message: str) -> None:
    assert any(message in refusal for refusal in refusals(**spec)), refusals(**spec)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"source": {"artifact": "oci://x"}}, "spec.source.artifact"),
    ],
)
def test_what_is_not_built_yet_is_refused_never_ignored(spec: dict[str, Any], field: str) -> None:
    (refusal,) = refusals(**spec)
    assert refusal.startswith(f"{field}: ")
    assert "not supported yet" in refusal


def test_naming_a_capability_and_granting_nothing_is_admitted() -> None:
    nothing = {"network": {"connect": [], "listen": []}, "files": [], "bus": {"publish": []}, "store": None}
    assert refusals(capabilities=nothing) == []


def test_every_violation_is_named_not_only_the_first() -> None:
    assert len(refusals(replicas="1", version="x", zzz=1)) == 3


SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer", "maximum": 9}}, "required": ["limit"]}


def test_config_is_checked_against_its_schema() -> None:
    assert refusals(configSchema=SCHEMA, config={"limit": 3}) == []
    assert refusals(configSchema=SCHEMA, config={"limit": 10}) == [
        "spec.config.limit: 10 is greater than the maximum of 9"
    ]
    assert refusals(configSchema=SCHEMA) == ["spec.config: 'limit' is a required property"]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": "(a+)+$"}}},
        {"$ref": "#"},
        {"properties": {"a": {"uniqueItems": True}}},
        {"anyOf": [{"patternProperties": {"(a+)+$": {}}}]},
    ],
)
def test_a_schema_that_could_stall_the_controller_is_refused(schema: dict[str, Any]) -> None:
    (refusal,) = refusals(configSchema=schema, config={"a": "a" * 40 + "!"})
    assert refusal.startswith("spec.configSchema: uses ")
    assert refusal.endswith(", which could keep the controller busy for ever: leave it out")


@pytest.mark.parametrize(
    ("schema", "config"),
    [
        ({"items": {"allOf": [{}] * 900}}, {"a": [0] * 900}),
        ({"allOf": [{}] * 1001}, {}),
    ],
)
def test_a_schema_and_a_config_that_are_too_large_together_are_refused(
    schema: dict[str, Any], config: dict[str, Any]
) -> None:
    (refusal,) = refusals(configSchema=schema, config=config)
    assert "and config are too large together" in refusal


def test_no_more_violations_are_told_than_a_person_reads() -> None:
    told = refusals(
        configSchema={"additionalProperties": {"type": "string"}}, config={f"k{n}": 1 for n in range(99)}
    )
    assert len(told) == 20


def test_what_is_no_schema_is_refused() -> None:
    assert "is no JSON Schema" in refusals(configSchema={"type": 3})[0]


def nested(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels - 1):
        found = {"a": found}
    return found


def test_nesting_is_bounded() -> None:
    assert refusals(config=nested(16)) == []
    assert refusals(config=nested(17)) == ["spec.config: is nested deeper than 16 levels"]
    assert refusals(configSchema=nested(16)) == []
    assert "is nested deeper than 16 levels" in refusals(configSchema=nested(17))[0]
    bottomless: dict[str, Any] = {}
    for _ in range(100_000):
        bottomless = {"a": bottomless}
    assert refusals(config=bottomless) == ["spec: is nested too deeply"]


def test_a_spec_of_megabytes_is_refused() -> None:
    assert refusals(config={"a": "x" * 2**20}) == ["spec: is larger than 1 MiB: move files into source.path"]


@pytest.mark.parametrize("spec", [None, [], "x", 3, {}])
def test_what_is_no_spec_at_all_is_refused(spec: object) -> None:
    assert violations_of({"metadata": {"name": "x"}, "spec": spec})


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("a" * 50, []),
        ("a" * 51, ["metadata.name: is longer than 50 characters: shorten it"]),
        ("a.b", ["metadata.name: contains a dot: use letters, digits and '-'"]),
    ],
)
def test_names_leave_room_for_what_is_derived_from_them(name: str, refused: list[str]) -> None:
    named = plugin()
    named["metadata"]["name"] = name
    assert [str(violation) for violation in violations_of(named)] == refused


@pytest.mark.parametrize("key", ["crucible.dev/plugin-uid", "x.crucible.dev/y", "crucible.dev/instance"])
def test_labels_that_the_controller_trusts_cannot_be_forged(key: str) -> None:
    for where in ("labels", "annotations"):
        forged = plugin()
        forged["metadata"][where] = {key: "1"}
        assert [str(violation) for violation in violations_of(forged)] == [
            f"metadata.{where}: {key} is reserved for the controller: remove it"
        ]


def test_annotations_made_for_people_are_admitted() -> None:
    asked = plugin()
    asked["metadata"]["annotations"] = {"crucible.dev/restarted-at": "2026-01-01T00:00:00Z", "a.b/c": "d"}
    assert violations_of(asked) == ()


LISTENS = {"network": {"listen": [8080]}}
IMAGE = {"source": {"image": "nginx:1.29"}, "entrypoint": []}
URL = {"source": {"url": "https://x/y"}, "entrypoint": []}


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "service", **URL},
        {"type": "service", **IMAGE, "capabilities": LISTENS},
        {"type": "binary", **IMAGE},
        {"type": "binary", **IMAGE, "entrypoint": ["/bin/x", "--fast"]},
        {"type": "binary", "source": {"image": "a/b@sha256:0", "imagePullPolicy": "Never"}, "entrypoint": []},
        {"type": "wasm", "resources": {"fuel": 10, "time": "5s"}, "sandbox": {"isolation": "language"}},
    ],
)
def test_every_kind_of_source_has_a_manifest_that_is_admitted_here_and_by_the_api_server(
    spec: dict[str, Any],
) -> None:
    assert refusals(**spec) == []
    assert cel_refusals(spec) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"entrypoint": []}, "spec.entrypoint: is required"),
        ({"type": "service", **URL, "entrypoint": ["x"]}, "spec.entrypoint: is not ours to run"),
        ({"type": "binary", **URL}, "spec.source.url: is only for type service"),
        ({"type": "service"}, "spec.source: a service is an image that listens"),
        ({"type": "service", **IMAGE}, "spec.capabilities.network.listen: name the port"),
        ({"resources": {"fuel": 1}}, "spec.resources: fuel and time are only for types wasm and rune"),
        ({"resources": {"time": "1s"}}, "spec.resources: fuel and time are only for types wasm and rune"),
        ({"sandbox": {"isolation": "language"}}, "spec.sandbox.isolation: language is only for types"),
    ],
)
def test_what_fields_ask_of_each_other_is_said_alike_here_and_by_the_api_server(
    spec: dict[str, Any], message: str
) -> None:
    (refusal,) = refusals(**spec)
    assert refusal.startswith(message)
    assert refusal.removeprefix("spec.") in cel_refusals(spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"image": "UPPER CASE"}, "spec.source.image: string should match pattern"),
        ({"url": "ftp://x"}, "is not an http or https address"),
        ({"url": "https:///path"}, "is not an http or https address"),
        ({"url": "https://me:secret@x"}, "carries a user name or password"),
        ({"inline": {"main.py": ""}, "imagePullPolicy": "Always"}, "imagePullPolicy belongs to image"),
        ({"image": "x", "imagePullPolicy": "Sometimes"}, "spec.source.imagePullPolicy: input should be"),
    ],
)
def test_a_source_that_means_nothing_is_refused(source: dict[str, Any], message: str) -> None:
    assert any(message in refusal for refusal in refusals(source=source)), refusals(source=source)


def cel_refusals(spec: dict[str, Any]) -> list[str]:
    """Judge a spec by the rules that the CRD hands to an API server."""
    whole = plugin(**spec)["spec"]
    return [message for rule, message in SPEC_RULES if not cel.evaluate(rule, {"self": whole})]


def test_where_a_plugin_may_connect_is_checked_before_it_is_kept() -> None:
    found = violations_of(
        plugin(capabilities={"network": {"connect": ["api.example.com:443", "10.0.0.1/8:1"]}})
    )
    assert [violation.field for violation in found] == ["spec.capabilities.network.connect[1]"]
    assert "has host bits set" in found[0].message
    assert violations_of(plugin(resources={"network": "10Mi"})) == ()
    assert violations_of(plugin(resources={"network": "1"})) != ()
