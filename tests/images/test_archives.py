"""The image archives: well formed, open to any user, and nothing in them to climb on."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from imagelib import archive, make, recipes, sbom

from crucible import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from imagelib.make import Made

SHELLS = {"sh", "bash", "dash", "ash", "busybox", "perl", "su", "mount", "apt-get", "dpkg"}
POINTS = ("config", "dev", "plugin", "proc", "sys", "tmp")
LARGEST = {"python": 55, "javascript": 120, "wasm": 80, "binary": 8, "rune": 8}
"""MiB of files that an image may hold."""
EVERY_TYPE = pytest.mark.parametrize("type_", recipes.TYPES)


class Opened:
    """An archive's configuration and the members of its one layer."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as outer:
            self.files = {member.name: member for member in outer}
            (self.manifest,) = json.loads(read(outer, "manifest.json"))
            self.config: dict[str, Any] = json.loads(read(outer, self.manifest["Config"]))
            self.config_digest = hashlib.sha256(read(outer, self.manifest["Config"])).hexdigest()
            (layer,) = self.manifest["Layers"]
            content = read(outer, layer)
        self.layer_digest = hashlib.sha256(content).hexdigest()
        self.layer = tarfile.open(fileobj=io.BytesIO(content))  # noqa: SIM115 - read by every test
        self.members = {member.name: member for member in self.layer}

    def text(self, name: str) -> str:
        return read(self.layer, name).decode()

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.config["config"]["Labels"]
        return found


def read(file: tarfile.TarFile, name: str) -> bytes:
    opened = file.extractfile(name)
    assert opened is not None
    return opened.read()


@pytest.fixture(scope="session")
def opened(images: Mapping[str, Made]) -> Mapping[str, Opened]:
    return {type_: Opened(made.path) for type_, made in images.items()}


@EVERY_TYPE
def test_digests_and_names_are_right(
    images: Mapping[str, Made], opened: Mapping[str, Opened], type_: str
) -> None:
    found = opened[type_]
    assert found.manifest["RepoTags"] == [f"crucible/{type_}:{__version__}"] == [images[type_].name]
    assert f"sha256:{found.config_digest}" == images[type_].identity
    assert found.config["rootfs"]["diff_ids"] == [f"sha256:{found.layer_digest}"]
    assert found.config["os"] == "linux"


@EVERY_TYPE
def test_the_labels_say_how_a_plugin_is_run(opened: Mapping[str, Opened], type_: str) -> None:
    labels, config = opened[type_].labels, opened[type_].config["config"]
    before = json.loads(labels["dev.crucible.entrypoint"])
    assert labels["dev.crucible.type"] == type_
    assert json.loads(labels["dev.crucible.env"]) == {}
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.title"] == f"crucible/{type_}"
    assert (config["Entrypoint"] or []) == before
    assert config["User"] == "1000:1000"
    if before:
        assert opened[type_].members[before[0].lstrip("/")].mode == 0o755


@EVERY_TYPE
def test_the_image_lists_what_it_is_made_of(opened: Mapping[str, Opened], type_: str) -> None:
    document = json.loads(opened[type_].text(sbom.PLACE))
    assert document["spdxVersion"] == "SPDX-2.3"
    image, *parts = document["packages"]
    contained = {one["relatedSpdxElement"] for one in document["relationships"][1:]}
    assert image["name"] == f"crucible/{type_}"
    assert contained == {part["SPDXID"] for part in parts}
    assert len(contained) == len(parts) > 0
    for part in parts:
        (checksum,) = part["checksums"]
        assert (checksum["algorithm"], len(checksum["checksumValue"])) == ("SHA256", 64)
        assert part["versionInfo"]
        assert part["externalRefs"][0]["referenceLocator"].startswith("pkg:")


@EVERY_TYPE
def test_it_is_small(opened: Mapping[str, Opened], type_: str) -> None:
    held = sum(member.size for member in opened[type_].members.values())
    assert held <= LARGEST[type_] * 2**20


@EVERY_TYPE
def test_everything_can_be_read_by_any_user_and_changed_by_none(
    opened: Mapping[str, Opened], type_: str
) -> None:
    for name, member in opened[type_].members.items():
        assert (member.uid, member.gid, member.mtime) == (0, 0, 0), name
        assert not member.ischr(), name
        assert not member.isblk(), name
        if member.issym():
            continue
        assert member.mode == {True: 0o755, False: member.mode & 0o755 | 0o444}[member.isdir()] or (
            name == "tmp" and member.mode == 0o1777
        ), name
        assert not member.mode & 0o6000, name


@EVERY_TYPE
def test_the_layout_is_that_of_a_sandbox(opened: Mapping[str, Opened], type_: str) -> None:
    assert all(opened[type_].members[name].isdir() for name in POINTS)
    assert "plugin:x:1000:1000:" in opened[type_].text("etc/passwd")
    assert "plugin:x:1000:" in opened[type_].text("etc/group")


@EVERY_TYPE
def test_there_is_no_shell_and_no_tool(opened: Mapping[str, Opened], type_: str) -> None:
    programs = {
        name
        for name, member in opened[type_].members.items()
        if member.isfile() and member.mode & 0o100 and "/bin/" in f"/{name}"
    }
    assert {name.rpartition("/")[2] for name in programs}.isdisjoint(SHELLS)
    assert len(programs) == (0 if type_ == "binary" else 1), programs


def test_python_has_a_name_without_its_release(opened: Mapping[str, Opened]) -> None:
    link = opened["python"].members["usr/bin/python3"]
    assert link.issym()
    assert opened["python"].members[f"usr/bin/{link.linkname}"].isfile()


def test_what_speaks_tls_by_pythons_library_has_it(opened: Mapping[str, Opened]) -> None:
    for type_ in ("python", "wasm"):
        names = {name.rpartition("/")[2].partition(".")[0] for name in opened[type_].members}
        assert {"_ssl", "libssl", "libcrypto"} <= names, type_


def test_the_rune_image_is_one_program(opened: Mapping[str, Opened]) -> None:
    files = {name for name, member in opened["rune"].members.items() if member.isfile()}
    assert files == {
        *("etc/group", "etc/nsswitch.conf", "etc/passwd"),
        "usr/bin/crucible-rune",
        sbom.PLACE,
    }


def test_python_is_byte_compiled(opened: Mapping[str, Opened]) -> None:
    for type_ in ("python", "wasm"):
        names = opened[type_].members
        sources = [name for name in names if name.endswith(".py")]
        compiled = [name for name in names if name.endswith(".pyc")]
        assert len(sources) > 100
        assert len(compiled) > len(sources) * 0.95


def test_an_image_whose_inputs_did_not_change_is_left_alone(images: Mapping[str, Made]) -> None:
    before = {type_: made.path.stat().st_mtime_ns for type_, made in images.items()}
    said: list[str] = []
    again = make.images(tuple(images), said.append)
    assert {one.type: one.identity for one in again} == {one.type: one.identity for one in images.values()}
    assert {one.type: one.path.stat().st_mtime_ns for one in again} == before
    assert all(line.endswith("unchanged") for line in said), said


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    image = archive.Image("crucible/x:1", ("/bin/x",), (), {"one": "1"})
    digests = set()
    for name, order in (("a", ("x", "y")), ("b", ("y", "x"))):
        root = tmp_path / name
        (root / "bin").mkdir(parents=True)
        for file in order:
            (root / "bin" / file).write_text(file)
            (root / "bin" / file).chmod(0o6750 if file == "x" else 0o600)
        archive.write(image, root, tmp_path / f"{name}.tar")
        digests.add(hashlib.sha256((tmp_path / f"{name}.tar").read_bytes()).hexdigest())
    assert len(digests) == 1
    members = Opened(tmp_path / "a.tar").members
    assert {name: oct(member.mode) for name, member in members.items()} == {
        "bin": "0o755",
        "bin/x": "0o755",
        "bin/y": "0o644",
    }
