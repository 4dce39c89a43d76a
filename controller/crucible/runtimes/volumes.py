"""Finds the folders of volumes when an instance starts, whatever was put in their place meanwhile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from crucible.model.volume import HostVolume, Mount


@dataclass(frozen=True, slots=True)
class Shown:
    """A volume that an instance is about to see.

    Attributes:
        path: the folder on this host.
        place: where it is seen.
        writable: it may be written to.
        group: the folder's group, of which the plugin is made a member; None where that is root's.
    """

    path: Path
    place: str
    writable: bool
    group: int | None


def find_volumes(mounts: Iterable[Mount], offered: Iterable[HostVolume]) -> tuple[Shown, ...]:
    """Return where the volumes of a workload are.

    Raises:
        Unavailable: a folder is gone, or something else is in its place.
    """
    known = {volume.name: volume for volume in offered}
    found = []
    for mount in mounts:
        volume = known.get(mount.volume)
        if volume is None or (mount.writable and not volume.writable):
            raise Unavailable(f"volume {mount.volume} is not offered any more, or not for writing")
        opened = open_folder(volume.path)
        try:
            group = os.fstat(opened).st_gid
        finally:
            os.close(opened)
        found.append(Shown(volume.path, mount.place, mount.writable, group or None))
    return tuple(found)


def open_folder(path: Path) -> int:
    """Open a folder by an absolute path of which no part is a link.

    Raises:
        Unavailable: it is gone, or a part of the path is a link or no folder.
    """
    opened = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in path.parts[1:]:
        above = opened
        try:
            opened = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except OSError as error:
            raise Unavailable(
                f"{path}: {name} is not the folder it was when it was made a volume ({error.strerror}): "
                "put it back, or start the controller with another --volume"
            ) from error
        finally:
            os.close(above)
    return opened


def groups_of(shown: Iterable[Shown]) -> tuple[int, ...]:
    """Return the groups that a plugin is made a member of."""
    return tuple(sorted({each.group for each in shown if each.group is not None}))
