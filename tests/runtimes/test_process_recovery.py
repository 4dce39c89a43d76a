"""The controller dies; what it ran does not, is not doubled, and is not mistaken for anything else."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import FIRST, SECONDS, exists, wait_for
from onlooker import cmdline, processes

from crucible.errors import Conflict
from crucible.model.instance import State
from crucible.model.workload import Slot
from crucible.runtimes.process import ProcessRuntime, proc
from crucible.runtimes.process.launch import group_name
from crucible.runtimes.process.record import load, mark, save

if TYPE_CHECKING:
    from harness import ProcessHarness

    from crucible.model.instance import Instance
    from crucible.model.workload import Workload

COUNT = 4


async def controller(process: ProcessHarness) -> asyncio.subprocess.Process:
    """Start a controller of its own on this harness's state."""
    program = str(Path(__file__).with_name("controller.py"))
    process.workload()  # keeps the source
    return await asyncio.create_subprocess_exec(
        *(sys.executable, program, str(process.state), process.control_plane, str(process.sources)),
        *(process.cgroup_parent or "", str(COUNT)),
        stdout=asyncio.subprocess.PIPE,
    )


async def said(child: asyncio.subprocess.Process, word: bytes) -> None:
    assert child.stdout is not None
    while (line := await asyncio.wait_for(child.stdout.readline(), SECONDS)).strip() != word:
        assert line


def sandboxes(process: ProcessHarness) -> list[str]:
    """Name the instances that have processes, once for each plugin's own."""
    prefix = f"crucible:{process.control_plane}/".encode()
    first = {pid: cmdline(pid).split(b"\0")[0] for pid in processes()}
    inits = [pid for pid, word in first.items() if word.startswith(prefix) and namespaces(pid)[-1:] == ["1"]]
    return sorted(first[pid].decode() for pid in inits)


def namespaces(pid: int) -> list[str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return []
    return next(line.split()[1:] for line in lines if line.startswith("NSpid:"))


async def start_one(process: ProcessHarness, *words: str) -> tuple[Workload, Instance]:
    workload = process.workload(*words)
    await process.runtime.start(workload, FIRST)
    return workload, await process.until(workload, lambda one: one.state is State.RUNNING)


async def test_instances_outlive_a_killed_controller_and_are_adopted(process: ProcessHarness) -> None:
    await process.runtime.close()
    child = await controller(process)
    await said(child, b"started")
    child.kill()
    await child.wait()
    await process.open()
    found = process.runtime.instances()
    assert [one.plugin_uid for one in found] == [f"uid-p{number}" for number in range(COUNT)]
    assert all(one.alive for one in found)
    for one in found:
        await wait_for(lambda uid=one.plugin_uid: process.runtime.instances(uid)[0].state is State.RUNNING)
    assert len(sandboxes(process)) == COUNT
    workload = process.workload(name="p0")
    await process.says(workload, b"staying")
    await process.runtime.stop("uid-p0", FIRST)
    ended = await process.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    assert ended.exit.signal == signal.SIGTERM


@pytest.mark.parametrize("seed", range(20 if os.environ.get("CRUCIBLE_LONG") else 3))
async def test_killed_at_any_moment_nothing_is_lost_or_doubled(process: ProcessHarness, seed: int) -> None:
    await process.runtime.close()
    moments = random.Random(seed)
    for _ in range(5):
        child = await controller(process)
        await said(child, b"open")
        await asyncio.sleep(moments.uniform(0, 0.05))
        child.kill()
        await child.wait()
    child = await controller(process)
    await said(child, b"started")
    child.kill()
    await child.wait()
    await process.open()
    for one in process.runtime.instances():
        # A start cut short may have ended; it is there then, with its reason. It is never there twice.
        assert one.alive or (one.exit is not None and one.exit.problem), one
    alive = [one.plugin_uid for one in process.runtime.instances() if one.alive]
    assert len(set(alive)) == len(alive)
    await wait_for(lambda: len(sandboxes(process)) == len(alive), lambda: str(sandboxes(process)))
    for one in process.runtime.instances():
        await process.runtime.remove(one.plugin_uid, one.slot)
    assert process.leftovers() == []


async def test_an_end_that_nobody_saw_is_reported(process: ProcessHarness) -> None:
    workload = process.script(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('words')\nwhile True: signal.pause()"
    )
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"words")
    running = await process.until(workload, lambda one: one.pid is not None)
    assert running.pid is not None
    await process.runtime.close()
    os.kill(running.pid, signal.SIGTERM)
    await wait_for(lambda: not exists(running.pid))
    await process.open()
    ended = process.instance(workload)
    assert ended.exit is not None
    assert (ended.exit.code, ended.exit.problem) == (7, "")
    assert await process.lines(workload) == [b"words"]


async def test_a_process_that_took_over_the_pid_is_not_adopted(process: ProcessHarness) -> None:
    workload, _ = await start_one(process, "stay")
    directory = process.state / "instances" / workload.plugin_uid / str(FIRST)
    await process.runtime.remove(workload.plugin_uid, FIRST)
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"staying")
    await process.runtime.close()
    record = json.loads((directory / "record.json").read_text())
    victim = await asyncio.create_subprocess_exec("sleep", "60")
    os.kill(record["monitor"]["pid"], signal.SIGKILL)
    (directory / "record.json").write_text(
        json.dumps({**record, "monitor": {**record["monitor"], "pid": victim.pid}})
    )
    await process.open()
    ended = process.instance(workload)
    assert not ended.alive
    assert victim.returncode is None
    assert sandboxes(process) == []
    await process.runtime.remove(workload.plugin_uid, FIRST)
    victim.kill()
    assert await victim.wait() == -signal.SIGKILL
    assert process.leftovers() == []


async def test_a_killed_monitor_takes_the_sandbox_along(process: ProcessHarness) -> None:
    workload, running = await start_one(process, "stay")
    record = load(process.state / "instances" / workload.plugin_uid / str(FIRST))
    assert record is not None
    assert record.monitor is not None
    os.kill(record.monitor.pid, signal.SIGKILL)
    ended = await process.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    assert "killed from outside" in ended.exit.problem
    assert ended.exit.reason == "Lost"
    assert not exists(running.pid)


async def test_a_monitor_killed_while_nobody_watched_takes_the_sandbox_along(process: ProcessHarness) -> None:
    workload, running = await start_one(process, "stay")
    record = load(process.state / "instances" / workload.plugin_uid / str(FIRST))
    assert record is not None
    assert record.monitor is not None
    await process.runtime.close()
    os.kill(record.monitor.pid, signal.SIGKILL)
    await process.open()
    ended = process.instance(workload)
    assert ended.exit is not None
    assert "killed from outside" in ended.exit.problem
    assert ended.exit.reason == "Lost"
    assert not exists(running.pid)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\x00", b'{"version": 99}'])
async def test_a_damaged_record_ends_the_instance_with_a_reason(
    process: ProcessHarness, damage: bytes
) -> None:
    workload, running = await start_one(process, "stay")
    await process.runtime.close()
    (process.state / "instances" / workload.plugin_uid / str(FIRST) / "record.json").write_bytes(damage)
    await process.open()
    ended = process.instance(workload)
    assert ended.exit is not None
    assert "could not be read" in ended.exit.problem
    assert ended.exit.reason == "Lost"
    assert not exists(running.pid)
    await process.runtime.remove(workload.plugin_uid, FIRST)
    assert process.leftovers() == []


async def test_a_start_that_had_no_process_yet_leaves_nothing(process: ProcessHarness) -> None:
    workload, running = await start_one(process, "stay")
    directory = process.state / "instances" / workload.plugin_uid / str(FIRST)
    await process.runtime.close()
    record = json.loads((directory / "record.json").read_text())
    (directory / "record.json").write_text(json.dumps({**record, "monitor": None}))
    (process.state / "instances/uid-bare/0-1").mkdir(parents=True)
    await process.open()
    assert process.runtime.instances() == ()
    assert not exists(running.pid)
    assert process.leftovers() == []


async def test_records_of_another_control_plane_stay_as_they_are(process: ProcessHarness) -> None:
    workload, running = await start_one(process, "stay")
    directory = process.state / "instances" / workload.plugin_uid / str(FIRST)
    record = load(directory)
    assert record is not None
    await process.runtime.close()
    text = (directory / "record.json").read_text()
    (directory / "record.json").write_text(text.replace(process.control_plane, "someone-else"))
    await process.open()
    assert process.runtime.instances() == ()
    with pytest.raises(Conflict):
        await process.runtime.start(workload, FIRST)
    assert exists(running.pid)
    await process.runtime.close()
    save(record, directory)
    await process.open()
    assert process.instance(workload).alive


async def test_an_instance_of_an_earlier_boot_has_ended(process: ProcessHarness) -> None:
    workload, _ = await start_one(process, "stay")
    directory = process.state / "instances" / workload.plugin_uid / str(FIRST)
    record = json.loads((directory / "record.json").read_text())
    await process.runtime.kill(workload.plugin_uid, FIRST)
    await process.runtime.close()
    (directory / "status.json").write_text("")
    (directory / "record.json").write_text(
        json.dumps({**record, "monitor": {**record["monitor"], "boot": "other"}})
    )
    await process.open()
    ended = process.instance(workload)
    assert ended.exit is not None
    assert "restarted" in ended.exit.problem


async def test_a_request_to_end_that_waited_for_the_plugin_to_run_outlives_its_controller(
    process: ProcessHarness,
) -> None:
    workload, _ = await start_one(process, "stay")
    directory = process.state / "instances" / workload.plugin_uid / str(FIRST)
    await process.runtime.close()
    record = load(directory)
    assert record is not None
    save(replace(record, stopping_at=time.time()), directory)  # as noted, and the signal not sent yet
    await process.open()
    ended = await process.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    assert ended.exit.signal == signal.SIGTERM


async def test_a_request_to_end_is_sent_once_whoever_controls(process: ProcessHarness) -> None:
    program = """\
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("ready", flush=True)
while True: time.sleep(0.01)
"""
    workload = process.script(program)
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"ready")
    await process.runtime.stop(workload.plugin_uid, FIRST)
    await process.says(workload, b"asked")
    await process.reopen()
    await process.runtime.stop(workload.plugin_uid, FIRST)
    assert await process.enter(workload, *process.command("exit", "0")) == (0, b"", b"")
    assert await process.lines(workload) == [b"ready", b"asked"]


async def test_two_controllers_cannot_share_a_state_directory(process: ProcessHarness) -> None:
    second = ProcessRuntime(process.settings(), process.sources.joinpath)
    with pytest.raises(Conflict):
        await second.open(lambda _: None)


async def test_a_killed_spawner_is_started_anew(process: ProcessHarness) -> None:
    await start_one(process, "stay")
    (spawner,) = (pid for pid in processes() if b"spawner.py" in cmdline(pid) and parent(pid) == os.getpid())
    os.kill(spawner, signal.SIGKILL)
    await wait_for(lambda: proc.started(spawner) is None)  # its end of the link is closed before that
    assert process.runtime.instances()[0].alive
    again = process.workload("stay", name="again")
    await process.runtime.start(again, FIRST)
    await process.says(again, b"staying")


async def test_output_goes_on_across_controllers(process: ProcessHarness) -> None:
    program = "import time\nfor n in range(40): print(n); time.sleep(0.02)\ntime.sleep(3600)"
    workload = process.script(program)  # goes on: what is left in the pipe of one that ended is lost
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"3")
    await process.reopen()
    await process.says(workload, b"10")
    await process.reopen()
    await process.says(workload, b"39")
    assert await process.lines(workload) == [b"%d" % number for number in range(40)]


def test_the_mark_and_the_group_name_an_instance() -> None:
    assert mark("cp", "uid", Slot(1, 2)) == "crucible:cp/uid/1-2"
    assert group_name("uid", Slot(1, 2)) == "uid_1-2"


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
