"""How much of its scratch space an instance uses: asked of the file systems themselves, held open."""

from __future__ import annotations

import os
from typing import Final

PLACES: Final = ("tmp", "dev/shm")
"""Where it may write, below its root."""


def open_scratch(pid: int) -> tuple[int, ...]:
    """Open the scratch places of a process; none where they may not be looked at.

    The caller makes sure afterwards that the pid was the process' all the time. Whoever holds these keeps the
    file systems from going: close them when the instance ends.
    """
    found: list[int] = []
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found.extend(_open_below(root, place) for place in PLACES)
        finally:
            os.close(root)
    except OSError:
        close_scratch(tuple(found))
        return ()
    return tuple(found)


def close_scratch(opened: tuple[int, ...]) -> None:
    """Let them go."""
    for one in opened:
        os.close(one)


def used(opened: tuple[int, ...]) -> int | None:
    """Return the bytes in use; None where nothing is open."""
    if not opened:
        return None
    found = [os.fstatvfs(one) for one in opened]
    return sum((one.f_blocks - one.f_bfree) * one.f_frsize for one in found)


def _open_below(root: int, place: str) -> int:
    """Open a folder below a root that is a stranger's, without following a link."""
    above = os.dup(root)
    for name in place.split("/"):
        try:
            below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
        above = below
    return above
