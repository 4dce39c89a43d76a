from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from crucible.cli.volumes import claim_volumes, host_volumes
from crucible.errors import InvalidInput
from crucible.model.volume import ClaimVolume, HostVolume

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    found = tmp_path.resolve() / "notes"
    found.mkdir()
    found.chmod(0o777)
    return found


def test_a_folder_is_offered_by_its_real_path(notes: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(notes)
    state = tmp_path / "state"
    assert host_volumes([f"notes={notes}:ro"], state) == (HostVolume("notes", notes, writable=False),)
    assert host_volumes([f"notes={link}"], state) == (HostVolume("notes", notes, writable=True),)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("notes", "begin with a name"),
        ("No=/srv", "begin with a name"),
        ("notes=srv", "is no folder here"),
        ("notes=/nowhere/at/all", "is no folder here"),
        ("notes=/:ro", "is the whole machine"),
        ("notes=/proc:ro", "no plugin may see"),
        ("notes=/etc:ro", "no plugin may see|would show"),
        ("notes=/srv:rw", "write NAME=DIR, or NAME=DIR:ro"),
    ],
)
def test_what_cannot_be_offered_is_refused_with_the_fix(word: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=says):
        host_volumes([word], tmp_path / "state")


def test_nothing_of_the_controllers_own_is_offered(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="would show"):
        host_volumes([f"notes={notes}"], notes / "state")
    with pytest.raises(InvalidInput, match="no plugin may see"):
        host_volumes([f"notes={notes}"], notes.parent)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{notes}/docker.sock")
    with pytest.raises(InvalidInput, match=r"docker\.sock"):
        host_volumes([f"notes={notes}"], notes.parent / "state")


def test_a_name_is_given_once_and_folders_lie_apart(notes: Path, tmp_path: Path) -> None:
    (notes / "inner").mkdir(mode=0o777)
    with pytest.raises(InvalidInput, match="given twice"):
        host_volumes([f"a={notes}:ro", f"a={notes}:ro"], tmp_path / "state")
    with pytest.raises(InvalidInput, match="overlaps with"):
        host_volumes([f"a={notes}:ro", f"b={notes}/inner:ro"], tmp_path / "state")


def test_a_folder_that_no_plugin_could_write_to_says_how_it_can(notes: Path, tmp_path: Path) -> None:
    notes.chmod(0o500)
    if os.geteuid() == 0:
        os.chown(notes, 0, 0)
    with pytest.raises(InvalidInput, match="chgrp GROUP"):
        host_volumes([f"notes={notes}"], tmp_path / "state")
    assert host_volumes([f"notes={notes}:ro"], tmp_path / "state")


def test_a_claim_is_offered_by_its_name() -> None:
    assert claim_volumes(["a=one", "b=two:ro", "c=three:2000"]) == (
        ClaimVolume("a", "one", writable=True),
        ClaimVolume("b", "two", writable=False),
        ClaimVolume("c", "three", writable=True, group=2000),
    )


@pytest.mark.parametrize("word", ["a", "a=", "a=b:0", "a=b:x", "a=/srv", "a=b:ro:2000", "A=b", "a=b:-1"])
def test_a_claim_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match="--volume"):
        claim_volumes([word])
