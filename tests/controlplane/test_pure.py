"""Patches, selectors, schemas and decoders, by their properties."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crucible.control.apiserver.decode import decode_body, decode_json, decode_yaml
from crucible.control.apiserver.definitions import resources_of, with_default_names
from crucible.control.apiserver.jsonpath import compile_path
from crucible.control.apiserver.kubeconfig import (
    Certificate,
    kubeconfig_for,
    merge_kubeconfig,
)
from crucible.control.apiserver.patches import (
    PatchFailed,
    PatchMalformed,
    json_patch,
    merge_patch,
    same,
    strategic_patch,
)
from crucible.control.apiserver.routes import read_path
from crucible.control.apiserver.selectors import parse_fields, parse_labels
from crucible.control.apiserver.status import ApiError
from crucible.control.apiserver.structural import fill_defaults, prune
from crucible.control.apiserver.tables import human
from crucible.control.apiserver.validate import validate

CRD = with_default_names(yaml.safe_load((Path(__file__).parent / "crd.yaml").read_text()))
RESOURCE = resources_of(CRD)[0]

leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
documents = st.recursive(
    leaves,
    lambda below: st.one_of(
        st.lists(below, max_size=3), st.dictionaries(st.text(max_size=3), below, max_size=3)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=3), documents, max_size=4)


def diffed(old: Any, new: Any) -> Any:
    """The merge patch from one object to another that has no nulls."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    patch = {key: None for key in old if key not in new}
    patch.update(
        {
            key: diffed(old.get(key), item)
            for key, item in new.items()
            if key not in old or not same(old[key], item)
        }
    )
    return patch


def bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if item is not None}
    return value


@given(objects.map(bare), objects.map(bare))
def test_a_merge_patch_made_from_two_objects_leads_from_one_to_the_other(old: Any, new: Any) -> None:
    assert same(merge_patch(old, diffed(old, new)), new)


@given(objects, objects)
def test_merge_patches_are_idempotent_and_leave_their_target(target: Any, patch: Any) -> None:
    copy = json.loads(json.dumps(target))
    once = merge_patch(target, patch)
    assert same(merge_patch(once, patch), once)
    assert target == copy


@given(objects, st.text(max_size=3), documents)
def test_json_patch_add_then_remove_gives_back_the_document(document: Any, key: str, value: Any) -> None:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    added = json_patch(document, [{"op": "add", "path": pointer, "value": value}])
    assert same(added[key], value)
    json_patch(added, [{"op": "test", "path": pointer, "value": value}])
    removed = json_patch(added, [{"op": "remove", "path": pointer}])
    assert removed == {name: item for name, item in document.items() if name != key}


@given(documents, documents)
def test_json_patches_fail_only_in_two_ways(document: Any, patch: Any) -> None:
    with contextlib.suppress(PatchFailed, PatchMalformed):
        json_patch(document, patch)


operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "nope"]),
     "path": st.sampled_from(["", "/a", "/a/0", "/a/-", "/a/b", "//", "/~01", "/9", "x"])},
    optional={"value": documents, "from": st.sampled_from(["", "/a", "/b", "/a/b"])},
)  # fmt: skip


@given(st.fixed_dictionaries({}, optional={"a": documents, "b": documents}), st.lists(operations, max_size=4))
def test_json_patches_never_touch_their_document(document: Any, patch: Any) -> None:
    copy = json.loads(json.dumps(document))
    with contextlib.suppress(PatchFailed, PatchMalformed):
        json_patch(document, patch)
    assert document == copy


@given(objects, objects)
def test_strategic_patches_fail_only_in_one_way(target: Any, patch: Any) -> None:
    with contextlib.suppress(PatchMalformed):
        strategic_patch(target, patch)


def test_strategic_patches_join_owners_by_uid() -> None:
    target = {"ownerReferences": [{"uid": "1", "name": "a"}], "finalizers": ["x"]}
    patch = {
        "ownerReferences": [{"uid": "2", "name": "b"}, {"uid": "1", "$patch": "delete"}],
        "finalizers": ["y"],
    }
    assert strategic_patch(target, patch) == {
        "ownerReferences": [{"uid": "2", "name": "b"}],
        "finalizers": ["x", "y"],
    }


@given(
    st.binary(max_size=60),
    st.sampled_from(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", ""]),
)
def test_any_bytes_decode_or_are_refused(raw: bytes, media: str) -> None:
    try:
        decode_body(raw, media, 100)
    except ApiError as error:
        assert error.code in {400, 415}  # noqa: PT017 - either outcome is right


@given(st.binary(max_size=80))
def test_any_protobuf_decodes_or_is_refused(raw: bytes) -> None:
    from crucible.control.apiserver.protobuf import KINDS, MAGIC  # noqa: PLC0415 - only here

    for kind in sorted(KINDS):
        name = b"\x0a" + bytes([len(kind) + 2]) + b"\x12" + bytes([len(kind)]) + kind.encode()
        try:
            decode_body(MAGIC + name + b"\x12" + bytes([len(raw)]) + raw, "", 100)
        except ApiError as error:
            assert error.code == 400  # noqa: PT017 - either outcome is right


@given(documents)
def test_json_comes_through_as_it_was(value: Any) -> None:
    assert same(decode_json(json.dumps(value).encode(), 100).value, value)


@given(objects)
def test_yaml_of_json_is_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        assert same(decode_yaml(text.encode(), 100).value, json.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: &a [*a]",
        "[" * 200,
        "a: !!python/object:os.system x",
        "a: .nan",
        "a: 1\n---\nb: 2",
        "{a: [}",
    ],
)
def test_dangerous_yaml_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode_yaml(text.encode(), 100)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    "text", ["[" * 150 + "]" * 150, "[" * 100_000, "NaN", "1" * 5000, '{"a":Infinity}', "\xff"]
)
def test_dangerous_json_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode_json(text.encode("latin1"), 100)
    assert caught.value.code == 400


def test_repeated_fields_are_named() -> None:
    found = decode_json(b'{"a":1,"a":2,"b":{"c":[{"d":1,"d":2}]}}', 100)
    assert found.duplicates == ("a", "b.c[0].d")
    assert found.value["a"] == 2


@given(st.text(max_size=30))
def test_any_selector_parses_or_is_refused(text: str) -> None:
    for parse in (parse_labels, lambda t: parse_fields(t, RESOURCE)):
        try:
            parse(text)
        except ApiError as error:
            assert error.code == 400  # noqa: PT017 - either outcome is right


keys, labels = st.sampled_from(["a", "b", "x.dev/c"]), st.sampled_from(["1", "2", ""])


@given(st.dictionaries(keys, labels), keys, st.lists(labels, min_size=1, max_size=3))
def test_selectors_and_their_opposites_split_everything(
    held: dict[str, str], key: str, wanted: list[str]
) -> None:
    def chosen(text: str) -> bool:
        return all(part.matches(held) for part in parse_labels(text))

    listed = ",".join(wanted)
    assert chosen(f"{key} in ({listed})") != chosen(f"{key} notin ({listed})")
    assert chosen(f"{key}={wanted[0]}") != chosen(f"{key}!={wanted[0]}")
    assert chosen(key) != chosen(f"!{key}")
    assert chosen(f"{key} in ({listed})") == (held.get(key) in wanted)


@given(objects)
def test_pruned_objects_have_only_known_fields_and_pruning_again_does_nothing(value: Any) -> None:
    body = {"spec": {"image": "x", **value}, **value}
    once = prune(body, RESOURCE.schema)
    assert prune(once.value, RESOURCE.schema).unknown == ()
    assert prune(once.value, RESOURCE.schema).value == once.value


@given(
    st.fixed_dictionaries(
        {"image": leaves}, optional={"replicas": documents, "env": documents, "limits": documents}
    )
)
def test_defaults_are_stable_and_any_value_can_be_judged(spec: Any) -> None:
    filled = fill_defaults({"spec": spec}, RESOURCE.schema)
    assert fill_defaults(filled, RESOURCE.schema) == filled
    validate(filled, RESOURCE.schema)
    assert validate(filled, RESOURCE.schema, "", filled) == []


@given(st.text(alphabet="/aps1.v:*nmec", max_size=30))
def test_any_path_is_read_or_is_none(path: str) -> None:
    found = read_path("/" + path)
    assert found is None or found.plural


@given(st.text(max_size=20))
def test_any_jsonpath_compiles_or_is_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        compile_path(text).find({"a": [1, {"b": None}]})


def test_jsonpath_reaches_conditions() -> None:
    body = {
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}
    }
    assert compile_path('.status.conditions[?(@.type=="Ready")].status').first(body) == "True"
    assert compile_path(".status.conditions[*].type").find(body) == ["Ready", "Other"]
    assert compile_path(".status['conditions'][1].status").first(body) == "False"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (3600, "60m"),
        (4 * 3600, "4h"),
        (30 * 3600, "30h"),
        (3 * 86400 + 7200, "3d2h"),
        (100 * 86400, "100d"),
        (3 * 365 * 86400, "3y"),
        (9 * 365 * 86400, "9y"),
        (-5, "<invalid>"),
    ],
)
def test_ages_are_written_as_kubectl_does(seconds: int, shown: str) -> None:
    assert human(seconds) == shown


def test_kubeconfigs_merge_without_taking_over() -> None:
    ours = kubeconfig_for(
        "crucible", "https://127.0.0.1:1", b"ca", "token", Certificate(b"certificate", b"key")
    )
    theirs = {
        "clusters": [{"name": "k"}],
        "users": [],
        "contexts": [{"name": "k"}],
        "current-context": "k",
        "preferences": {},
    }
    merged = merge_kubeconfig(theirs, ours)
    assert merged["current-context"] == "k"
    assert [item["name"] for item in merged["clusters"]] == ["k", "crucible"]
    assert merge_kubeconfig(merged, ours) == merged
    assert merge_kubeconfig({}, ours)["current-context"] == "crucible"
