"""Which changes of a folder count as a save."""

from __future__ import annotations

import shutil
import threading
from queue import Empty, Queue
from typing import TYPE_CHECKING

import pytest
from watchfiles import Change

from crucible.cli.saves import Folder, Saves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 30.0


class Watched:
    """A folder, and the batches that come of changing it."""

    def __init__(self, root: Path, manifest: Path) -> None:
        self.root = root
        self.over = threading.Event()
        self.batches: Queue[tuple[str, ...]] = Queue()
        saves = Saves(Folder(root, manifest, 0.02))

        def watch() -> None:
            for batch in saves.watch(self.over):
                self.batches.put(batch)

        self.thread = threading.Thread(target=watch)
        self.thread.start()

    def next(self) -> tuple[str, ...]:
        return self.batches.get(timeout=DEADLINE)

    def end(self) -> None:
        self.over.set()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[[Path], Watched]]:
    made: list[Watched] = []
    root = tmp_path / "app"
    root.mkdir()

    def begin(manifest: Path) -> Watched:
        made.append(Watched(root, manifest))
        return made[-1]

    yield begin
    for each in made:
        each.end()


def test_only_what_is_part_of_the_plugin_counts(tmp_path: Path, watched: Callable[[Path], Watched]) -> None:
    app = watched(tmp_path / "app" / "plugin.yaml")
    assert app.next() == ()
    for folder in (".git", "__pycache__", ".mypy_cache"):
        (app.root / folder).mkdir()
        (app.root / folder / "file").write_text("x")
    for name in (".main.py.swp", "main.py~", "4913", ".#main.py", "#main.py#", "main.pyc"):
        (app.root / name).write_text("x")
    draft = app.root / ".main.py.swx"
    draft.write_text("print(1)")
    draft.rename(app.root / "main.py")
    assert app.next() == ("main.py",)
    with pytest.raises(Empty):
        app.batches.get_nowait()


def test_each_file_is_named_once_and_none_that_came_and_went(tmp_path: Path) -> None:
    saves = Saves(Folder(tmp_path, tmp_path / "plugin.yaml", 0.02))
    (tmp_path / "main.py").write_text("x")
    batch = {
        (Change.added, str(tmp_path / "main.py")),
        (Change.modified, str(tmp_path / "main.py")),
        (Change.added, str(tmp_path / ".main.py.tmp")),
        (Change.deleted, str(tmp_path / ".main.py.tmp")),
        (Change.deleted, str(tmp_path / "old.py")),
    }
    assert saves._names(batch) == ("main.py", "old.py")


def test_a_manifest_elsewhere_counts_and_what_lies_beside_it_does_not(
    tmp_path: Path, watched: Callable[[Path], Watched]
) -> None:
    (tmp_path / "deploy").mkdir()
    manifest = tmp_path / "deploy" / "plugin.yaml"
    app = watched(manifest)
    assert app.next() == ()
    (tmp_path / "deploy" / "other.yaml").write_text("x")
    manifest.write_text("x")
    assert app.next() == ("plugin.yaml",)


def test_a_folder_that_goes_and_comes_back_counts_twice(
    tmp_path: Path, watched: Callable[[Path], Watched]
) -> None:
    app = watched(tmp_path / "app" / "plugin.yaml")
    assert app.next() == ()
    shutil.rmtree(app.root)
    assert app.next() == ("app",)
    app.root.mkdir()
    assert app.next() == ("app",)
    assert app.next() == ()
    (app.root / "main.py").write_text("x")
    assert app.next() == ("main.py",)
