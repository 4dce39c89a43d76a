"""Server-side apply against a model: who applied what last decides what is there and who owns it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crucible.control.apiserver.apply import Application, apply
from crucible.control.apiserver.definitions import resources_of, with_default_names
from crucible.control.apiserver.fieldsets import (
    all_paths,
    applied_paths,
    compare,
    from_wire,
    to_wire,
    without,
)
from crucible.control.apiserver.managed import Entry, Writer, after_update, read_entries, write_entries
from crucible.control.apiserver.status import ApiError

CRD = yaml.safe_load((Path(__file__).parent / "crd.yaml").read_text())
SCHEMA = resources_of(with_default_names(CRD))[0].schema
NOW = "2026-01-01T00:00:00Z"
NAMES = ("a", "b", "c")

values = st.sampled_from(["1", "2", "3"])
# An empty keyed list claims nothing, here as on a real server, so it is left out.
env = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), values), min_size=1, max_size=3)
limits = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2), max_size=3)
anything = st.recursive(
    st.one_of(st.booleans(), st.integers(0, 2), values),
    lambda below: st.one_of(
        st.lists(below, max_size=2), st.dictionaries(st.sampled_from(NAMES), below, max_size=2)
    ),
    max_leaves=5,
)
specs = st.fixed_dictionaries(
    {},
    optional={"image": values, "replicas": st.integers(0, 3), "env": env, "limits": limits,
              "config": st.dictionaries(st.sampled_from(NAMES), anything, max_size=2)},
)  # fmt: skip


def config_of(spec: dict[str, Any]) -> dict[str, Any]:
    made = dict(spec)
    if "env" in made:
        made["env"] = [{"name": n} if v is None else {"name": n, "value": v} for n, v in made["env"].items()]
    return {"apiVersion": "probe.dev/v1", "kind": "Plugin", "metadata": {"name": "p"}, "spec": made}


def writer(name: str, operation: str = "Apply") -> Writer:
    return Writer(name, operation, "probe.dev/v1")


@dataclass
class World:
    body: dict[str, Any] = field(default_factory=lambda: {"metadata": {"uid": "u"}})
    entries: tuple[Entry, ...] = ()
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)


steps = st.lists(
    st.tuples(st.sampled_from(["m1", "m2", "m3"]), specs, st.sampled_from(["apply", "force", "update"])),
    min_size=1,
    max_size=8,
)


def advance(world: World, name: str, spec: dict[str, Any], how: str) -> None:
    config = config_of(spec)
    if how == "update":
        new = {**world.body, "spec": config["spec"]}
        diff = compare(world.body, new, SCHEMA)
        world.entries = after_update(world.entries, diff, writer(name, "Update"), NOW)
        world.body = new
        return
    wanted = Application(config, writer(name), NOW, force=how == "force")
    try:
        done = apply(world.body, world.entries, SCHEMA, wanted)
    except ApiError as error:
        assert error.code == 409  # noqa: PT017 - either outcome is right
        assert how == "apply"
        return
    world.body, world.entries = done.body, done.entries
    world.claims[name] = config


@given(steps)
def test_what_was_applied_is_there_and_owned(taken: list[tuple[str, dict[str, Any], str]]) -> None:
    world = World()
    for name, spec, how in taken:
        before = world.body
        advance(world, name, spec, how)
        if how != "update" and world.claims.get(name) == config_of(spec) and world.body is not before:
            claimed = applied_paths(config_of(spec), SCHEMA)
            mine = next((e.paths for e in world.entries if e.writer == writer(name)), frozenset())
            assert mine == claimed
            assert claimed <= all_paths(world.body, SCHEMA)


@given(steps)
def test_nobody_owns_what_is_not_there(taken: list[tuple[str, dict[str, Any], str]]) -> None:
    world = World()
    for step in taken:
        advance(world, *step)
        present = all_paths(world.body, SCHEMA)
        for entry in world.entries:
            assert entry.paths <= present


@given(specs, specs)
def test_what_one_manager_no_longer_names_goes(first: dict[str, Any], second: dict[str, Any]) -> None:
    world = World()
    advance(world, "m1", first, "apply")
    advance(world, "m1", second, "apply")
    assert applied_paths(world.body, SCHEMA) - {("f:metadata", "f:uid")} == applied_paths(
        config_of(second), SCHEMA
    )


@given(specs, specs)
def test_what_another_manager_owns_stays(first: dict[str, Any], second: dict[str, Any]) -> None:
    world = World()
    advance(world, "m1", first, "apply")
    advance(world, "m2", second, "force")
    advance(world, "m1", {}, "apply")
    assert applied_paths(config_of(second), SCHEMA) <= all_paths(world.body, SCHEMA)


@given(specs, specs)
def test_a_conflict_is_exactly_another_owner_and_another_value(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    world = World()
    advance(world, "m1", first, "apply")
    merged = apply(
        world.body, world.entries, SCHEMA, Application(config_of(second), writer("m2"), NOW, force=True)
    )
    differ = compare(world.body, merged.body, SCHEMA).written & applied_paths(config_of(first), SCHEMA)
    try:
        apply(world.body, world.entries, SCHEMA, Application(config_of(second), writer("m2"), NOW))
    except ApiError as error:
        assert len((error.details or {})["causes"]) == len(differ)  # noqa: PT017 - or none
    else:
        assert not differ


@given(specs)
def test_applying_again_changes_nothing(spec: dict[str, Any]) -> None:
    world = World()
    advance(world, "m1", spec, "apply")
    later = Application(config_of(spec), writer("m1"), "2027-01-01T00:00:00Z")
    again = apply(world.body, world.entries, SCHEMA, later)
    assert again.body == world.body
    assert again.entries == world.entries


@given(steps)
def test_owners_survive_the_wire(taken: list[tuple[str, dict[str, Any], str]]) -> None:
    world = World()
    for step in taken:
        advance(world, *step)
    wire = json.loads(json.dumps(write_entries(world.entries)))
    assert set(read_entries({"managedFields": wire})) == set(world.entries)
    for entry in world.entries:
        assert from_wire(to_wire(entry.paths)) == entry.paths


@given(specs, specs)
def test_removing_what_was_added_gives_back_the_old(first: dict[str, Any], second: dict[str, Any]) -> None:
    old, new = config_of(first), config_of({**second, **first})
    diff = compare(old, new, SCHEMA)
    assert without(new, diff.added, SCHEMA).get("spec", {}).keys() == old["spec"].keys()
    assert compare(old, old, SCHEMA).written == frozenset()


@pytest.mark.parametrize("seed", range(4 if not os.environ.get("CRUCIBLE_LONG") else 40))
def test_the_outcome_does_not_depend_on_the_hash_seed(seed: int) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "import test_apply_model as m, json\n"
        "w = m.World()\n"
        "for name, spec, how in [('m1', {'env': {'a': '1', 'b': '2'}, 'limits': {'a': 1}}, 'apply'),"
        " ('m2', {'env': {'b': '2', 'c': None}}, 'apply'), ('m1', {'env': {'c': None}}, 'apply'),"
        " ('m3', {'env': {'c': '9'}, 'image': '1'}, 'force'), ('m2', {}, 'apply')]:\n"
        "    m.advance(w, name, spec, how)\n"
        "print(json.dumps([w.body, m.write_entries(w.entries)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    body, entries = json.loads(ran.stdout)
    assert body["spec"] == {"env": [{"name": "c", "value": "9"}], "image": "1"}
    assert [entry["manager"] for entry in entries] == ["m1", "m2", "m3"]


@pytest.mark.parametrize("seed", range(1, 13 if os.environ.get("CRUCIBLE_LONG") else 4))
def test_the_model_holds_under_any_hash_seed(seed: int) -> None:
    """The properties above, in a process of another hash seed with examples of its own."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}"]
    ran = subprocess.run(
        [*argv, __file__, "-k", "not hash_seed"],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
