"""Which roots this host can make, and what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crucible.runtimes.process import host, roots
from crucible.runtimes.process.settings import ProcessSettings

if TYPE_CHECKING:
    from pathlib import Path


def offered(tmp_path: Path) -> dict[str, roots.Recipe]:
    settings = ProcessSettings(state_dir=tmp_path, control_plane="test")
    return {recipe.type: recipe for recipe in host.recipes(settings)}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin/crucible-rune"
    path.parent.mkdir()
    path.write_text("#!/bin/true\n")
    path.chmod(0o755)
    return path


def test_python_binary_and_wasm_need_nothing_but_what_is_installed(tmp_path: Path) -> None:
    assert {"python", "binary", "wasm"} <= set(offered(tmp_path))


def test_python_has_a_name_without_its_release(tmp_path: Path) -> None:
    recipe = offered(tmp_path)["python"]
    ((name, target),) = recipe.links
    assert name == "usr/bin/python3"
    assert f"usr/bin/{target}" in dict(recipe.files)


def test_rune_is_offered_where_its_host_is(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_RUNE", str(program))
    recipe = offered(tmp_path)["rune"]
    assert recipe.files == (("usr/bin/crucible-rune", program),)
    assert recipe.program.before == ("/usr/bin/crucible-rune",)
    monkeypatch.setenv("CRUCIBLE_RUNE", str(tmp_path / "not-there"))
    assert "rune" not in offered(tmp_path)


def test_the_rune_host_is_looked_for_where_it_is_named_then_on_path_then_where_it_was_built(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRUCIBLE_RUNE", raising=False)
    monkeypatch.setenv("PATH", str(program.parent))
    assert roots.rune_program() == program
    named = tmp_path / "named"
    named.write_bytes(program.read_bytes())
    monkeypatch.setenv("CRUCIBLE_RUNE", str(named))
    assert roots.rune_program() is None  # named, but not to be executed: no other is taken for it
    named.chmod(0o755)
    assert roots.rune_program() == named
    monkeypatch.delenv("CRUCIBLE_RUNE")
    monkeypatch.setenv("PATH", str(tmp_path))
    built = tmp_path / "tree/build/rune/crucible-rune"
    built.parent.mkdir(parents=True)
    built.write_bytes(program.read_bytes())
    built.chmod(0o755)
    monkeypatch.setattr(roots.crucible, "__file__", str(tmp_path / "tree/controller/crucible/__init__.py"))
    assert roots.rune_program() == built


def test_wasm_is_not_offered_without_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots.importlib.util, "find_spec", lambda _: None)
    assert roots.wasmtime_package() is None
    assert "wasm" not in offered(tmp_path)


def test_the_wasm_host_is_reached_whatever_the_environment_says(tmp_path: Path) -> None:
    recipe = offered(tmp_path)["wasm"]
    interpreter, *flags = recipe.program.before
    assert interpreter.startswith("/usr/bin/python3")
    assert {"-I", "-S"} <= set(flags)
    assert recipe.program.env == ()
    places = {place for place, _ in (*recipe.files, *recipe.trees)}
    (library,) = recipe.compiled
    assert {f"{library}/crucible_wasm.py", f"{library}/wasmtime"} <= places


def test_a_root_changes_when_its_host_program_does(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_RUNE", str(program))
    before = offered(tmp_path)["rune"].key
    assert offered(tmp_path)["rune"].key == before
    program.write_text("#!/bin/false\n")
    assert offered(tmp_path)["rune"].key != before
