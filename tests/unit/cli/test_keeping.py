"""Export, backup, restore and kubeconfig: what is written can be taken back, and nothing is lost."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crucible.cli.export import bare, is_asked_for
from crucible.cli.printing import yaml_of
from crucible.manifests.resources import RESOURCES
from crucible.model.document import read_documents

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE, SECRET, CONFIG, PLUGIN = RESOURCES
OURS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "crucible", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "crucible", "user": {"token": "t"}}],
    "contexts": [{"name": "crucible", "context": {"cluster": "crucible", "user": "crucible"}}],
    "current-context": "crucible",
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    control = tmp_path / "state" / "control"
    control.mkdir(parents=True)
    (control / "kubeconfig").write_text(yaml.safe_dump(OURS))
    with closing(sqlite3.connect(control / "control.db")) as link:
        link.execute("PRAGMA journal_mode=WAL")
        link.executescript("CREATE TABLE objects (name TEXT); CREATE TABLE meta (key TEXT, value INTEGER);")
        link.executescript("INSERT INTO objects VALUES ('a'); INSERT INTO meta VALUES ('revision', 7);")
    return tmp_path / "state"


WORDS = st.sampled_from(["on", "1e3", "0o17", "08", "1_0", ".inf", "~", "", "null", "12", "<<", "=", "a: b"])


@given(st.dictionaries(WORDS | st.text(), WORDS | st.text() | st.integers(-(2**62), 2**62) | st.booleans()))
def test_what_is_printed_is_read_back_the_same(values: dict[str, Any]) -> None:
    clean = {"data": values}
    (document,) = read_documents(yaml_of(clean).encode(), "x.yaml")
    assert document.content == clean


def test_an_exported_object_is_what_a_person_asked_for() -> None:
    item = {
        "metadata": {
            "name": "c",
            "namespace": "default",
            "uid": "u",
            "resourceVersion": "1",
            "labels": {"applyset.kubernetes.io/part-of": "x"},
            "annotations": {"config.kubernetes.io/origin": "path: a\n", "mine": "1"},
        },
        "data": {"k": "v"},
        "status": {},
    }
    assert bare(CONFIG, item) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default", "annotations": {"mine": "1"}},
        "data": {"k": "v"},
    }
    space = {"metadata": {"name": "team"}, "spec": {"finalizers": ["kubernetes"]}}
    assert bare(NAMESPACE, space) == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}


@pytest.mark.parametrize(
    ("resource", "item"),
    [
        (NAMESPACE, {"metadata": {"name": "default"}}),
        (CONFIG, {"metadata": {"name": "kube-root-ca.crt", "namespace": "team"}}),
        (CONFIG, {"metadata": {"name": "c", "namespace": "kube-system"}}),
        (
            SECRET,
            {"metadata": {"name": "s", "namespace": "x"}, "type": "kubernetes.io/service-account-token"},
        ),
        (SECRET, {"metadata": {"name": "s", "namespace": "x", "ownerReferences": [{}]}}),
        (PLUGIN, {"metadata": {"name": "p", "namespace": "x", "deletionTimestamp": "now"}}),
    ],
)
def test_what_nobody_asked_for_is_not_exported(resource: Any, item: dict[str, Any]) -> None:
    assert not is_asked_for(resource, item)


def test_the_kubeconfig_is_printed(crucible: Any, state: Path) -> None:
    assert yaml.safe_load(crucible("kubeconfig", "--state", str(state)).out) == OURS
    assert crucible("kubeconfig", "--state", str(state / "none")).code == 5
    assert crucible("kubeconfig", "x", "--state", str(state)).code == 2


def test_the_kubeconfig_is_merged_and_the_old_one_kept(crucible: Any, state: Path, tmp_path: Path) -> None:
    mine = tmp_path / "kube" / "config"
    mine.parent.mkdir()
    theirs = {"current-context": "prod", "contexts": [{"name": "prod", "context": {}}], "clusters": None}
    mine.write_text(yaml.safe_dump(theirs))
    mine.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(mine)
    words = ("kubeconfig", "--state", str(state), "--merge", str(link))
    assert "configured" in crucible(*words).out
    merged = yaml.safe_load(mine.read_text())
    assert merged["current-context"] == "prod"
    assert [context["name"] for context in merged["contexts"]] == ["prod", "crucible"]
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600
    assert link.is_symlink()
    kept = mine.with_name("config.before-crucible")
    assert yaml.safe_load(kept.read_text()) == theirs
    assert "unchanged" in crucible(*words).out
    assert sorted(path.name for path in mine.parent.iterdir()) == ["config", "config.before-crucible"]


def test_a_new_kubeconfig_begins_with_ours(
    crucible: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert crucible("kubeconfig", "--merge", "--state", str(state)).code == 0
    assert yaml.safe_load((tmp_path / "home/.kube/config").read_text())["current-context"] == "crucible"


@pytest.mark.parametrize("text", ["[", "a\n", "contexts: 1\n", "users: [1]\n"])
def test_a_file_that_is_no_kubeconfig_is_left_alone(
    crucible: Any, state: Path, tmp_path: Path, text: str
) -> None:
    mine = tmp_path / "config"
    mine.write_text(text)
    ended = crucible("kubeconfig", "--merge", str(mine), "--state", str(state))
    assert (ended.code, mine.read_text()) == (4, text)


def test_a_kubeconfig_someone_changes_now_is_left_alone(crucible: Any, state: Path, tmp_path: Path) -> None:
    (tmp_path / "config.lock").touch()
    ended = crucible("kubeconfig", "--merge", str(tmp_path / "config"), "--state", str(state))
    assert ended.code == 1
    assert "being changed by another program" in ended.err


def test_a_backup_is_one_private_file_and_never_written_over(
    crucible: Any, state: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "out" / "copy.db"
    copy.parent.mkdir()
    assert crucible("backup", str(copy), "--state", str(state)).out == f"{copy} written: 1 objects\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]
    assert crucible("backup", str(copy), "--state", str(state)).code == 4
    assert crucible("backup", str(copy), "--force", "--state", str(state)).code == 0
    assert crucible("backup", str(tmp_path / "b"), "--state", str(tmp_path / "none")).code == 3
    assert crucible("backup", str(tmp_path / "no" / "b"), "--state", str(state)).code == 4


def test_stores_are_not_written_over_without_a_word(crucible: Any, state: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy.db", tmp_path / "other"
    assert "NATS" in crucible("backup", "--help").out
    crucible("backup", str(copy), "--state", str(state))
    (other / "bus" / "data").mkdir(parents=True)
    (other / "bus" / "data" / ("0" * 40)).write_bytes(b"somebody's")
    refused = crucible("restore", str(copy), "--state", str(other))
    assert (refused.code, "holds plugins' stores" in refused.err) == (4, True)
    assert [path.name for path in other.iterdir()] == ["bus"]


def test_what_is_of_a_cluster_is_said_not_to_be_saved(crucible: Any, tmp_path: Path) -> None:
    none = crucible("backup", str(tmp_path / "b"), "--state", str(tmp_path / "none"))
    assert (none.code, "what a cluster holds is its own to back up" in none.err) == (3, True)


def test_only_a_whole_backup_is_restored(crucible: Any, state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    crucible("backup", str(copy), "--state", str(state))
    for damaged in (b"junk", copy.read_bytes()[:5000], b""):
        (tmp_path / "bad.db").write_bytes(damaged)
        assert crucible("restore", str(tmp_path / "bad.db"), "--state", str(tmp_path / "new")).code == 4
    assert not (tmp_path / "new").exists()
    assert crucible("restore", str(tmp_path / "none.db"), "--state", str(state)).code == 3
    assert crucible("restore", str(copy), "--state", str(state)).code == 4
