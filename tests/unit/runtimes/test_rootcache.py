"""Root file systems that are made once and shared by all control planes of a user."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from crucible.runtimes.process import rootcache, roots

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recipe(tmp_path: Path) -> roots.Recipe:
    program, tree = tmp_path / "program", tmp_path / "tree"
    program.write_text("#!/bin/true")
    tree.mkdir()
    (tree / "module.py").write_text("x = 1")
    return roots.Recipe("rune", roots.Program(), (("usr/bin/rune", program),), (("usr/lib/x", tree),))


def made(recipe: roots.Recipe, place: Path, cache: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    return roots.prepare(recipe, place, said.append, cache), said


def contents(root: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_mode, path.read_text() if path.is_file() else "")
        for path in root.rglob("*")
        if not path.is_symlink()
    }


def test_the_second_control_plane_takes_what_the_first_made(tmp_path: Path, recipe: roots.Recipe) -> None:
    first, said = made(recipe, tmp_path / "one", tmp_path / "cache")
    assert len(said) == 1
    second, said = made(recipe, tmp_path / "two", tmp_path / "cache")
    assert said == []
    assert contents(second) == contents(first)
    assert (second / "dev/stdin").readlink() == (first / "dev/stdin").readlink()
    assert (second / "usr/bin/rune").samefile(first / "usr/bin/rune")
    shutil.rmtree(first)
    assert (second / "usr/bin/rune").read_text() == "#!/bin/true"


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_cache_that_others_may_write_to_is_not_used(
    tmp_path: Path, recipe: roots.Recipe, mode: int
) -> None:
    made(recipe, tmp_path / "one", tmp_path / "cache")
    (tmp_path / "cache").chmod(mode)
    assert made(recipe, tmp_path / "two", tmp_path / "cache")[1]
    (tmp_path / "cache").chmod(0o700)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.chmod(mode)
    assert made(recipe, tmp_path / "three", tmp_path / "cache")[1]


def test_a_link_in_the_place_of_a_kept_root_is_not_followed(tmp_path: Path, recipe: roots.Recipe) -> None:
    made(recipe, tmp_path / "one", tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    assert made(recipe, tmp_path / "two", tmp_path / "cache")[1]


def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path: Path, recipe: roots.Recipe) -> None:
    (tmp_path / "file").write_text("")
    root, said = made(recipe, tmp_path / "one", tmp_path / "file" / "cache")
    assert said
    assert (root / "usr/bin/rune").is_file()


def test_one_that_is_dropped_while_it_is_taken_is_made_anew(
    tmp_path: Path, recipe: roots.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = made(recipe, tmp_path / "one", tmp_path / "cache")
    share = rootcache._share

    def dropped(source: str, target: str) -> str:
        if source.endswith("module.py"):
            (kept,) = (tmp_path / "cache").iterdir()
            rootcache._drop(kept)
        return share(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(rootcache, "_share", dropped)
        (tmp_path / "two").mkdir()
        assert not rootcache.take(tmp_path / "cache", first.name, tmp_path / "two")
    assert list((tmp_path / "two").iterdir()) == []
    assert list((tmp_path / "cache").iterdir()) == []
    second, said = made(recipe, tmp_path / "three", tmp_path / "cache")
    assert said
    assert contents(second) == contents(first)


def test_three_of_a_kind_are_kept(tmp_path: Path, recipe: roots.Recipe) -> None:
    for number in range(5):
        (tmp_path / "tree/module.py").write_text(f"x = {number}" * (number + 1))
        root, _ = made(recipe, tmp_path / "one", tmp_path / "cache")
    names = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(names) == 3
    assert root.name in names


def test_a_file_that_changed_in_a_tree_makes_another_root(tmp_path: Path, recipe: roots.Recipe) -> None:
    before = recipe.key
    (tmp_path / "tree/module.py").write_text("x = 22")
    assert recipe.key != before
