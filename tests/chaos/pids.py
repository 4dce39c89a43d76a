"""A cgroup in which nothing more can be forked, and processes put into it for a while."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from places import pause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ordeal import Step


async def spent_pids(pids: Sequence[int], name: str, step: Step) -> None:
    """Put processes into a cgroup in which nothing more can be forked, and back to where the first was."""
    top = _pids_hierarchy()
    if top is None:
        return
    group = top / f"chaos-{os.getpid()}-{name}"
    home = _cgroup_of(pids[0], top)
    group.mkdir(exist_ok=True)
    try:
        for each in pids:
            with suppress(OSError):
                (group / "cgroup.procs").write_text(str(each))
        (group / "pids.max").write_text("1")
        await pause(step.lasts)
    finally:
        (group / "pids.max").write_text("max")
        await _empty(group, home)


def _pids_hierarchy() -> Path | None:
    for top in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        if (top / "cgroup.procs").exists() and (top / "pids").is_dir() is False and _offers_pids(top):
            return top
    return None


def _offers_pids(top: Path) -> bool:
    return top.name == "pids" or "pids" in (top / "cgroup.controllers").read_text().split()


def _cgroup_of(pid: int, top: Path) -> Path:
    """Return the group of a process in the hierarchy at ``top``."""
    wanted = "pids" if top.name == "pids" else ""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if wanted in controllers.split(","):
            return top / path.lstrip("/")
    return top


async def _empty(group: Path, home: Path) -> None:
    """Move what is in a group back to where it was, and delete it."""
    for _ in range(500):
        for line in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (home / "cgroup.procs").write_text(line)
        with suppress(OSError):
            group.rmdir()
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{group} stays busy")
