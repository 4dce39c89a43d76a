from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.errors import InvalidSource
from crucible.packages import folder
from crucible.packages.folder import File, Link, digest_of, read_folder


def test_files_folders_modes_and_inner_links_are_read(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("a")
    (tmp_path / "run").write_text("#!")
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "lib" / "link").symlink_to("../run")
    assert read_folder(tmp_path) == {
        "lib/a.py": File(b"a"),
        "lib/link": Link("../run"),
        "run": File(b"#!", executable=True),
    }


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside", "lib/../..", "x/.."])
def test_a_link_that_leaves_the_source_is_refused_by_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "escape").symlink_to(target)
    with pytest.raises(InvalidSource, match=r"escape is a link to .*, which leaves the source"):
        read_folder(tmp_path)


def test_a_link_may_climb_exactly_to_the_top(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "ok").symlink_to("../../a")
    assert read_folder(tmp_path) == {"a/b/ok": Link("../../a")}
    (tmp_path / "a" / "b" / "bad").symlink_to("../../../a")
    with pytest.raises(InvalidSource, match="leaves the source"):
        read_folder(tmp_path)


def test_a_fifo_or_socket_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidSource, match="pipe is not a regular file"):
        read_folder(tmp_path)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock"))
        with pytest.raises(InvalidSource, match="sock cannot be read"):
            read_folder(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="cannot be opened as a folder: No such file"):
        read_folder(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSource, match="cannot be opened as a folder: Not a directory"):
        read_folder(tmp_path / "file")


def test_size_and_number_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("12345")
    (tmp_path / "b").write_text("12345")
    monkeypatch.setattr(folder, "SIZE_LIMIT", 8)
    with pytest.raises(InvalidSource, match="is larger than"):
        read_folder(tmp_path)
    monkeypatch.setattr(folder, "SIZE_LIMIT", 80)
    monkeypatch.setattr(folder, "ENTRY_LIMIT", 1)
    with pytest.raises(InvalidSource, match="holds more than 1 files"):
        read_folder(tmp_path)


def test_empty_folders_count_and_depth_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"folder{number}").mkdir()
    monkeypatch.setattr(folder, "ENTRY_LIMIT", 4)
    with pytest.raises(InvalidSource, match="holds more than 4 files"):
        read_folder(tmp_path)
    monkeypatch.setattr(folder, "ENTRY_LIMIT", 10_000)
    deep = tmp_path / "deep"
    for _ in range(200):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(InvalidSource, match="is nested deeper than 64 folders"):
        read_folder(tmp_path)


def test_names_and_targets_that_are_no_text_are_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("")
    with pytest.raises(InvalidSource, match="is not UTF-8"):
        read_folder(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).unlink()
    (tmp_path / "link").symlink_to(os.fsdecode(b"\xff"))
    with pytest.raises(InvalidSource, match="is not UTF-8"):
        read_folder(tmp_path)


def test_history_and_bytecode_are_left_out(tmp_path: Path) -> None:
    for name in (".git", "__pycache__"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("")
    assert read_folder(tmp_path) == {}


TREES = st.dictionaries(
    st.text("ab/ 1", min_size=1, max_size=6),
    st.one_of(
        st.builds(File, st.binary(max_size=6), st.booleans()), st.builds(Link, st.text("ab1 ", max_size=6))
    ),
    max_size=4,
)


@given(TREES, TREES)
def test_two_trees_have_one_digest_exactly_when_they_are_equal(one: folder.Tree, other: folder.Tree) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)
