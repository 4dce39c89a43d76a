"""Plugins that misbehave: each is contained, visible with its reason, and removable."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import FIRST, LIMITS, MIB, SECONDS, wait_for

from crucible.model.enforcement import Control, Level
from crucible.runtimes.process import elf

if TYPE_CHECKING:
    from harness import ProcessHarness

FLOOD = """\
import os
block = (b"x" * 127 + b"\\n") * 512
while True: os.write(1, block)
"""
CLOSES = """\
import os, signal
for descriptor in (0, 1, 2): os.close(descriptor)
signal.pause()
"""
ORPHANS = """\
import os, signal
said, says = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"orphan\\n")
        os.write(says, b"x")
        while True: signal.pause()
for _ in range(3): os.read(said, 1)
raise SystemExit(4)
"""
BOMB = """\
import os, signal
made = 0
while True:
    try: pid = os.fork()
    except BlockingIOError: break
    if pid == 0:
        signal.pause()
    made += 1
print("made", made, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0: signal.pause()
    except BlockingIOError: pass
"""
THREADS = """\
import threading
made = 0
try:
    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        made += 1
except RuntimeError:
    print("made", made, flush=True)
import os
os._exit(0)
"""
FILLS = """\
import os, sys
total = 0
for place in ("/tmp/fill", "/dev/shm/fill"):
    try:
        with open(place, "wb", buffering=0) as file:
            while True: total += file.write(b"x" * 65536)
    except OSError as error:
        print(error.errno)
print(total)
"""
FILES = """\
import os
kept = []
try:
    while True: kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print(error.errno, len(kept) + 3)
"""
SPINS = "while True: pass"


def enforced(process: ProcessHarness, control: Control) -> bool:
    return any(
        entry.control is control and entry.level is Level.ENFORCED
        for entry in process.runtime.capabilities.controls
    )


async def rests(share: float) -> None:
    """Wait for half a second in which the controller uses less than a share of a processor.

    What spins has none. Others' work on the same loop, a collection of a long session's garbage say, may
    fall into one or another.
    """
    used, deadline = 1.0, time.monotonic() + SECONDS
    while used >= share:
        assert time.monotonic() < deadline, used
        before, begin = time.process_time(), time.monotonic()
        await wait_for(lambda begin=begin: time.monotonic() - begin > 0.5)
        used = (time.process_time() - before) / (time.monotonic() - begin)


async def test_one_that_prints_without_end_is_slowed_and_says_so(process: ProcessHarness) -> None:
    workload = process.script(FLOOD)
    await process.runtime.start(workload, FIRST)
    slowed = await process.until(workload, lambda one: bool(one.notices))
    assert slowed.notices == ("output is held to 1 MiB/s",)
    await rests(0.3)
    kept = sum(path.stat().st_size for path in process.state.glob("instances/*/*/log-*"))
    # A file more, for what is written before the oldest goes, and the stamps of its lines.
    assert kept <= 4 * MIB * 1.2
    await process.runtime.remove(workload.plugin_uid, FIRST)
    assert process.leftovers() == []


async def test_a_slowed_one_that_falls_silent_loses_its_notice(process: ProcessHarness) -> None:
    workload = process.script("import signal\nfor _ in range(400): print('x' * 10239)\nsignal.pause()")
    await process.runtime.start(workload, FIRST)
    await process.until(workload, lambda one: bool(one.notices))
    await process.until(workload, lambda one: not one.notices)


async def test_one_that_closes_its_streams_costs_nothing(process: ProcessHarness) -> None:
    workload = process.script(CLOSES)
    await process.runtime.start(workload, FIRST)
    await process.until(workload, lambda one: one.pid is not None)
    await rests(0.3)
    assert process.instance(workload).alive


async def test_orphans_go_with_their_parent(process: ProcessHarness) -> None:
    workload = process.script(ORPHANS)
    ended = await process.run(workload)
    assert ended.exit is not None
    assert ended.exit.code == 4
    assert await process.lines(workload) == [b"orphan"] * 3
    await process.runtime.remove(workload.plugin_uid, FIRST)
    assert process.leftovers() == []


@pytest.mark.parametrize("program", [BOMB, THREADS], ids=["processes", "threads"])
async def test_no_more_processes_than_allowed(process: ProcessHarness, program: str) -> None:
    if not enforced(process, Control.PIDS):
        pytest.skip("the number of processes cannot be held on this host")
    # Room for the stacks of threads, which count where memory is held per process.
    workload = process.script(program, limits=replace(LIMITS, memory=512 * MIB))
    await process.runtime.start(workload, FIRST)
    await process.says_in_the_end(workload, b"made")
    (line,) = await process.lines(workload)
    made = int(line.split()[1])
    assert LIMITS.pids - 2 <= made <= LIMITS.pids
    await process.runtime.remove(workload.plugin_uid, FIRST)
    assert process.leftovers() == []


async def test_disk_is_held(process: ProcessHarness) -> None:
    workload = process.script(FILLS)
    ended = await process.run(workload)
    first, second, total = await process.lines(workload)
    assert ended.exit is not None
    assert (ended.exit.code, first, second) == (0, b"28", b"28")
    assert int(total) <= LIMITS.disk


async def test_open_files_are_held(process: ProcessHarness) -> None:
    workload = process.script(FILES)
    await process.run(workload)
    assert await process.lines(workload) == [b"24 %d" % LIMITS.open_files]


async def test_memory_of_a_tmpfs_counts(process: ProcessHarness) -> None:
    if not enforced(process, Control.MEMORY):
        pytest.skip("memory is held per process here")
    limits = replace(LIMITS, memory=16 * MIB, disk=256 * MIB)
    ended = await process.run(process.script(FILLS, limits=limits))
    assert ended.exit is not None
    assert ended.exit.oom or ended.exit.code == 0
    assert ended.exit.oom


async def test_cpu_is_held(process: ProcessHarness) -> None:
    if not enforced(process, Control.CPU):
        pytest.skip("cpu time cannot be held on this host")
    workload = process.script(SPINS, limits=replace(LIMITS, cpu=200))
    await process.runtime.start(workload, FIRST)
    running = await process.until(workload, lambda one: one.pid is not None)

    def used() -> float:
        fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    begin, before = time.monotonic(), used()
    await wait_for(lambda: time.monotonic() - begin > 1.5)
    assert (used() - before) / (time.monotonic() - begin) < 0.3


async def test_a_limit_too_small_to_start_in_is_an_end_with_a_reason(process: ProcessHarness) -> None:
    ended = await process.run(process.workload("stay", limits=replace(LIMITS, open_files=4)))
    assert ended.exit is not None
    assert ended.exit.problem.startswith("the sandbox could not start it")


async def test_a_program_that_is_not_there_is_an_end_with_a_reason(process: ProcessHarness) -> None:
    source = process.source("native", {"plugin": "#!/bin/sh\necho hello\n"})
    missing = process.workload(type="binary", entrypoint=("nothing",), source=source, name="a")
    ended = await process.run(missing)
    assert ended.exit is not None
    assert "execvp /plugin/nothing: No such file" in ended.exit.problem
    absent = process.workload(source="no-such-snapshot", name="b")
    ended = await process.run(absent)
    assert ended.exit is not None
    assert ended.exit.problem


async def test_a_zero_byte_in_the_environment_is_refused(process: ProcessHarness) -> None:
    ended = await process.run(process.workload("stay", env=(("X", "a\0--bind\0/\0/host"),)))
    assert ended.exit is not None
    assert "zero byte" in ended.exit.problem


async def test_a_large_configuration_and_environment_arrive(process: ProcessHarness) -> None:
    program = "import os; print(len(open(os.environ['CRUCIBLE_CONFIG']).read()), len(os.environ['BIG']))"
    big = "x" * 100_000
    workload = process.script(program, config=f'"{big * 5}"', env=(("BIG", big),))
    await process.run(workload)
    assert await process.lines(workload) == [b"500002 100000"]


async def test_hostile_output_is_kept_as_lines_of_bounded_length(process: ProcessHarness) -> None:
    program = (
        "import os; os.write(1, b'\\x1b[2J\\x00\\xff\\n' + b'y' * 40000 + "
        "b'\\nbwrap: lies\\n{\"exit-code\": 0}')"
    )
    workload = process.script(program + "; raise SystemExit(9)")
    ended = await process.run(workload)
    assert ended.exit is not None
    assert ended.exit.code == 9
    first, second, *rest = await process.lines(workload)
    assert first == b"\x1b[2J\x00\xff"
    assert second.startswith(b"y" * 16384 + b" [cut")
    assert rest == [b"bwrap: lies", b'{"exit-code": 0}']


async def test_siblings_can_be_imported_and_output_is_not_held_back(process: ProcessHarness) -> None:
    files = {
        "main.py": "import helper, signal; print(helper.WORD); signal.pause()",
        "helper.py": "WORD = 'yes'",
    }
    workload = process.workload(source=process.source("siblings", files), entrypoint=("main.py",))
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"yes")


async def test_node_runs(process: ProcessHarness) -> None:
    if "javascript" not in process.runtime.capabilities.types:
        if os.environ.get("CI"):
            pytest.fail("node is missing: apt-get install nodejs")
        pytest.skip("node is not on PATH: apt-get install nodejs")
    files = {"main.js": "console.log('hello', process.version.length > 0, require('fs').existsSync('/root'))"}
    source = process.source("node", files)
    limits = replace(LIMITS, memory=256 * MIB, pids=32)
    workload = process.workload(type="javascript", source=source, entrypoint=("main.js",), limits=limits)
    ended = await process.run(workload)
    assert await process.lines(workload) == [b"hello true false"]
    assert ended.exit is not None
    assert ended.exit.code == 0


async def test_a_native_program_runs(process: ProcessHarness) -> None:
    """The C library's own loader is a static program that every such host has."""
    loader = elf.loader(Path("/proc/self/exe"))
    if loader is None:
        pytest.skip("this interpreter is static: nothing here to run as a native program")
    source = process.source("native", {"plugin": ""})
    (process.sources / source / "plugin").write_bytes(loader.read_bytes())
    workload = process.workload(type="binary", source=source, entrypoint=("plugin", "--version"))
    ended = await process.run(workload)
    assert ended.exit is not None
    assert ended.exit.code == 0
    assert (await process.lines(workload))[0].startswith(b"ld.so")


async def test_the_controllers_own_limits_are_not_handed_on(process: ProcessHarness) -> None:
    workload = process.script("print(open('/proc/self/limits').read())")
    await process.run(workload)
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    memlock = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    limits = {line[:26].strip(): line[26:].split()[:2] for line in await process.lines(workload)}
    assert limits[b"Max core file size"] == [b"1", b"1"]
    assert limits[b"Max locked memory"] == [b"%d" % memlock] * 2


async def test_the_hosts_crash_handler_cannot_be_called(process: ProcessHarness) -> None:
    workload = process.script(
        "import resource as r\n"
        "try: r.setrlimit(r.RLIMIT_CORE, (0, 0))\n"
        "except (OSError, ValueError) as error: print('refused', error.args[0])"
    )
    await process.run(workload)
    (line,) = await process.lines(workload)
    assert line.startswith(b"refused")


async def test_a_plugin_that_shuts_its_own_output_is_adopted_all_the_same(process: ProcessHarness) -> None:
    workload = process.script(
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'after\\n'), os._exit(0)))\n"
        "print('before'); os.fchmod(1, 0)\n"
        "while True: signal.pause()"
    )
    await process.runtime.start(workload, FIRST)
    await process.says(workload, b"before")
    await process.reopen()
    await process.until(workload, lambda one: one.pid is not None)
    await process.runtime.stop(workload.plugin_uid, FIRST)
    await process.until(workload, lambda one: not one.alive)
    assert await process.lines(workload) == [b"before", b"after"]


async def test_what_sockets_hold_is_limited_where_the_kernel_counts_it_apart(process: ProcessHarness) -> None:
    hierarchy = Path("/sys/fs/cgroup/memory")
    workload = process.workload("stay")
    await process.runtime.start(workload, FIRST)
    running = await process.until(workload, lambda one: one.pid is not None)
    assert running.pid is not None
    if not (hierarchy / "memory.kmem.tcp.limit_in_bytes").exists():
        return  # version 2 counts it with the rest
    above, _, place = memory_group(running.pid).partition(f"crucible-{process.control_plane}/")
    if os.geteuid() == 0 or process.cgroup_parent is not None:
        assert place, above
    if place:
        parent = (process.cgroup_parent or "").lstrip("/")
        group = hierarchy / parent / f"crucible-{process.control_plane}" / place
        assert int((group / "memory.kmem.tcp.limit_in_bytes").read_text()) == LIMITS.memory // 4


def memory_group(pid: int) -> str:
    """Ask the kernel for a process's group: a walk of the hierarchy meets groups that go meanwhile."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
    return ""
