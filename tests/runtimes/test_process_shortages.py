"""A host that is short of something: nothing is lost, nobody is blamed, and all goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, SECONDS, wait_for
from onlooker import cmdline, processes

from crucible.errors import Unavailable
from crucible.model.instance import State
from crucible.runtimes.process import live as lives
from crucible.runtimes.process import logs, proc, record, spawn

if TYPE_CHECKING:
    from harness import ProcessHarness

    from crucible.model.workload import Workload


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def running(process: ProcessHarness) -> Workload:
    workload = process.workload("stay")
    await process.runtime.start(workload, FIRST)
    await process.until(workload, lambda one: one.state is State.RUNNING)
    return workload


def spawner() -> int:
    (found,) = (pid for pid in processes() if b"spawner.py" in cmdline(pid) and _parent(pid) == os.getpid())
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


async def test_an_end_is_seen_though_it_cannot_be_written_down(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = await running(process)
    with monkeypatch.context() as patched:
        patched.setattr(lives, "save", full)
        await process.runtime.stop(workload.plugin_uid, FIRST)
        ended = await process.until(workload, lambda one: not one.alive)
        assert ended.stopping_at is not None
        assert ended.exit is not None
        assert ended.exit.signal == signal.SIGTERM
    await process.runtime.remove(workload.plugin_uid, FIRST)
    assert process.leftovers() == []


async def test_what_a_host_without_descriptors_cannot_do_is_an_outage_and_done_later(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    workload = await running(process)
    with monkeypatch.context() as patched:
        patched.setattr(proc, "hold", spent)
        patched.setattr(proc, "pids_by_namespace", spent)
        with pytest.raises(Unavailable, match="Too many open files"):
            await process.runtime.stop(workload.plugin_uid, FIRST)
    assert process.instance(workload).stopping_at is None
    await process.runtime.stop(workload.plugin_uid, FIRST)
    await process.until(workload, lambda one: not one.alive)


async def test_an_end_that_was_not_written_down_is_found_out_by_the_next_controller(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = process.workload("exit:7")
    with monkeypatch.context() as patched:
        patched.setattr(lives, "save", full)
        await process.run(workload)
        await process.reopen()
        ended = await process.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    assert ended.exit.code == 7


async def test_a_start_on_a_full_disk_is_the_hosts_fault_and_leaves_nothing(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = process.workload("stay")
    with monkeypatch.context() as patched:
        patched.setattr(record, "save", full)
        with pytest.raises(Unavailable, match="No space left"):
            await process.runtime.start(workload, FIRST)
        patched.setattr(record, "discard", full)
        with pytest.raises(Unavailable, match="No space left"):
            await process.runtime.start(workload, FIRST)
    await process.runtime.sweep()
    assert process.runtime.instances() == ()
    assert process.leftovers() == []
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"staying")


async def test_what_a_start_left_that_could_not_be_cleared_away_is_taken_over_by_the_next(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = process.workload("stay")
    with monkeypatch.context() as patched:
        patched.setattr(spawn.Spawner, "launch", full)
        patched.setattr(record, "discard", full)
        with pytest.raises(Unavailable):
            await process.runtime.start(workload, FIRST)
    assert process.runtime.instances() == ()
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"staying")


async def test_one_that_cannot_be_cleared_away_stays_listed_until_it_can(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = process.workload("exit:0")
    await process.run(workload)
    with monkeypatch.context() as patched:
        patched.setattr(record, "discard", full)
        with pytest.raises(Unavailable, match="cannot be cleared away now"):
            await process.runtime.remove(workload.plugin_uid, FIRST)
    assert not process.instance(workload).alive
    await process.runtime.remove(workload.plugin_uid, FIRST)
    assert process.leftovers() == []


async def test_output_that_a_full_disk_does_not_take_is_said_and_stops_nothing(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import time\nwhile True:\n    print('word', flush=True)\n    time.sleep(0.02)\n"
    workload = process.script(program)
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"word")
    with monkeypatch.context() as patched:
        patched.setattr(logs.LogFiles, "append", full)
        said = await process.until(workload, lambda one: bool(one.notices))
        assert said.notices == ("output is not kept: No space left on device",)
        assert said.alive
    await process.until(workload, lambda one: not one.notices)


async def test_a_spawner_that_hangs_is_ended_and_started_anew(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running(process)
    monkeypatch.setattr(spawn, "_ANSWER_SECONDS", 0.3)
    hung = spawner()
    os.kill(hung, signal.SIGSTOP)
    again = process.workload("stay", name="again")
    with pytest.raises(Unavailable, match="does not answer"):
        await process.runtime.start(again, FIRST)
    await wait_for(lambda: not cmdline(hung))
    monkeypatch.setattr(spawn, "_ANSWER_SECONDS", 60.0)
    await process.runtime.start(again, FIRST)
    await process.says(again, b"staying")


async def test_a_controller_ends_though_its_spawner_hangs(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "_END_SECONDS", 0.1)
    await running(process)
    os.kill(spawner(), signal.SIGSTOP)
    await asyncio.wait_for(process.reopen(), SECONDS)
    assert process.runtime.instances()[0].alive
