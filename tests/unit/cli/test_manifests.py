"""From files to objects: everything is checked, and every complaint says where."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crucible.cli.manifests import read_wanted
from crucible.errors import InvalidInput, InvalidManifest, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.manifests.wanted import Wanted

GOOD: dict[str, Any] = {
    "apiVersion": "crucible.dev/v1alpha1",
    "kind": "Plugin",
    "metadata": {"name": "demo"},
    "spec": {
        "version": "1.0.0",
        "type": "python",
        "source": {"inline": {"main.py": "print(1)"}},
        "entrypoint": ["main.py"],
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def with_spec(**fields: Any) -> dict[str, Any]:
    return changed(spec={**GOOD["spec"], **fields})


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def call(*contents: Any, namespace: str | None = None, strict: bool = True) -> tuple[Wanted, ...]:
        path = tmp_path / "m.yaml"
        path.write_text(
            "---\n".join(
                text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False) for text in contents
            )
        )
        return read_wanted([str(path)], namespace, "default", strict=strict)

    return call


def complaints(read: Any, *contents: Any, **options: Any) -> list[str]:
    with pytest.raises(InvalidManifest) as caught:
        read(*contents, **options)
    return [str(violation) for violation in caught.value.violations]


def test_a_good_manifest_becomes_one_request(read: Any) -> None:
    (wanted,) = read(GOOD)
    assert wanted.path == "/apis/crucible.dev/v1alpha1/namespaces/default/plugins/demo"
    assert wanted.label == "plugin.crucible.dev/demo"
    assert wanted.body["spec"] == GOOD["spec"]
    assert wanted.body["metadata"] == {"name": "demo", "namespace": "default"}


@pytest.mark.parametrize(
    ("manifest", "place", "words"),
    [
        (with_spec(resources={"memory": "64Mo"}), "m.yaml:14", "spec.resources.memory: "),
        (with_spec(resorces={}), "m.yaml:13", "spec.resorces: unknown field: did you mean resources?"),
        (with_spec(entrypoint="main.py"), "m.yaml:11", "spec.entrypoint"),
        (with_spec(entrypoint=["../x"]), "m.yaml:12", "points outside the source"),
        (with_spec(entrypoint=["other.py"]), "m.yaml:12", "other.py is not among the files"),
        (changed(metadata={"name": "Demo_1"}), "m.yaml:4", "metadata.name"),
        (changed(metadata={"name": "x" * 51}), "m.yaml:4", "metadata.name: is longer than 50"),
        (changed(metadata={}), "m.yaml:3", "metadata.name: is required"),
        (changed(metadata=None), "m.yaml:3", "metadata: is required"),
        (changed(metadata={"name": "demo", "labels": {"a": 1}}), "m.yaml:6", "metadata.labels.a: is no text"),
        (changed(metadata={"name": "demo", "labels": ["a"]}), "m.yaml:5", "metadata.labels: is no mapping"),
        (changed(kind="Plugn"), "m.yaml:2", "kind: Plugn is not known here: did you mean Plugin?"),
        (changed(kind="Deployment"), "m.yaml:2", "crucible applies Namespace, Secret, ConfigMap, Plugin"),
        (changed(apiVersion="crucible.dev/v1"), "m.yaml:1", "has no Plugin: write crucible.dev/v1alpha1"),
        (changed(apiVersion=None), "m.yaml:1", "apiVersion: is required"),
        (changed(spce={}), "m.yaml:13", "spce: unknown field"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_refused_with_line_field_and_fix(
    read: Any, manifest: Any, place: str, words: str
) -> None:
    (message,) = complaints(read, manifest)
    assert words in message
    assert f"{place}: " in message


def test_every_complaint_of_every_file_is_said_at_once(read: Any) -> None:
    said = " ".join(complaints(read, with_spec(version="1", replicas=-1), "a: 1\n", changed(kind="X")))
    for part in ("spec.version", "spec.replicas", "apiVersion", "kind: X"):
        assert part in said


def test_an_object_given_twice_is_refused_with_both_places(read: Any) -> None:
    (message,) = complaints(read, GOOD, GOOD)
    assert "m.yaml:14: plugin.crucible.dev/demo is also in" in message
    assert "m.yaml:1: keep one" in message


def test_namespaces_come_first_and_plugins_last(read: Any) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "team"}}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    found = read(GOOD, secret, space)
    assert [wanted.path for wanted in found] == [
        "/api/v1/namespaces/team",
        "/api/v1/namespaces/team/secrets/s",
        "/apis/crucible.dev/v1alpha1/namespaces/default/plugins/demo",
    ]


def test_a_namespace_that_contradicts_the_option_is_refused(read: Any) -> None:
    manifest = changed(metadata={"name": "demo", "namespace": "a"})
    (message,) = complaints(read, manifest, namespace="b")
    assert "metadata.namespace: is a, but --namespace says b" in message
    assert read(manifest, namespace="a")[0].namespace == "a"


def test_what_get_printed_can_be_applied_again(read: Any) -> None:
    meta = {"name": "demo", "uid": "u", "resourceVersion": "5", "managedFields": [], "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
    listed = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [changed(metadata=meta, status={"phase": "Running"})],
    }
    (wanted,) = read(listed)
    assert wanted.body["metadata"] == {"name": "demo", "namespace": "default"}
    assert "status" not in wanted.body


def test_a_wrong_item_of_a_list_is_placed(read: Any) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [GOOD, with_spec(replicas="two")]}
    (message,) = complaints(read, listed)
    assert "spec.replicas" in message
    assert int(message.split(":")[1]) > 16


def test_a_wrong_plugin_can_still_be_named_for_deletion(read: Any) -> None:
    (wanted,) = read(with_spec(nonsense=1), strict=False)
    assert wanted.name == "demo"


class TestSourceFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "p" / "src").mkdir(parents=True)
        (tmp_path / "p" / "src" / "main.py").write_text("print(1)")
        (tmp_path / "p" / "plugin.yaml").write_text(yaml.safe_dump(with_spec(source={"path": "src"})))
        (tmp_path / "p" / "package.json").write_text("{}")
        return tmp_path / "p"

    def test_a_relative_path_counts_from_the_manifest(self, folder: Path) -> None:
        (wanted,) = read_wanted([str(folder)], None, "default")
        assert wanted.body["spec"]["source"] == {"path": str(folder / "src")}

    def test_changed_content_changes_the_annotation(self, folder: Path) -> None:
        (before,) = read_wanted([str(folder / "plugin.yaml")], None, "default")
        (same,) = read_wanted([str(folder / "plugin.yaml")], None, "default")
        (folder / "src" / "main.py").write_text("print(2)")
        (after,) = read_wanted([str(folder / "plugin.yaml")], None, "default")
        assert before.body == same.body
        key = "crucible.dev/source-digest"
        assert before.body["metadata"]["annotations"][key] != after.body["metadata"]["annotations"][key]

    def test_a_folder_that_is_not_there_is_refused_before_anything_is_sent(self, folder: Path) -> None:
        (folder / "plugin.yaml").write_text(yaml.safe_dump(with_spec(source={"path": "missing"})))
        with pytest.raises(
            InvalidManifest, match=r"plugin\.yaml:\d+: spec\.source\.path: .*cannot be opened"
        ):
            read_wanted([str(folder)], None, "default")

    def test_a_link_that_leaves_the_folder_is_refused(self, folder: Path) -> None:
        (folder / "src" / "out").symlink_to("/etc/passwd")
        with pytest.raises(InvalidManifest, match=r"spec\.source\.path: out is a link to /etc/passwd"):
            read_wanted([str(folder)], None, "default")

    def test_an_entrypoint_that_is_not_there_is_refused_with_the_likely_one(self, folder: Path) -> None:
        manifest = with_spec(source={"path": "src"}, entrypoint=["mian.py"])
        (folder / "plugin.yaml").write_text(yaml.safe_dump(manifest))
        with pytest.raises(InvalidManifest, match=r"did you mean main\.py\?"):
            read_wanted([str(folder)], None, "default")


class TestFiles:
    def test_a_folder_of_manifests_is_read_in_order(self, tmp_path: Path) -> None:
        for name in ("b.yml", "a.yaml", "c.json"):
            manifest = changed(metadata={"name": name[0]})
            (tmp_path / name).write_text(
                yaml.safe_dump(manifest) if name != "c.json" else __import__("json").dumps(manifest)
            )
        (tmp_path / "notes.txt").write_text("no manifest")
        assert [wanted.name for wanted in read_wanted([str(tmp_path)], None, "default")] == ["a", "b", "c"]

    def test_an_empty_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="holds no manifest"):
            read_wanted([str(tmp_path)], None, "default")

    def test_a_file_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(NotFound, match="there is no such file"):
            read_wanted(["/nowhere/p.yaml"], None, "default")

    def test_addresses_are_not_fetched(self) -> None:
        with pytest.raises(InvalidInput, match="download it"):
            read_wanted(["https://example.com/p.yaml"], None, "default")

    def test_standard_input_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = io.TextIOWrapper(io.BytesIO(yaml.safe_dump(GOOD).encode()))
        monkeypatch.setattr(sys, "stdin", text)
        (wanted,) = read_wanted(["-"], None, "default")
        assert wanted.place == "standard input:1"
