"""Plugins' stores in a backup: each as it was at one moment, whoever writes, and nothing that is none."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import tarfile
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from crucible.bus.records import PUT, record_of
from crucible.bus.shelf import Shelf, file_of
from crucible.cli.backup import ROOMS, RULES, STORES
from crucible.control import growing
from crucible.control.apiserver.unpacking import unpack
from crucible.control.backup import Rooms, write_backup
from crucible.errors import InvalidInput
from crucible.model.bus import Grants, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crucible.control.backup import Kept

ALPHA = Member("here", "alpha", "uid-alpha", Grants(store=2**30))
BETA = Member("there", "beta", "uid-beta", Grants(store=2**30, keep_store=False))


def name_of(member: Member) -> str:
    return file_of(member.key)


@pytest.fixture
def control(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "control"
    folder.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(folder / "control.db")) as link:
        link.executescript("CREATE TABLE objects (name TEXT); CREATE TABLE meta (key TEXT, value INTEGER);")
        link.executescript("INSERT INTO meta VALUES ('revision', 7);")
    return folder


@pytest.fixture
def data(control: Path) -> Path:
    folder = control.parent / STORES.place
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def shelf_in(folder: Path) -> Iterator[Shelf]:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    shelf = Shelf(held)
    try:
        yield shelf
    finally:
        shelf.close()
        os.close(held)


def contents(folder: Path, member: Member) -> dict[str, bytes]:
    with shelf_in(folder) as shelf:
        bucket = shelf.open(member)
        keys = [entry[0] for entry in bucket.list("", "", 100_000).entries]
        return {key: bucket.get(key)[1] for key in keys}  # type: ignore[index]


def backed_up(control: Path, tmp_path: Path, rooms: Rooms = ROOMS) -> Kept:
    return write_backup(control, tmp_path / "none", tmp_path / "b", RULES, rooms)


def restored(tmp_path: Path, name: str = "draft") -> Path:
    """Take the backup apart, put its stores somewhere, and return where."""
    draft = tmp_path / name
    draft.mkdir()
    found = unpack(tmp_path / "b", draft, RULES, ROOMS)
    growing.place(found.stores, draft / "data")
    return draft / "data"


def test_what_is_in_stores_comes_back(control: Path, data: Path, tmp_path: Path) -> None:
    with shelf_in(data) as shelf:
        shelf.put(ALPHA, "a", b"1", None)
        shelf.put(ALPHA, "b", b"\0" * 100_000, None)
        shelf.delete(ALPHA, "a", None)
        shelf.put(BETA, "c", b"3", None)
        kept = backed_up(control, tmp_path)  # while they are open, and nothing was synced
    assert kept.stores == tuple(sorted(map(name_of, (ALPHA, BETA))))
    back = restored(tmp_path)
    assert contents(back, ALPHA) == {"b": b"\0" * 100_000}
    assert contents(back, BETA) == {"c": b"3"}
    assert {path.stat().st_mode & 0o777 for path in back.iterdir()} == {0o600}
    assert back.stat().st_mode & 0o777 == 0o700


def test_a_store_is_as_it_was_at_one_moment_while_it_is_written_and_written_anew(
    control: Path, data: Path, tmp_path: Path
) -> None:
    """Keys are numbered as they come, each takes the last one's place: one more or less shows any gap."""
    over = threading.Event()

    def write_on() -> None:
        with shelf_in(data) as shelf:
            for number in range(10**6):
                bucket, _ = shelf.put(ALPHA, f"{number:08}", b"x" * 5000, None)
                if number >= 20:
                    shelf.delete(ALPHA, f"{number - 20:08}", None)
                bucket.sync()  # which writes it anew once most of it is past
                begun.set()
                if over.is_set():
                    return

    begun = threading.Event()
    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        assert begun.wait(30)
        for turn in range(8):
            backed_up(control, tmp_path)
            keys = [int(key) for key in contents(restored(tmp_path, f"draft{turn}"), ALPHA)]
            assert keys == list(range(keys[0], keys[0] + len(keys)))
            assert len(keys) in {20, 21} or keys[0] == 0
    finally:
        over.set()
        writer.join(30)


def test_a_record_that_is_being_written_is_left_out(control: Path, data: Path, tmp_path: Path) -> None:
    with shelf_in(data) as shelf:
        shelf.put(ALPHA, "a", b"1", None)
    with (data / name_of(ALPHA)).open("ab") as file:
        file.write(record_of(PUT, 2, "b", b"2" * 1000)[:-1])
    backed_up(control, tmp_path)
    assert contents(restored(tmp_path), ALPHA) == {"a": b"1"}


def test_what_is_no_store_is_not_read(control: Path, data: Path, tmp_path: Path) -> None:
    """The broker owns the folder, and is trusted less than whoever makes the backup."""
    with shelf_in(data) as shelf:
        shelf.put(ALPHA, "a", b"1", None)
    (tmp_path / "secret").write_bytes((data / name_of(ALPHA)).read_bytes())
    (data / ("0" * 40)).symlink_to(tmp_path / "secret")
    os.mkfifo(data / ("1" * 40))
    (data / ("2" * 40)).mkdir()
    (data / ("3" * 40)).write_bytes((data / name_of(ALPHA)).read_bytes())  # alpha's, by another name
    (data / ("4" * 40)).write_bytes(b"")
    (data / ("5" * 40)).write_bytes(record_of(PUT, 1, "nobody's", b"x"))
    (data / f"{name_of(ALPHA)}.new").write_bytes(b"half")
    assert backed_up(control, tmp_path).stores == (name_of(ALPHA),)
    with tarfile.open(tmp_path / "b") as archive:
        assert [name for name in archive.getnames() if name.startswith("stores")] == [
            f"stores/{name_of(ALPHA)}"
        ]


def test_one_that_is_larger_than_any_may_be_and_more_than_there_may_be_are_refused(
    control: Path, data: Path, tmp_path: Path
) -> None:
    with shelf_in(data) as shelf:
        shelf.put(ALPHA, "a", b"x" * 1000, None)
        shelf.put(BETA, "a", b"x", None)
    for few, words in (({"size": 1000}, "larger than it may be"), ({"count": 1}, "more than 1 files")):
        with pytest.raises(InvalidInput, match=words):
            backed_up(control, tmp_path, Rooms(stores=replace(STORES, **few)))  # type: ignore[arg-type]
        assert not (tmp_path / "b").exists()


def test_a_backup_of_an_earlier_release_says_nothing_of_stores(control: Path, tmp_path: Path) -> None:
    backed_up(control, tmp_path, Rooms())
    (tmp_path / "draft").mkdir()
    assert unpack(tmp_path / "b", tmp_path / "draft", RULES, ROOMS).kept.stores is None


def test_stores_that_were_there_stay_beside_those_of_the_backup(tmp_path: Path) -> None:
    for turn in range(3):
        draft = tmp_path / "draft"
        draft.mkdir()
        (draft / "store").write_text(str(turn))
        growing.place(draft, tmp_path / "bus" / "data")
    assert (tmp_path / "bus" / "data" / "store").read_text() == "2"
    assert (tmp_path / "bus" / "data.before-restore" / "store").read_text() == "1"
    assert {path.name for path in (tmp_path / "bus").iterdir()} == {"data", "data.before-restore"}


Entries = list[tuple[tarfile.TarInfo, bytes]]


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def plain(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


ALPHAS = f"stores/{name_of(ALPHA)}"
HOSTILE: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "a path that climbs": (lambda good: [*good, plain("stores/../../outside", b"x")], "in no backup"),
    "a file in a folder": (lambda good: [*good, plain(f"{ALPHAS}/outside", b"x")], "in no backup"),
    "another name": (
        lambda good: [*good, plain(f"stores/{'0' * 40}", good[-1][1])],
        "not what its name says",
    ),
    "the same twice": (lambda good: [*good, good[-1]], "in no backup"),
    "one that is cut off": (lambda good: [*good[:-1], plain(ALPHAS, good[-1][1][:-1])], "not whole"),
    "one with more behind it": (lambda good: [*good[:-1], plain(ALPHAS, good[-1][1] + b"x")], "not whole"),
    "an empty one": (lambda good: [*good[:-1], plain(ALPHAS, b"")], "not whole"),
    "a link": (
        lambda good: [*good[:-1], special(ALPHAS, tarfile.SYMTYPE, "/etc/passwd")],
        "no plain file|not a",
    ),
    "a device": (lambda good: [*good[:-1], special(ALPHAS, tarfile.CHRTYPE)], "not a plain file"),
    "stores that nothing announces": (
        lambda good: [plain("backup.json", b'{"format": 1, "sources": []}'), *good[1:]],
        "is not one of its snapshots",
    ),
    "stores by another name": (
        lambda good: [
            plain("backup.json", b'{"format": 1, "sources": [], "stores": "control.db"}'),
            *good[1:],
        ],
        "names what is in no backup",
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing_elsewhere(
    control: Path, data: Path, tmp_path: Path, how: str
) -> None:
    with shelf_in(data) as shelf:
        shelf.put(ALPHA, "a", b"1", None)
    backed_up(control, tmp_path)
    with tarfile.open(tmp_path / "b") as archive:
        good = [(each, archive.extractfile(each).read()) for each in archive]  # type: ignore[union-attr]
    assert json.loads(good[0][1])["stores"] == "stores"
    amiss, words = HOSTILE[how]
    with tarfile.open(tmp_path / "bad", "w:") as archive:
        for member, content in amiss(good):
            archive.addfile(member, io.BytesIO(content))
    draft = tmp_path / "deep" / "draft"
    draft.mkdir(parents=True)
    with pytest.raises(InvalidInput, match=words):
        unpack(tmp_path / "bad", draft, RULES, ROOMS)
    assert list((tmp_path / "deep").iterdir()) == [draft]
    assert not list(tmp_path.rglob("outside"))
