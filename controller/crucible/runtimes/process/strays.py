"""Finds what bears this control plane's mark and belongs to no instance that is on record, and ends it.

Whatever the order in which things are written down, folders can be deleted by hand, disks can be put back
from a backup, and a controller can be killed while it probes the host. What is left then has no record:
sandboxes that run on, cgroups, folders. They are known by their marks alone, and a mark is believed only
where a plugin cannot forge it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from signal import SIGKILL
from typing import TYPE_CHECKING, Final

from crucible.runtimes.process import proc
from crucible.runtimes.process.cgroups import base as groups
from crucible.runtimes.process.settings import first_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from crucible.runtimes.process.cgroups import Cgroups
    from crucible.runtimes.process.settings import ProcessSettings

PROBES: Final = "probe-*"
"""Folders of host probes: there is one only while a controller opens."""
_INIT_PID: Final = 1
_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.005


@dataclass(frozen=True, slots=True)
class Marked:
    """A process of a sandbox of ours: its monitor, or the first one inside.

    Attributes:
        pid: on this host.
        mark: the name it bears.
    """

    pid: int
    mark: str


def marked(settings: ProcessSettings, pids: Iterable[int]) -> tuple[Marked, ...]:
    """Return those of some processes that were started as sandboxes of this control plane.

    A plugin gives its processes any name it likes. It cannot put one outside of every sandbox, nor make it
    the first of one, and another user of this host cannot take a user id that only this control plane gives
    out.
    """
    prefix = f"crucible:{settings.control_plane}/".encode()
    found = []
    for pid in pids:
        words = proc.arguments(pid)
        if not words or not words[0].startswith(prefix) or proc.started(pid) is None:
            continue
        namespaces = proc.pids_by_namespace(pid)
        first = len(namespaces) == 1 or namespaces[-1:] == (_INIT_PID,)
        if first and _is_given_out(settings, proc.owner(pid)):
            found.append(Marked(pid, words[0].decode(errors="replace")))
    return tuple(found)


def _is_given_out(settings: ProcessSettings, uid: int | None) -> bool:
    """Tell whether a user id is one that sandboxes of this control plane run as."""
    if os.geteuid() != 0:
        return uid == os.geteuid()
    base = first_uid(settings)
    return uid is not None and (
        base <= uid < base + settings.uid_count or uid == settings.uid_base + settings.uid_count
    )


async def end_processes(settings: ProcessSettings, known: Callable[[], Collection[str]]) -> tuple[str, ...]:
    """Kill every sandbox of this control plane whose mark is not known; return what was ended, in words.

    Args:
        settings: whose sandboxes.
        known: asked after the search, so that what started meanwhile is among its answer.
    """
    found = await asyncio.to_thread(lambda: marked(settings, proc.all_pids()))
    wanted = known()
    strays = [one for one in found if one.mark not in wanted and _strike(settings, one)]
    return tuple(f"process {one.pid} of {one.mark}" for one in strays)


def _strike(settings: ProcessSettings, one: Marked) -> bool:
    held = proc.hold(one.pid)
    if held is None:
        return False
    try:
        # Looked at again while held: the number could have gone to another process in between.
        if one not in marked(settings, (one.pid,)):
            return False
        proc.tell(held, SIGKILL)
    finally:
        os.close(held)
    return True


async def remove_groups(cgroups: Cgroups, known: Collection[Path]) -> tuple[str, ...]:
    """Empty and delete every cgroup of this control plane that is none of these; return what was deleted."""
    places = [directory.parent for directory in cgroups.directories("any")]
    found = [
        entry
        for place in places
        if place.is_dir()
        for entry in place.iterdir()
        if entry.is_dir() and entry not in known
    ]
    return tuple([f"cgroup {entry}" for entry in found if await _remove(entry)])


async def _remove(group: Path) -> bool:
    deadline = time.monotonic() + _END_SECONDS
    while not groups.remove((group,)):
        if time.monotonic() > deadline:
            return False
        groups.kill((group,))
        await asyncio.sleep(_LOOK_SECONDS)
    return True


def remove_probes(state_dir: Path) -> None:
    """Delete what an earlier controller left that was killed while it probed this host."""
    for folder in state_dir.glob(PROBES):
        shutil.rmtree(folder, ignore_errors=True)


def remove_empty(instances: Path) -> None:
    """Delete the folders of plugins that hold no instance."""
    for folder in tuple(instances.iterdir()):
        with contextlib.suppress(OSError):
            folder.rmdir()
