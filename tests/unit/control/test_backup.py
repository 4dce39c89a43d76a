"""Backups hold the database and the sources; what is no backup, or a hostile one, changes nothing."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible.backbone.authority import authority_in, utc_now
from crucible.backbone.machines import Machine, Machines
from crucible.backbone.papers import PAPERS
from crucible.cli.backup import RULES
from crucible.control import backup
from crucible.control.apiserver.unpacking import place_sources, unpack
from crucible.control.backup import Kept, Rooms, write_backup
from crucible.control.papers import place_papers
from crucible.core.admission import admit
from crucible.errors import InvalidInput, NotFound
from crucible.model.names import API_VERSION, KIND
from crucible.model.plugin import Identity
from crucible.packages.snapshot import SnapshotStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crucible.model.manifest import PluginSpec

Entries = list[tarfile.TarInfo | tuple[str, bytes]]


@pytest.fixture
def control(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "control"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "control.db")) as link:
        link.execute("PRAGMA journal_mode=WAL")
        link.executescript("CREATE TABLE objects (name TEXT); CREATE TABLE meta (key TEXT, value INTEGER);")
        link.executescript("INSERT INTO objects VALUES ('a'); INSERT INTO meta VALUES ('revision', 7);")
    return folder


@pytest.fixture
def plugin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "plugin"
    (folder / "lib" / "deep").mkdir(parents=True)
    (folder / "main.py").write_text("import lib\n")
    (folder / "main.py").chmod(0o755)
    (folder / "lib" / "deep" / "data ü").write_bytes(bytes(range(256)))
    (folder / "lib" / "main").symlink_to("../main.py")
    return folder


def spec_of(folder: Path) -> PluginSpec:
    about = {"version": "1.0.0", "type": "python", "source": {"path": str(folder)}, "entrypoint": ["main.py"]}
    return admit({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "p"}, "spec": about})


def resolve(sources: Path, folder: Path, known: Any = None) -> Any:
    identity = Identity(uid="u", namespace="default", name="p", generation=1)
    return asyncio.run(SnapshotStore(sources).resolve(identity, spec_of(folder), known))


def test_a_plugin_runs_from_its_source_on_another_machine(
    control: Path, plugin_folder: Path, tmp_path: Path
) -> None:
    sources = control.parent / "sources"
    known = resolve(sources, plugin_folder)
    (sources / "making-x").mkdir()
    assert write_backup(control, sources, tmp_path / "b", RULES) == Kept(1, 1)
    shutil.rmtree(plugin_folder)
    (tmp_path / "draft").mkdir()
    found = unpack(tmp_path / "b", tmp_path / "draft", RULES)
    assert found.kept == Kept(1, 1)
    place_sources(found, tmp_path / "other")
    assert resolve(tmp_path / "other", plugin_folder, known) == known
    folder = SnapshotStore(tmp_path / "other").path_of(known.digest)
    assert (folder / "lib" / "main").read_text() == "import lib\n"
    assert RULES.look(folder)[0] == known.digest
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "lib", folder / "main.py")} == {0o755}


def test_a_snapshot_that_goes_meanwhile_is_not_missed(
    control: Path, plugin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = control.parent / "sources"
    first = resolve(sources, plugin_folder).digest.removeprefix("sha256:")
    (plugin_folder / "main.py").write_text("later\n")
    second = resolve(sources, plugin_folder).digest.removeprefix("sha256:")
    copied: list[int] = []

    def copy(source: Path, target: Path) -> None:
        real(source, target)
        copied.append(1)
        if len(copied) == 1:
            shutil.rmtree(sources / first)

    real = copied_by("_copy_database", copy, monkeypatch)
    assert write_backup(control, sources, tmp_path / "b", RULES) == Kept(1, 1)
    assert len(copied) == 2, "the database is of a moment at which all its sources were there"
    with tarfile.open(tmp_path / "b") as archive:
        assert {name.split("/")[1] for name in archive.getnames() if "/" in name} == {second}


def copied_by(
    name: str, instead: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    real: Callable[..., None] = getattr(backup, name)
    monkeypatch.setattr(backup, name, instead)
    return real


def test_a_damaged_snapshot_is_left_out_and_named(control: Path, plugin_folder: Path, tmp_path: Path) -> None:
    sources = control.parent / "sources"
    name = resolve(sources, plugin_folder).digest.removeprefix("sha256:")
    (sources / name / "main.py").write_text("changed\n")
    assert write_backup(control, sources, tmp_path / "b", RULES) == Kept(1, 0, (name,))


def test_a_database_alone_is_a_backup_too(control: Path, tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(control / "control.db")) as link,
        closing(sqlite3.connect(tmp_path / "b")) as to,
    ):
        link.backup(to)
    found = unpack(tmp_path / "b", tmp_path, RULES)
    assert (found.database, found.kept) == (tmp_path / "b", Kept(1, 0))
    place_sources(found, tmp_path / "sources")
    with pytest.raises(NotFound, match="no such file"):
        unpack(tmp_path / "none", tmp_path, RULES)


@pytest.fixture
def backbone(control: Path) -> Path:
    """An authority, who this machine is, whom it invited; and what the server keeps."""
    folder = control.parent / "backbone"
    (folder / "server/jetstream").mkdir(parents=True)
    authority_in(folder, utc_now())
    (folder / "own.json").write_text('{"token": "t"}')
    Machines(folder).put(Machine("beta", "b", ("here",), "2027-01-01T00:00:00Z"))
    (folder / "server/jetstream/events").write_text("many")
    return folder


def test_the_authority_of_the_backbone_goes_along_and_what_was_there_stays_beside_it(
    control: Path, backbone: Path, tmp_path: Path
) -> None:
    names = ("ca.crt", "ca.key", "own.json", "machines.json")
    assert write_backup(control, tmp_path / "none", tmp_path / "b", RULES, Rooms(PAPERS)).papers == names
    with tarfile.open(tmp_path / "b") as archive:
        wanted = ["backup.json", "control.db", *(f"backbone/{name}" for name in names)]
        assert archive.getnames() == wanted
    before = {name: (backbone / name).read_text() for name in names}
    other = tmp_path / "other"
    other.mkdir()
    mine = authority_in(other, utc_now())
    (tmp_path / "draft").mkdir()
    found = unpack(tmp_path / "b", tmp_path / "draft", RULES, Rooms(PAPERS))
    place_papers(found.papers, found.kept.papers, other)
    assert {name: (other / name).read_text() for name in names} == before
    assert {(other / name).stat().st_mode & 0o777 for name in names} == {0o600}
    assert (other / "ca.crt.before-restore").read_text() == mine.certificate
    assert sorted(path.name for path in other.iterdir() if path.name.startswith(".")) == []


def test_an_authority_that_is_damaged_is_not_taken_for_a_whole_one(
    control: Path, backbone: Path, tmp_path: Path
) -> None:
    (tmp_path / "another").mkdir()
    authority_in(tmp_path / "another", utc_now())
    shutil.copy(tmp_path / "another/ca.key", backbone / "ca.key")
    with pytest.raises(InvalidInput, match=r"ca\.key is not the key of ca\.crt"):
        write_backup(control, tmp_path / "none", tmp_path / "b", RULES, Rooms(PAPERS))
    (backbone / "ca.key").unlink()
    with pytest.raises(InvalidInput, match=r"ca\.key: there is no such file"):
        write_backup(control, tmp_path / "none", tmp_path / "b", RULES, Rooms(PAPERS))
    assert not (tmp_path / "b").exists()


PAPERS_AMISS: dict[str, Callable[[dict[str, bytes], list[str]], None]] = {
    "another file of the folder is named": lambda _, named: named.append("server.key"),
    "a path is named": lambda _, named: named.append("../id"),
    "one that is named is missing": lambda files, _: files.pop("backbone/own.json") and None,
    "one is not named": lambda _, named: named.remove("machines.json"),
    "a list is none": lambda files, _: files.update({"backbone/machines.json": b"[]"}),
    "a key is none": lambda files, _: files.update({"backbone/ca.key": b"no key"}),
    "one is too large": lambda files, _: files.update({"backbone/machines.json": b" " * (2 << 20)}),
}


@pytest.mark.parametrize("how", PAPERS_AMISS)
@pytest.mark.usefixtures("backbone")
def test_papers_that_a_backup_never_holds_are_refused(control: Path, tmp_path: Path, how: str) -> None:
    write_backup(control, tmp_path / "none", tmp_path / "b", RULES, Rooms(PAPERS))
    with tarfile.open(tmp_path / "b") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    index = json.loads(files.pop("backup.json"))
    PAPERS_AMISS[how](files, index["papers"])
    path = pack(tmp_path / "bad", [("backup.json", json.dumps(index).encode()), *files.items()])
    (tmp_path / "draft").mkdir()
    with pytest.raises(InvalidInput, match="refused"):
        unpack(path, tmp_path / "draft", RULES, Rooms(PAPERS))


@pytest.fixture
def good(control: Path, plugin_folder: Path, tmp_path: Path) -> Entries:
    """The entries of a good backup: index, database, lib/deep/data, lib/main, main.py."""
    sources = control.parent / "sources"
    resolve(sources, plugin_folder)
    write_backup(control, sources, tmp_path / "good", RULES)
    with tarfile.open(tmp_path / "good") as archive:
        return [
            member if member.issym() else (member.name, archive.extractfile(member).read())  # type: ignore[union-attr]
            for member in archive
        ]


def pack(path: Path, entries: Entries) -> Path:
    with tarfile.open(path, "w:") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                member = tarfile.TarInfo(entry[0])
                member.size, member.mode = len(entry[1]), 0o755 if entry[0].endswith("main.py") else 0o644
                archive.addfile(member, io.BytesIO(entry[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def below(entries: Entries, name: str) -> str:
    snapshot = json.loads(entries[0][1])["sources"][0]  # type: ignore[index]
    return f"sources/{snapshot}/{name}"


HOSTILE: dict[str, Callable[[Entries], Entries]] = {
    "a path that climbs": lambda good: [*good, (below(good, "../../../../outside"), b"x")],
    "a path from the root": lambda good: [*good, ("/tmp/crucible-outside", b"x")],
    "an empty part": lambda good: [*good, (below(good, "a//b"), b"x")],
    "a file below a link that leaves": lambda good: [
        *good,
        special(below(good, "out"), tarfile.SYMTYPE, "/tmp"),
        (below(good, "out/outside"), b"x"),
    ],
    "a link that leaves": lambda good: [*good, special(below(good, "out"), tarfile.SYMTYPE, "../../..")],
    "a hard link": lambda good: [*good, special(below(good, "z"), tarfile.LNKTYPE, "/etc/passwd")],
    "a device": lambda good: [*good, special(below(good, "z"), tarfile.CHRTYPE)],
    "a pipe": lambda good: [*good, special(below(good, "z"), tarfile.FIFOTYPE)],
    "a folder": lambda good: [*good, special(below(good, "z"), tarfile.DIRTYPE)],
    "a file more": lambda good: [*good, (below(good, "z"), b"x")],
    "a file that digests pass over": lambda good: [*good, (below(good, ".git/config"), b"x")],
    "a file less": lambda good: good[:-1],
    "a file twice": lambda good: [*good, good[-1]],
    "another content": lambda good: [*good[:-1], (good[-1][0], b"other")],  # type: ignore[index]
    "another snapshot": lambda good: [*good, (f"sources/{'0' * 64}/main.py", b"x")],
    "a stranger beside the snapshots": lambda good: [*good, ("token", b"x")],
    "a link in the database's place": lambda good: [
        good[0],
        special("control.db", tarfile.SYMTYPE, "/etc/passwd"),
        *good[2:],
    ],
    "no index": lambda good: good[1:],
    "an index of nothing": lambda good: [("backup.json", b"[]"), *good[1:]],
    "another format": lambda good: [("backup.json", b'{"format": 2, "sources": []}'), *good[1:]],
    "a snapshot named so as to climb": lambda good: [
        ("backup.json", b'{"format": 1, "sources": ["../../x"]}'),
        *good[1:],
    ],
}


WHY = {
    "a path that climbs": "is no path inside a snapshot",
    "a path from the root": "is not one of its snapshots",
    "an empty part": "is no path inside a snapshot",
    "a file below a link that leaves": "lies below a file or a link",
    "a link that leaves": "which leaves the source",
    "a hard link": "is not a plain file",
    "a device": "is not a plain file",
    "a pipe": "is not a plain file",
    "a folder": "is not a plain file",
    "a file more": "not what its digest says",
    "a file that digests pass over": "not what its digest says",
    "a file less": "not what its digest says",
    "a file twice": "is in it twice",
    "another content": "not what its digest says",
    "another snapshot": "is not one of its snapshots",
    "a stranger beside the snapshots": "is not one of its snapshots",
    "a link in the database's place": "is not a plain file",
    "no index": "does not begin with",
    "an index of nothing": "cannot be read",
    "another format": "written by another release",
    "a snapshot named so as to climb": "does not name snapshots",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing_elsewhere(
    good: Entries, tmp_path: Path, how: str
) -> None:
    draft = tmp_path / "deep" / "er" / "draft"
    draft.mkdir(parents=True)
    with pytest.raises(InvalidInput, match=WHY[how]):
        unpack(pack(tmp_path / "bad", HOSTILE[how](good)), draft, RULES)
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "er"]
    assert list((tmp_path / "deep" / "er").iterdir()) == [draft]
    assert not [path for path in tmp_path.rglob("outside*") if draft not in path.parents]


def test_a_good_archive_packed_anew_is_taken(good: Entries, tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    assert unpack(pack(tmp_path / "again", good), tmp_path / "draft", RULES).kept.sources == 1


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage_anywhere_is_refused_or_changes_no_source(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    at = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 1023))
    damage = data.draw(st.binary(min_size=1, max_size=16))
    cut = data.draw(st.none() | st.integers(0, len(whole)))
    (folder / "b").write_bytes((whole[:at] + damage + whole[at + len(damage) :])[:cut])
    (folder / "draft").mkdir()
    try:
        found = unpack(folder / "b", folder / "draft", RULES)
    except InvalidInput:
        return
    for snapshot in found.sources.iterdir():
        assert RULES.look(snapshot)[0] == f"sha256:{snapshot.name}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "control").mkdir()
    (folder / "plugin").mkdir()
    (folder / "plugin" / "main.py").write_text("x\n")
    (folder / "plugin" / ("n" * 150)).write_text("a long name has a header of its own\n")
    with closing(sqlite3.connect(folder / "control" / "control.db")) as link:
        link.executescript("CREATE TABLE objects (name TEXT); CREATE TABLE meta (key TEXT, value INTEGER);")
        link.executescript("INSERT INTO objects VALUES ('a'); INSERT INTO meta VALUES ('revision', 7);")
    resolve(folder / "sources", folder / "plugin")
    write_backup(folder / "control", folder / "sources", folder / "b", RULES)
    return (folder / "b").read_bytes()
