"""Files that containers are shown and that lie nowhere on disk: what is in Secrets."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from crucible.model.workload import Slot

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_PRIVATE, _READ_ONLY, _OPEN = 0o700, 0o400, 0o444


class Memory:
    """A private folder in a memory file system of this host, with a folder in it for each instance.

    Whoever has the engine can look into any container; nobody else gets past the private folder. Only root
    can give files to a container's user: an ordinary user's are open to all, behind a folder that is not.

    Attributes:
        problem: why nothing can be kept in memory here, and the fix; empty where it can.
    """

    def __init__(self, base: Path, control_plane: str) -> None:
        """Keep files below ``base``; makes nothing yet."""
        self._top = base / f"crucible-{control_plane}"
        kind = file_system_of(base, Path("/proc/self/mountinfo").read_text())
        self.problem = (
            "" if kind in _IN_MEMORY else f"{base} is no file system in memory here; mount a tmpfs there"
        )

    def write(self, plugin_uid: str, slot: Slot, uid: int, files: Mapping[str, bytes]) -> Path:
        """Write an instance's files, for its user alone, and return the folder.

        Raises:
            Unavailable: nothing can be kept in memory here, or what is there is not ours.
            OSError: there is no room.
        """
        if self.problem:
            raise Unavailable(self.problem)
        self._make_top()
        folder = self._top / plugin_uid / str(slot)
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was never confirmed
        folder.mkdir(parents=True)
        owner = uid if os.geteuid() == 0 else None
        for path, content in files.items():
            file = folder / path
            file.parent.mkdir(exist_ok=True)
            file.touch(mode=0o600)
            file.write_bytes(content)
            _give(file, owner, _READ_ONLY if owner is not None else _OPEN)
        for place in (*folder.iterdir(), folder):
            _give(place, owner, 0o500 if owner is not None else 0o555)
        return folder

    def discard(self, plugin_uid: str, slot: Slot) -> None:
        """Delete an instance's files, and with the last all there is."""
        if not self._is_ours():
            return
        _delete(self._top / plugin_uid / str(slot))
        for folder in (self._top / plugin_uid, self._top):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def sweep(self, kept: Collection[tuple[str, str]]) -> None:
        """Delete the files of all instances but these: plugin uid and slot."""
        if not self._is_ours():
            return
        for plugin in self._top.iterdir():
            for folder in plugin.iterdir():
                if (plugin.name, folder.name) not in kept:
                    _delete(folder)
            with contextlib.suppress(OSError):
                plugin.rmdir()
        with contextlib.suppress(OSError):
            self._top.rmdir()

    def _make_top(self) -> None:
        """Make the private folder."""
        with contextlib.suppress(FileExistsError):
            self._top.mkdir(mode=_PRIVATE)
        if not self._is_ours():
            raise Unavailable(f"{self._top} is not a private folder of this controller's: remove it")

    def _is_ours(self) -> bool:
        """Whether the private folder is there and no other's: everyone may make something of its name."""
        try:
            found = self._top.lstat()
        except FileNotFoundError:
            return False
        private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == _PRIVATE
        return private and found.st_uid == os.geteuid()


def file_system_of(path: Path, mounts: str) -> str:
    """Return what kind of file system a path is on, from the text of ``mountinfo``; empty for none known."""
    found, longest = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        place = Path(before.split()[4])
        if path.is_relative_to(place) and len(place.parts) >= longest:
            found, longest = after.split()[0], len(place.parts)
    return found


def _give(path: Path, owner: int | None, mode: int) -> None:
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner, owner)


def _delete(folder: Path) -> None:
    """Delete a folder though it is read-only, which keeps an ordinary user from emptying it."""
    if folder.is_dir():
        for place in (folder, *folder.iterdir()):
            with contextlib.suppress(OSError):
                place.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
