"""One plugin's data in its file: what was written is there, after crashes too."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crucible.bus import bucket as buckets
from crucible.bus.bucket import Bucket, Changed, Full, is_key
from crucible.bus.records import PUT, about_of, record_of

SIZE = 1024 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def content(bucket: Bucket) -> dict[str, tuple[int, bytes]]:
    found = {}
    for key, revision, _ in bucket.list("", "", 10_000).entries:
        got = bucket.get(key)
        assert got is not None
        assert got[0] == revision
        found[key] = got
    return found


def test_revisions_grow_and_guard(folder: int) -> None:
    bucket = Bucket(folder, "a")
    assert bucket.put("k", b"1", 0, SIZE) == 1
    assert bucket.put("k", b"2", 1, SIZE) == 2
    assert bucket.put("other", b"", None, SIZE) == 3
    for expected in (0, 1, 3):
        with pytest.raises(Changed) as changed:
            bucket.put("k", b"3", expected, SIZE)
        assert changed.value.revision == 2
    with pytest.raises(Changed, match="not there"):
        bucket.delete("nothing", 7)
    assert bucket.delete("nothing", None) is None
    assert bucket.delete("k", 2) == 4
    assert bucket.get("k") is None
    assert bucket.put("k", b"again", 0, SIZE) == 5
    bucket.close()


def test_the_size_holds_and_what_shrinks_is_always_taken(folder: int) -> None:
    bucket = Bucket(folder, "a")
    size = buckets.OVERHEAD + 68
    bucket.put("k", b"x" * 60, None, size)
    with pytest.raises(Full, match=f"of {size} bytes"):
        bucket.put("l", b"", None, size)
    with pytest.raises(Full):
        bucket.put("k", b"x" * 70, None, size)
    bucket.put("k", b"x" * 67, None, size)
    bucket.put("k", b"x" * 50, None, 10)
    assert bucket.used == 50 + 1 + buckets.OVERHEAD
    bucket.close()


def test_no_more_keys_are_taken_than_a_store_may_have(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "KEYS", 3)
    bucket = Bucket(folder, "a")
    for key in "abc":
        bucket.put(key, b"", None, SIZE)
    with pytest.raises(Full, match="3 keys"):
        bucket.put("d", b"", None, SIZE)
    bucket.put("c", b"another value", None, SIZE)
    bucket.delete("a", None)
    bucket.put("d", b"", None, SIZE)
    bucket.close()


@pytest.mark.parametrize("length", [5, 250])
def test_a_key_counts_at_least_the_memory_that_it_takes(folder: int, length: int) -> None:
    bucket = Bucket(folder, "a")
    tracemalloc.start()
    try:
        for number in range(8000):
            bucket.put(str(number).zfill(length), b"", None, 2**40)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= bucket.memory <= bucket.used
    assert bucket.memory < 2.5 * taken
    bucket.close()
    again = Bucket(folder, "a")
    assert again.memory == bucket.memory
    again.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.sets(st.text("ab/", min_size=1, max_size=5)), *(st.text("ab/", max_size=n) for n in (2, 3)))
def test_a_page_is_what_begins_with_a_prefix_and_comes_after(
    folder: int, keys: set[str], prefix: str, after: str
) -> None:
    Path(f"/proc/self/fd/{folder}/page").unlink(missing_ok=True)
    bucket = Bucket(folder, "page")
    for key in keys:
        bucket.put(key, b"", None, SIZE)
    for key in keys & {"a", "b/"}:
        bucket.delete(key, None)
    expected = sorted(key for key in keys - {"a", "b/"} if key.startswith(prefix) and key > after)
    listed = bucket.list(prefix, after, 3)
    assert [key for key, _, _ in listed.entries] == expected[:3]
    assert listed.more == (len(expected) > 3)
    bucket.close()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.binary(max_size=40))), min_size=1, max_size=25
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(OPERATIONS, st.data())
def test_a_file_that_was_cut_off_anywhere_holds_all_that_was_whole(
    folder: int, operations: list[tuple[str, bytes | None]], data: st.DataObject
) -> None:
    name = "cut"
    Path(f"/proc/self/fd/{folder}/{name}").unlink(missing_ok=True)
    bucket = Bucket(folder, name)
    states = [(0, content(bucket))]
    for key, value in operations:
        if value is None:
            bucket.delete(key, None)
        else:
            bucket.put(key, value, None, SIZE)
        states.append((bucket._end, content(bucket)))
    bucket.close()
    path = Path(f"/proc/self/fd/{folder}/{name}")
    at = data.draw(st.integers(0, path.stat().st_size))
    os.truncate(path, at)
    with path.open("ab") as file:
        file.write(data.draw(st.binary(max_size=30)))
    again = Bucket(folder, name)
    assert content(again) == next(state for end, state in reversed(states) if end <= at)
    again.put("new", b"x", None, SIZE)
    expected = content(again)
    again.close()
    third = Bucket(folder, name)
    assert content(third) == expected
    third.close()


def test_what_is_past_is_cleared_away_and_nothing_else(folder: int, tmp_path: Path) -> None:
    bucket = Bucket(folder, "a")
    bucket.describe(b"mine")
    bucket.put("kept", b"k" * 1000, None, 2**30)
    for number in range(40):
        bucket.put("busy", bytes([number]) * 100_000, None, 2**30)
        bucket.sync()
    assert (tmp_path / "a").stat().st_size < 3 * SIZE
    expected = content(bucket)
    assert expected["busy"] == (41, bytes([39]) * 100_000)
    bucket.close()
    assert about_of(folder, "a") == b"mine"
    again = Bucket(folder, "a")
    assert content(again) == expected
    assert again.put("kept", b"", None, 2**30) == 42
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    again.close()


def test_a_disk_that_is_full_changes_nothing(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(folder, "a")
    bucket.put("k", b"1", None, SIZE)
    real = os.pwrite

    def half(file: int, data: bytes, at: int) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return real(file, data[: len(data) - 10], at)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space"):
        bucket.put("k", b"2" * 50, None, SIZE)
    monkeypatch.undo()
    assert bucket.get("k") == (1, b"1")
    bucket.put("l", b"3", None, SIZE)
    bucket.close()
    again = Bucket(folder, "a")
    assert content(again) == {"k": (1, b"1"), "l": (2, b"3")}
    again.close()


def test_pages_go_on_where_they_ended(folder: int) -> None:
    bucket = Bucket(folder, "a")
    for key in ("b/1", "b/2", "b/3", "a"):
        bucket.put(key, b"", None, SIZE)
    first = bucket.list("b/", "", 2)
    assert ([entry[0] for entry in first.entries], first.more) == (["b/1", "b/2"], True)
    rest = bucket.list("b/", "b/2", 2)
    assert ([entry[0] for entry in rest.entries], rest.more) == (["b/3"], False)
    bucket.close()


def test_what_is_a_key() -> None:
    assert all(map(is_key, ["a", "A/b.c_d-e=1", "x" * 255]))
    assert not any(map(is_key, ["", "a b", "ä", "x" * 256, "a\n", "a\0"]))


def test_whose_it_is_is_what_was_told_last(folder: int) -> None:
    bucket = Bucket(folder, "a")
    bucket.describe(b"first")
    bucket.put("k", b"1", None, SIZE)
    bucket.describe(b"second")
    assert about_of(folder, "a") == b"second"
    bucket.put("other", b"2", None, SIZE)
    bucket.close()
    again = Bucket(folder, "a")
    assert content(again) == {"k": (1, b"1"), "other": (2, b"2")}
    again.close()


FORGED = record_of(PUT, 99, "forged", b"x")
"""What a plugin may well put into a value, to have it read as a record of its own one day."""


def test_a_write_that_failed_leaves_nothing_that_could_be_read_as_a_record(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(folder, "a")
    real, calls = os.pwrite, iter((True, False))

    def nearly_all(file: int, data: bytes, at: int) -> int:
        if next(calls):
            return real(file, data[:-1], at)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", nearly_all)
    with pytest.raises(OSError, match="No space"):
        bucket.put("k", b"p" * 10 + FORGED + b"-", None, SIZE)
    monkeypatch.undo()
    bucket.put("k", b"q" * 10, None, SIZE)  # ends where the other one's forged record begins
    bucket.close()
    again = Bucket(folder, "a")
    assert content(again) == {"k": (1, b"q" * 10)}
    again.close()


def test_what_was_cut_off_by_a_crash_is_not_read_as_a_record_later(folder: int, tmp_path: Path) -> None:
    bucket = Bucket(folder, "a")
    bucket.put("k", b"p" * 10 + FORGED + b"-", None, SIZE)
    bucket.close()
    os.truncate(tmp_path / "a", (tmp_path / "a").stat().st_size - 1)
    after = Bucket(folder, "a")
    assert content(after) == {}
    after.put("k", b"q" * 10, None, SIZE)
    after.close()
    again = Bucket(folder, "a")
    assert content(again) == {"k": (1, b"q" * 10)}
    again.close()


def test_what_takes_a_files_place_is_safe_before_it_does_and_so_is_its_name_after(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("fdatasync", "rename", "fsync"):
        real = getattr(os, name)

        def noted(*words: Any, _name: str = name, _real: Any = real, **more: Any) -> Any:
            done.append(_name)
            return _real(*words, **more)

        monkeypatch.setattr(os, name, noted)
    bucket = Bucket(folder, "a")
    bucket.put("busy", b"x" * 1_100_000, None, 2**30)
    bucket.delete("busy", None)
    bucket.sync()
    assert done == ["fdatasync", "rename", "fsync", "fdatasync"]
    bucket.sync()
    assert len(done) == 4, "nothing was written since"
    bucket.close()
