from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import plugin

from crucible.core.admission import admit
from crucible.errors import InvalidSource, NotFound
from crucible.model.plugin import read_identity
from crucible.packages.snapshot import SnapshotStore

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.model.manifest import PluginSpec


def spec(**fields: Any) -> PluginSpec:
    return admit(plugin(**fields))


IDENTITY = read_identity(plugin())


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "sources")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    (path / "main.py").write_text("print(1)")
    return path


async def test_inline_files_become_a_folder_that_others_may_walk(store: SnapshotStore) -> None:
    old = os.umask(0o077)
    try:
        inline = {"main.py": "print(1)", "lib/deep/a.py": "a"}
        found = await store.resolve(IDENTITY, spec(source={"inline": inline}), None)
    finally:
        os.umask(old)
    path = store.path_of(found.digest)
    assert (path / "lib/deep/a.py").read_text() == "a"
    assert (path / "lib/deep").stat().st_mode & 0o777 == 0o755
    assert path.stat().st_mode & 0o777 == 0o755
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_folder_is_copied_and_later_changes_do_not_reach_it(store: SnapshotStore, work: Path) -> None:
    asked = spec(source={"path": str(work)})
    first = await store.resolve(IDENTITY, asked, None)
    (work / "main.py").write_text("print(2)")
    assert await store.resolve(IDENTITY, asked, first) == first
    assert (store.path_of(first.digest) / "main.py").read_text() == "print(1)"


async def test_applying_anew_or_a_requested_restart_reads_the_folder_again(
    store: SnapshotStore, work: Path
) -> None:
    asked = spec(source={"path": str(work)})
    first = await store.resolve(IDENTITY, asked, None)
    (work / "main.py").write_text("print(2)")
    for anew in (replace(IDENTITY, source_digest="sha256:1"), replace(IDENTITY, restart="now")):
        assert (await store.resolve(anew, asked, first)).digest != first.digest


async def test_a_snapshot_that_was_deleted_is_taken_again(store: SnapshotStore, work: Path) -> None:
    asked = spec(source={"path": str(work)})
    first = await store.resolve(IDENTITY, asked, None)
    assert store.sweep(frozenset()) == ()
    assert store.sweep(frozenset()) == (first.digest,)
    with pytest.raises(NotFound):
        store.path_of(first.digest)
    assert await store.resolve(IDENTITY, asked, first) == first
    assert store.path_of(first.digest).is_dir()


async def test_a_relative_path_is_refused_with_the_way_out(store: SnapshotStore) -> None:
    with pytest.raises(InvalidSource, match="crucible apply"):
        await store.resolve(IDENTITY, spec(source={"path": "./work"}), None)


async def test_a_missing_entrypoint_is_named(store: SnapshotStore, work: Path) -> None:
    with pytest.raises(InvalidSource, match=r"the entrypoint main.js is not among its 1 files"):
        await store.resolve(IDENTITY, spec(source={"path": str(work)}, entrypoint=["main.js"]), None)


async def test_sweeping_keeps_what_is_wanted_and_clears_what_was_interrupted(
    store: SnapshotStore, tmp_path: Path
) -> None:
    found = await store.resolve(IDENTITY, spec(), None)
    (tmp_path / "sources" / "making-x").mkdir()
    store.sweep({found.digest})
    assert [entry.name for entry in (tmp_path / "sources").iterdir()] == [
        found.digest.removeprefix("sha256:")
    ]
