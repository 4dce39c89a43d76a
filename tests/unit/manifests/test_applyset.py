"""What a folder asks for: applied, put back, removed; and what a mistake must never remove."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crucible.manifests.applyset import (
    ORIGIN,
    PART_OF,
    Mark,
    Member,
    Source,
    leftovers,
    mark_of,
    member_of,
    plan,
    source_of,
)
from crucible.manifests.folder import Content, look, read_contents
from crucible.manifests.parent import parent_of, set_id
from crucible.manifests.resources import PLUGIN, RESOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SET = "applyset-x-v1"
CONFIG = RESOURCES[2]


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    return tmp_path / "m"


def write(path: Path, *documents: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "---\n".join(each if isinstance(each, str) else yaml.safe_dump(each) for each in documents)
    )


def sources(folder: Path) -> tuple[Source, ...]:
    return tuple(source_of(content, "default", SET) for content in read_contents(folder))


class Plane:
    """Holds what was applied, as a control plane would list it."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.marks: dict[str, Mark] = {}
        self._version = 0

    @property
    def members(self) -> Mapping[str, Member]:
        found = (member_of(RESOURCES[at], item) for item, at in map(_with_resource, self.objects.values()))
        return {member.path: member for member in found}

    def keep(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        meta = {"uid": path, **body["metadata"], "resourceVersion": str(self._version)}
        self.objects[path] = {**body, "metadata": meta}
        return self.objects[path]

    def turn(self, folder: Path, *, refuse: str = "") -> tuple[list[str], list[str], list[str]]:
        """Do what is planned; return the names applied, the names removed, and the refusals."""
        files = sources(folder)
        work = plan(files, self.members, self.marks)
        held = set(work.held)
        for name, wanted in work.apply:
            if wanted.name == refuse:
                held.add(name)
            else:
                self.marks[wanted.path] = mark_of(wanted, self.keep(wanted.path, wanted.body))
        gone = leftovers(files, self.members, held)
        for member in gone:
            del self.objects[member.path]
        applied = [wanted.name for _, wanted in work.apply if wanted.name != refuse]
        return applied, [member.name for member in gone], list(work.refused)


def _with_resource(item: dict[str, Any]) -> tuple[dict[str, Any], int]:
    return item, next(at for at, each in enumerate(RESOURCES) if each.kind == item["kind"])


def test_everything_new_is_applied_once_with_its_marks(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a"), config("b"))
    assert plane.turn(folder) == (["a", "b"], [], [])
    meta = plane.objects[CONFIG.path("default", "a")]["metadata"]
    assert meta["labels"] == {PART_OF: SET}
    assert meta["annotations"] == {ORIGIN: "path: a.yaml\n"}
    assert plane.turn(folder) == ([], [], [])


def test_what_others_refer_to_comes_first_and_goes_last(folder: Path) -> None:
    plane = Plane()
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    write(folder / "a.yaml", config("c") | {"metadata": {"name": "c", "namespace": "team"}})
    write(folder / "z.yaml", space)
    assert plane.turn(folder)[0] == ["team", "c"]
    (folder / "a.yaml").unlink()
    (folder / "z.yaml").unlink()
    assert plane.turn(folder)[1] == ["c", "team"]


def test_a_change_of_the_folder_applies_that_object_alone(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a"), config("b"))
    plane.turn(folder)
    write(folder / "a.yaml", config("a"), config("b", k="2"))
    assert plane.turn(folder) == (["b"], [], [])


def test_what_someone_else_changed_or_deleted_is_put_back(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a", k="1"), config("b"))
    plane.turn(folder)
    path = CONFIG.path("default", "a")
    plane.keep(path, {**plane.objects[path], "data": {"k": "other"}})
    del plane.objects[CONFIG.path("default", "b")]
    assert plane.turn(folder) == (["a", "b"], [], [])


def test_a_status_is_no_change_and_what_is_leaving_is_left_alone() -> None:
    plugin = {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {
            "name": "p",
            "namespace": "default",
            "uid": "u",
            "generation": 1,
            "resourceVersion": "1",
        },
    }
    later = {**plugin, "metadata": {**plugin["metadata"], "resourceVersion": "9"}, "status": {"phase": "Up"}}  # type: ignore[dict-item]
    assert member_of(PLUGIN, plugin).shape == member_of(PLUGIN, later).shape
    leaving = {**plugin, "metadata": {**plugin["metadata"], "deletionTimestamp": "now"}}  # type: ignore[dict-item]
    assert leftovers((), {"p": member_of(PLUGIN, leaving)}, ()) == ()


def test_what_no_file_holds_any_more_is_removed(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a"), config("b"))
    write(folder / "c.yaml", config("c"))
    plane.turn(folder)
    write(folder / "a.yaml", config("a"))
    (folder / "c.yaml").unlink()
    assert plane.turn(folder) == ([], ["b", "c"], [])


def test_what_moves_to_another_file_stays(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a"))
    plane.turn(folder)
    (folder / "a.yaml").rename(folder / "b.yaml")
    assert plane.turn(folder) == (["a"], [], [])  # applied again: its origin is another


@pytest.mark.parametrize("wrong", ["a: [", "", "kind: Pod\n", "apiVersion: v1\nkind: ConfigMap\n"])
def test_a_bad_file_removes_nothing_it_gave_before(folder: Path, wrong: str) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a"), config("b"))
    write(folder / "c.yaml", config("c"))
    plane.turn(folder)
    write(folder / "a.yaml", config("a", k="new"), wrong) if wrong else write(folder / "a.yaml", wrong)
    (folder / "c.yaml").unlink()
    applied, removed, refused = Plane.turn(plane, folder)
    assert (applied, removed) == ([], ["c"])
    assert refused[0].startswith(f"{folder / 'a.yaml'}:" if wrong else f"{folder / 'a.yaml'}")


def test_a_successor_that_remembers_nothing_keeps_it_too(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a"))
    plane.turn(folder)
    write(folder / "a.yaml", "a: [")
    plane.marks.clear()
    assert plane.turn(folder)[1] == []


def test_a_file_renamed_and_broken_at_once_removes_nothing(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("a"))
    plane.turn(folder)
    (folder / "a.yaml").unlink()
    write(folder / "b.yaml", "a: [")
    assert plane.turn(folder)[1] == []
    (folder / "b.yaml").unlink()
    assert plane.turn(folder)[1] == ["a"]


def test_a_refused_successor_does_not_cost_its_predecessor(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("before"))
    plane.turn(folder)
    write(folder / "a.yaml", config("after"))
    assert plane.turn(folder, refuse="after")[1] == []
    assert plane.turn(folder)[1] == ["before"]


def test_an_object_in_two_files_is_the_first_ones(folder: Path) -> None:
    plane = Plane()
    write(folder / "a.yaml", config("x", k="1"))
    write(folder / "b.yaml", config("x", k="2"), config("z"))
    applied, _, refused = plane.turn(folder)
    assert applied == ["x", "z"]
    assert plane.objects[CONFIG.path("default", "x")]["data"] == {"k": "1"}
    assert "configmap/x is also in" in refused[0]
    assert plane.turn(folder)[:2] == ([], [])


def test_sets_are_known_by_their_folders_path(tmp_path: Path) -> None:
    assert set_id(tmp_path) == set_id(tmp_path)
    assert set_id(tmp_path) != set_id(tmp_path / "x")
    assert len(set_id(tmp_path)) <= 63


def test_a_sets_parent_says_whose_it_is_and_where_its_objects_are(tmp_path: Path) -> None:
    path, body = parent_of(tmp_path, {"team", "", "default", "kube-system"})
    meta = body["metadata"]
    assert path == CONFIG.path("kube-system", meta["name"])
    told = hashlib.sha256(f"{meta['name']}.kube-system.ConfigMap.".encode()).digest()
    expected = base64.urlsafe_b64encode(told).decode().rstrip("=")
    assert meta["labels"] == {"applyset.kubernetes.io/id": f"applyset-{expected}-v1"}
    assert set_id(tmp_path) == f"applyset-{expected}-v1"
    annotations = {name.partition("/")[2]: text for name, text in meta["annotations"].items()}
    assert annotations.pop("tooling").startswith("crucible/v")
    assert annotations == {
        "contains-group-kinds": "ConfigMap,Namespace,Plugin.crucible.dev,Secret",
        "additional-namespaces": "default,team",
    }


def test_a_folder_with_a_plugin_yaml_is_that_plugin_alone(folder: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", "d.txt", ".hidden.yaml", ".git/e.yaml", "sub/f.yaml"):
        write(folder / name, "{}")
    for name in ("app/plugin.yaml", "app/settings.yaml", "app/src/more.yaml"):
        write(folder / name, "{}")
    (folder / "loop").symlink_to(folder)
    names = [content.name for content in read_contents(folder)]
    assert names == ["a.yaml", "app/plugin.yaml", "b.yml", "c.json", "sub/f.yaml"]


def test_a_file_that_cannot_be_read_is_a_bad_file(folder: Path) -> None:
    source = source_of(
        Content("a.yaml", folder / "a.yaml", None, "a.yaml: cannot be read: no"), "default", SET
    )
    assert (source.wanted, source.problems) == ((), ("a.yaml: cannot be read: no",))


def test_every_change_is_seen_from_outside(folder: Path) -> None:
    write(folder / "app/main.py", "1")
    seen = [look([folder])]
    assert look([folder]) == seen[0]
    write(folder / "app/main.py", "12")
    seen.append(look([folder]))
    (folder / "app/main.py").rename(folder / "app/other.py")
    seen.append(look([folder]))
    (folder / "app/other.py").unlink()
    seen.append(look([folder]))
    assert len(set(seen)) == 4
    assert look([folder / "nowhere"]) == frozenset()
