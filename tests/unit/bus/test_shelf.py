"""All stores of a machine: what memory their keys may take together, and who does without."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from crucible.bus.bucket import Full, footprint
from crucible.bus.shelf import Shelf
from crucible.model.bus import Grants, Member

KEY = "k" * 100


def member(name: str, *, uid: str = "", keep: bool = True) -> Member:
    return Member("here", name, uid or f"uid-{name}", Grants(store=2**30, keep_store=keep))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def fill(shelf: Shelf, who: Member, count: int, first: int = 0) -> int:
    """Put so many small keys; return how many were taken."""
    for number in range(first, first + count):
        try:
            shelf.put(who, f"{number:0{len(KEY)}}", b"", None)
        except Full:
            return number - first
    return count


def test_who_fills_the_memory_is_refused_and_who_has_little_is_not(folder: int) -> None:
    room = footprint(KEY) * 1280
    shelf = Shelf(folder, room)
    assert fill(shelf, member("greedy"), 2000) == 1280
    for name in ("a", "b", "c"):
        assert fill(shelf, member(name), 30) == 20
    assert fill(shelf, member("greedy"), 1, first=5000) == 0
    shelf.put(member("greedy"), f"{0:0{len(KEY)}}", b"another value", None)
    with pytest.raises(Full, match="all stores"):
        shelf.put(member("greedy"), "new", b"", None)
    shelf.close()


def test_however_many_collude_no_more_than_twice_the_memory_is_taken(folder: int) -> None:
    room = footprint(KEY) * 64
    shelf = Shelf(folder, room)
    names = [f"p{number}" for number in range(100)]
    assert [fill(shelf, member(name), 100) for name in names] == [64] + [1] * 64 + [0] * 35
    assert shelf.memory == 2 * room
    shelf.close()
    assert shelf.memory == 0


def test_what_was_not_used_for_longest_is_closed_and_nothing_of_it_lost(folder: int) -> None:
    large = Shelf(folder)
    for name in ("a", "b", "c"):
        fill(large, member(name), 100)
    large.close()
    shelf = Shelf(folder, footprint(KEY) * 100)
    for name in ("a", "b", "c", "a"):
        assert len(shelf.open(member(name)).list("", "", 1000).entries) == 100
        assert shelf.memory <= footprint(KEY) * 200
    shelf.close()


def test_whether_to_keep_is_in_the_file_as_soon_as_it_is_told(folder: int) -> None:
    shelf = Shelf(folder)
    bucket, _ = shelf.put(member("a"), "k", b"v", None)
    bucket.sync()
    shelf.note([member("a", keep=False), member("never")])
    assert len(os.listdir(folder)) == 1
    shelf.keep(set())
    assert os.listdir(folder) == []
    shelf.close()


def test_what_another_of_that_name_says_does_not_count(folder: int) -> None:
    shelf = Shelf(folder)
    shelf.put(member("a", keep=False), "k", b"v", None)
    shelf.note([member("a", uid="another", keep=True)])
    shelf.keep(set())
    assert os.listdir(folder) == []
    shelf.close()
