"""Whatever bears our mark and is on no record goes; whatever is known, or another's, stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from harness import FIRST, exists, wait_for
from onlooker import cmdline, processes

from crucible.errors import Unavailable
from crucible.model.instance import State
from crucible.runtimes.process import strays
from crucible.runtimes.process import watch as watching

if TYPE_CHECKING:
    from pathlib import Path

    from harness import ProcessHarness

    from crucible.model.workload import Workload

NAMED = "import ctypes, sys; print('named', flush=True); import signal; signal.pause()"


async def running(process: ProcessHarness, name: str = "p") -> tuple[Workload, int]:
    workload = process.workload("stay", name=name)
    await process.runtime.start(workload, FIRST)
    found = await process.until(workload, lambda one: one.state is State.RUNNING and one.pid is not None)
    assert found.pid is not None
    return workload, found.pid


def folder(process: ProcessHarness, workload: Workload) -> Path:
    return process.state / "instances" / workload.plugin_uid / str(FIRST)


async def test_a_sandbox_whose_record_was_deleted_is_ended_with_its_cgroup(process: ProcessHarness) -> None:
    gone, pid = await running(process, "gone")
    kept, other = await running(process, "kept")
    await process.runtime.close()
    shutil.rmtree(folder(process, gone).parent)
    await process.open()
    assert exists(pid)
    told = await process.runtime.sweep()
    assert any("uid-gone/0-1" in line for line in told)
    assert not any("uid-kept" in line for line in told)
    await wait_for(lambda: not exists(pid))
    assert process.instance(kept).alive
    assert exists(other)
    await process.runtime.remove(kept.plugin_uid, FIRST)
    assert process.leftovers() == []


async def test_a_sweep_finds_nothing_where_all_is_known(process: ProcessHarness) -> None:
    workload, pid = await running(process)
    assert await process.runtime.sweep() == ()
    session = await process.runtime.exec(
        workload.plugin_uid, FIRST, process.command("sleep"), stdin=False, tty=False
    )
    assert await process.runtime.sweep() == ()
    await session.close()
    assert exists(pid)


async def test_starts_under_way_are_known_to_a_sweep(process: ProcessHarness) -> None:
    workloads = [process.workload("stay", name=f"p{number}") for number in range(6)]
    starts = [asyncio.create_task(process.runtime.start(workload, FIRST)) for workload in workloads]
    while not all(start.done() for start in starts):
        assert await process.runtime.sweep() == ()
        await asyncio.sleep(0)
    for workload in workloads:
        await process.until(workload, lambda one: one.state is State.RUNNING)


async def test_empty_groups_and_halves_of_probes_go(process: ProcessHarness) -> None:
    host = process.runtime._open_state().host  # type: ignore[attr-defined]
    if host.cgroups is None:
        pytest.skip("no cgroups here: run as root or with a delegated one")
    planted = host.cgroups.directories("probe-1_0-1")
    for group in planted:
        group.mkdir(parents=True)
    (process.state / "probe-half/0-1").mkdir(parents=True)
    (process.state / "instances/uid-empty").mkdir()
    told = await process.runtime.sweep()
    assert sorted(told) == sorted(f"cgroup {group}" for group in planted)
    await process.reopen()
    assert not list(process.state.glob("probe-*"))
    assert process.leftovers() == []


async def test_another_control_planes_sandboxes_stay(process: ProcessHarness) -> None:
    other = await process.stranger()
    workload = process.workload("stay", name="theirs")
    await other.start(workload, FIRST)
    assert await process.runtime.sweep() == ()
    assert all(one.alive for one in other.instances())


async def test_a_name_alone_proves_nothing(process: ProcessHarness) -> None:
    """A process that calls itself ours, of a user who runs no sandboxes of ours, is left alone."""
    mark = f"crucible:{process.control_plane}/uid-forged/0-1"
    forged = await asyncio.create_subprocess_exec(mark, "-c", NAMED, executable=sys.executable, stdout=-1)
    assert forged.stdout is not None
    await forged.stdout.readline()
    found = strays.marked(process.settings(), (forged.pid,))
    try:
        if os.geteuid() == 0:
            assert found == ()
            assert await process.runtime.sweep() == ()
            assert exists(forged.pid)
        else:
            assert [one.mark for one in found] == [
                mark
            ]  # as an ordinary user the mark is the user's own word
    finally:
        forged.kill()
        await forged.wait()


async def test_a_plugin_cannot_have_its_own_processes_taken_for_strays(process: ProcessHarness) -> None:
    program = """\
import os, sys
if os.fork() == 0:
    mark = "crucible:MINE/uid-other/0-1"
    os.execv(sys.executable, [mark, "-c", "import signal; print('forged', flush=True); signal.pause()"])
import signal; signal.pause()
""".replace("MINE", process.control_plane)
    workload = process.script(program)
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"forged")
    assert await process.runtime.sweep() == ()
    assert process.instance(workload).alive
    assert [pid for pid in processes() if b"/uid-other/0-1" in cmdline(pid)]


async def test_what_could_not_be_adopted_is_ended_and_told_at_the_next_sweep(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, pid = await running(process)
    await process.runtime.close()
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise PermissionError(1, "not permitted")

        patched.setattr(watching.Watch, "listen", fail)
        await process.open()
    assert process.runtime.instances() == ()
    assert not exists(pid)
    process.heard.clear()
    await process.runtime.sweep()
    assert not process.instance(workload).alive
    assert workload.plugin_uid in process.heard


async def test_a_controller_without_descriptors_does_not_open_and_harms_nothing(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, pid = await running(process)
    await process.runtime.close()
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise OSError(24, "Too many open files")

        patched.setattr(watching.Watch, "listen", fail)
        with pytest.raises(Unavailable, match="cannot be taken over now"):
            await process.open()
    assert exists(pid)
    await process.open()
    assert process.instance(workload).alive
    os.kill(pid, signal.SIGKILL)
    await process.until(workload, lambda one: not one.alive)
