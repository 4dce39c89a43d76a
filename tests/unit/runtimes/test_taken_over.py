"""What holds although a plugin took over the first process of its sandbox, which is its own user's."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from crucible.model.workload import Slot
from crucible.runtimes.process import ProcessSettings, host, proc
from crucible.runtimes.process.live import Live
from crucible.runtimes.process.record import Record, decode, encode
from crucible.runtimes.process.settings import first_uid


def record(init: proc.Identity | None) -> Record:
    return Record(
        control_plane="test",
        namespace="default",
        plugin="p",
        plugin_uid="uid-p",
        slot=Slot(0, 1),
        revision="r",
        uid=None,
        cgroups=(),
        bwrap=(1, 2),
        root="python",
        created_at=1.0,
        monitor=proc.Identity(1, 1, proc.boot_id()),
        init=init,
    )


def test_the_first_process_is_on_record() -> None:
    written = record(proc.Identity(7, 8, "boot"))
    assert decode(encode(written)) == written


async def test_a_first_process_that_looks_like_another_is_killed_all_the_same(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    began = proc.started(process.pid)
    assert began is not None
    live = Live(record(proc.Identity(process.pid, began, proc.boot_id())), tmp_path)
    try:
        assert live.remaining() == {process.pid}
        await asyncio.gather(live.destroy(), asyncio.to_thread(process.wait))
        assert process.returncode == -9
    finally:
        process.kill()
        process.wait()


async def test_a_pid_that_belongs_to_another_by_now_is_left_alone(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    began = proc.started(process.pid)
    assert began is not None
    try:
        live = Live(record(proc.Identity(process.pid, began - 1, proc.boot_id())), tmp_path)
        await live.destroy()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_bubblewrap_that_the_plugins_user_owns_is_executed_from_a_sealed_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bwrap"
    program.write_bytes(b"\x7fELF program")
    owner = 4321 if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() == 0:
        os.chown(program, owner, owner)
    monkeypatch.setattr(host.os, "geteuid", lambda: owner)
    opened = host.open_program(program)
    try:
        assert str(Path(f"/proc/self/fd/{opened}").readlink()).startswith("/memfd:")
        assert os.pread(opened, 99, 0) == b"\x7fELF program"
        with pytest.raises(PermissionError):
            Path(f"/proc/self/fd/{opened}").write_bytes(b"owned")
    finally:
        os.close(opened)


def test_a_bubblewrap_of_root_is_executed_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bwrap"
    program.write_bytes(b"program")
    monkeypatch.setattr(host.os, "geteuid", lambda: 0)
    opened = host.open_program(program)
    try:
        assert Path(f"/proc/self/fd/{opened}").readlink() == program
    finally:
        os.close(opened)


def test_two_control_planes_of_one_host_give_out_different_ids() -> None:
    names = [f"plane{number}" for number in range(50)]
    firsts = {first_uid(ProcessSettings(state_dir=Path("/x"), control_plane=name)) for name in names}
    assert len(firsts) == len(names)
    count = ProcessSettings(state_dir=Path("/x"), control_plane="x").uid_count
    assert all(first >= 1_900_000_000 and first + count < 2**31 for first in firsts)
