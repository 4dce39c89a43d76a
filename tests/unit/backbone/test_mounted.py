"""Files of one Secret that are put in the place of others while they are read are all of one moment."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from crucible.backbone import mounted
from crucible.backbone.authority import authority_in, utc_now
from crucible.backbone.mounted import AUTHORITY, CERTIFICATE, KEY, papers_in
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write(folder: Path, papers: Path) -> None:
    """Write what another authority vouches for; each call makes one."""
    folder.mkdir(parents=True, exist_ok=True)
    papers.mkdir(parents=True, exist_ok=True)
    authority = authority_in(papers, utc_now())
    issued = authority.machine("crucible-broker", utc_now())
    for name, text in (
        (AUTHORITY, authority.certificate),
        (CERTIFICATE, issued.certificate),
        (KEY, issued.key),
    ):
        (folder / name).write_text(text)


class Mount:
    """A Secret as a kubelet mounts it: links to a folder that takes another's place at once."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "mount"
        self._place = place
        self._number = 0
        self.rotate()
        for name in (AUTHORITY, CERTIFICATE, KEY):
            (self.folder / name).symlink_to(f"..data/{name}")

    def rotate(self, *, remove: bool = True) -> None:
        old = self.folder / f"..{self._number}"
        self._number += 1
        new = f"..{self._number}"
        write(self.folder / new, self._place / f"authority-{self._number}")
        (self.folder / "..data_tmp").symlink_to(new)
        (self.folder / "..data_tmp").replace(self.folder / "..data")
        if remove and old.exists():
            shutil.rmtree(old)

    def newest(self) -> str:
        return (self._place / f"authority-{self._number}" / "ca.crt").read_text()


def after_the_first_file(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None], times: int = 1) -> None:
    """Do something each time the first of the files has been read."""
    honest, left = mounted._text, [times]

    def read(path: Path, *more: Any) -> str:
        found = honest(path, *more)
        if path.name == AUTHORITY and left[0] > 0:
            left[0] -= 1
            then()
        return found

    monkeypatch.setattr(mounted, "_text", read)


@pytest.mark.parametrize("remove", [False, True])
def test_a_secret_that_takes_anothers_place_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, remove: bool
) -> None:
    mount = Mount(tmp_path)
    before = mount.newest()
    after_the_first_file(monkeypatch, lambda: mount.rotate(remove=remove))
    papers = papers_in(mount.folder)
    assert papers.shown.fits()
    assert papers.authority == (mount.newest() if remove else before)
    assert papers_in(mount.folder).authority == mount.newest()


def test_files_that_change_one_by_one_count_once_they_are_read_again_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    write(folder, tmp_path / "one")
    after_the_first_file(monkeypatch, lambda: write(folder, tmp_path / "two"))
    assert papers_in(folder).authority == (tmp_path / "two" / "ca.crt").read_text()


def test_files_that_never_rest_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, count = tmp_path / "folder", iter(range(100))
    write(folder, tmp_path / "first")
    after_the_first_file(monkeypatch, lambda: write(folder, tmp_path / f"{next(count)}"), times=100)
    with pytest.raises(InvalidInput, match="change faster than they can be read"):
        papers_in(folder)


def test_what_is_missing_is_named_wherever_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="none: No such file or directory: mount the Secret"):
        papers_in(tmp_path / "none")
    mount = Mount(tmp_path)
    (mount.folder / "..data" / KEY).unlink()
    with pytest.raises(InvalidInput, match=r"mount/tls.key: No such file or directory: mount the Secret"):
        papers_in(mount.folder)
