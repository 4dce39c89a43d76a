"""A chaos run that fails or is interrupted leaves nothing of what it made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clearing import cgroups, processes
from desired import LOOPER, Desired
from lifetime import Life, live
from machine import BODY, Machine
from plane import until

if TYPE_CHECKING:
    import pytest
    from ordeal import Step

RUN = Path(__file__).with_name("run.py")


def left(mark: str, place: Path) -> list[object]:
    """Return what there still is of a control plane whose state lies in a folder."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {place}/" in line]
    memory = Path(f"/dev/shm/crucible-{mark}")
    return [*processes(mark), *cgroups(mark), *mounts, *([memory] if memory.exists() else [])]


async def test_a_run_that_fails_is_cleared_away(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One whose plugins live on, one of them held still, on a disk that is full."""
    place = Machine(tmp_path, tmp_path_factory.mktemp("roots"))
    place.desired = Desired(place.plane.client, BODY, freezes=os.geteuid() == 0)
    marked: list[str] = []

    async def ruin(step: Step) -> None:
        await place.desired.change(replace(step, what="freeze"))
        waits = {one.phase for name, one in place.desired.wanted.items() if name != LOOPER}

        async def settled() -> bool:
            phases = {(plugin.get("status") or {}).get("phase") for plugin in await place.desired.plugins()}
            return waits <= phases

        await until(settled)
        place.disk.fill()
        marked.append(place.plane.mark())
        assert processes(marked[0])
        raise OSError("as if the suite itself were broken")

    place.faults = {"ruin": ruin}
    (result,) = await live(place, Life("process", 7, range(1)))
    assert any("as if the suite itself" in line for line in result.lost), result.lost
    assert left(marked[0], tmp_path) == []


async def test_a_run_that_is_interrupted_is_cleared_away(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            str(RUN),
            "--runs",
            "5",
            "--on",
            "process",
            "--out",
            str(tmp_path / "out/chaos.json"),
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        await until(lambda: [mark for mark in marks(tmp_path) if len(processes(mark)) > 8])
        (mark,) = marks(tmp_path)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT, said
    assert left(mark, tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def marks(place: Path) -> list[str]:
    """Return the ids of control planes of runs in a folder."""
    return [path.read_text() for path in place.glob("crucible-chaos-*/life*/disk/state/id")]
