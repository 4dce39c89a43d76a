"""A command in a sandbox is no more powerful than its plugin, and its way in is closed to the plugin."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, PYTHON, SECONDS, wait_for
from onlooker import cmdline, processes

from crucible.runtimes.process.proc import children, pids_by_namespace, started

if TYPE_CHECKING:
    from harness import ProcessHarness

    from crucible.model.workload import Workload

# Says all that a process can know about what it may do.
SELF = """\
import json, os, resource
read = lambda path: open(path).read()
status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
keys = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
        "Seccomp_filters", "Umask", "SigBlk", "SigIgn")
print(json.dumps({
    "status": {key: status[key].split() for key in keys if key in status},
    "limits": read("/proc/self/limits"),
    "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
    "mounts": read("/proc/self/mountinfo"),
    "cgroup": read("/proc/self/cgroup"),
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "descriptors": [n for n in range(1024) if os.path.exists(f"/proc/self/fd/{n}")],
    "nice": os.nice(0),
}), flush=True)
"""
STAYS = SELF + "import signal; signal.pause()\n"

# Looks at every process it has not seen yet while that has no filter, which is while one enters.
SPY = """\
import os, sys
def facts(pid):
    return dict(line.split(":", 1) for line in open(f"/proc/{pid}/status").read().splitlines())
def look(pid):
    yield "descriptors", lambda: os.listdir(f"/proc/{pid}/fd")
    yield "program", lambda: os.readlink(f"/proc/{pid}/exe")
    yield "open program", lambda: open(f"/proc/{pid}/exe", "rb").close()
    yield "memory", lambda: open(f"/proc/{pid}/mem", "r+b").close()
    yield "environment", lambda: open(f"/proc/{pid}/environ").read(1)
    yield "root", lambda: os.listdir(f"/proc/{pid}/root")
    yield "maps", lambda: open(f"/proc/{pid}/maps").read(1)
print("spying", flush=True)
known = {1, os.getpid()}
while True:
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid in known: continue
        reached, inside = [], False
        try:
            while facts(pid)["Seccomp"].strip() == "0":
                inside = True
                for name, attempt in look(pid):
                    try:
                        attempt()
                    except (PermissionError, FileNotFoundError, ProcessLookupError):
                        continue
                    if facts(pid)["Seccomp"].strip() == "0": reached.append(name)
        except (FileNotFoundError, ProcessLookupError):
            pass
        known.add(pid)
        if inside: print("caught", reached, flush=True)
"""


async def running(process: ProcessHarness, text: str, **changes: object) -> Workload:
    workload = process.script(text, "inside", **changes)
    await process.runtime.start(workload, FIRST)
    await wait_for(lambda: process.instance(workload).pid is not None)
    return workload


async def seen(process: ProcessHarness, **changes: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a plugin knows of itself, and what a command in its sandbox does."""
    workload = await running(process, STAYS, **changes)
    await wait_for((process.state / "instances/uid-inside/0-1/log-1").exists)
    (line,) = await process.lines(workload)
    code, out, err = await process.enter(workload, PYTHON, "-c", SELF)
    assert (code, err) == (0, b"")
    return json.loads(line), json.loads(out)


async def test_a_command_is_what_its_plugin_is(process: ProcessHarness) -> None:
    plugin, command = await seen(process, env=(("MODE", "fast"), ("LANG", "elsewhere")))
    assert command == plugin
    status = command["status"]
    assert status["Uid"] == status["Gid"] == ["1000"] * 4
    assert {status[f"Cap{kind}"][0] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    assert command["descriptors"] == [0, 1, 2]


async def test_a_command_is_in_the_plugins_cgroup(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    session = await process.runtime.exec(
        workload.plugin_uid, FIRST, (PYTHON, "-c", STAYS), stdin=False, tty=False
    )
    _, said = await anext(session.output())
    assert said
    groups = {pid: Path(f"/proc/{pid}/cgroup").read_text() for pid in pids_inside(process, workload)}
    assert len(groups) == 3  # bubblewrap's first process, the plugin, the command
    assert len(set(groups.values())) == 1
    await session.close()


async def test_the_limits_hold_a_command_too(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    bomb = """\
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0: time.sleep(100)
        made += 1
except OSError: print(made)
"""
    code, out, _ = await process.enter(workload, PYTHON, "-c", bomb)
    assert code == 0
    assert int(out) < workload.limits.pids
    await process.runtime.remove(workload.plugin_uid, FIRST)
    workload = await running(process, STAYS)
    code, out, err = await process.enter(
        workload, PYTHON, "-c", "kept = [b'x' * (1 << 20) for _ in range(500)]; print('had it')"
    )
    assert code != 0, (out, err)


async def test_nobody_inside_can_reach_into_a_command_on_its_way_in(process: ProcessHarness) -> None:
    workload = await running(process, SPY)
    await process.says(workload, b"spying")
    deadline = asyncio.get_running_loop().time() + SECONDS
    caught: list[bytes] = []
    while len(caught) < 3:
        assert asyncio.get_running_loop().time() < deadline, caught
        await asyncio.gather(*(process.enter(workload, *process.command("echo", "x")) for _ in range(4)))
        caught = [line for line in await process.lines(workload) if line.startswith(b"caught")]
    assert set(caught) == {b"caught []"}


async def test_the_entering_programs_file_cannot_be_written_from_inside(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    # Executing itself is how a command keeps the entering program's file; then it must not be busy.
    take = f"""\
import os
held = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(held, True)
attempt = '''
import os, errno
for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
    try:
        os.open("/proc/self/fd/%d", flags)
        print("opened")
    except OSError as error:
        print(errno.errorcode[error.errno])
''' % held
os.execv("/usr/bin/{PYTHON}", ["{PYTHON}", "-c", attempt])
"""
    code, out, err = await process.enter(workload, "/proc/self/exe", "-c", take)
    assert code == 0, err
    assert set(out.split()) <= {b"EACCES", b"EPERM", b"EROFS", b"ETXTBSY"}, out


async def test_what_cannot_be_executed_says_why(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    code, _, err = await process.enter(workload, "/config/config.json")
    assert (code, err) == (126, b"/config/config.json: Permission denied\n")
    code, _, err = await process.enter(workload, PYTHON, "a\0b")
    assert code == 126
    assert b"null" in err


async def test_a_command_that_says_much_waits_for_its_reader_and_loses_nothing(
    process: ProcessHarness,
) -> None:
    workload = await running(process, STAYS)
    script = "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('y' * 100_000)"
    code, out, err = await process.enter(workload, PYTHON, "-c", script)
    assert (code, len(out), len(err)) == (0, 3_000_000, 100_000)


async def test_a_command_ends_though_its_output_is_held_open(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    script = "import os, time; print('said', flush=True); os.fork() == 0 and (os.setsid(), time.sleep(1000))"
    assert await process.enter(workload, PYTHON, "-c", script) == (0, b"said\n", b"")


async def test_closing_ends_what_a_command_started(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    script = "import os, time; os.fork(); print('up', flush=True); time.sleep(1000)"
    session = await process.runtime.exec(
        workload.plugin_uid, FIRST, (PYTHON, "-c", script), stdin=False, tty=False
    )
    said = b""
    async for _, chunk in session.output():
        said += chunk
        if said == b"up\nup\n":
            break
    await session.close()
    listing = "import os; print(sum(name.isdigit() for name in os.listdir('/proc')))"

    async def alone() -> bool:
        return (await process.enter(workload, PYTHON, "-c", listing))[1] == b"3\n"

    deadline = asyncio.get_running_loop().time() + SECONDS
    while not await alone():
        assert asyncio.get_running_loop().time() < deadline


async def test_a_command_ends_with_the_process_that_waits_for_it(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    session = await process.runtime.exec(
        workload.plugin_uid, FIRST, (PYTHON, "-c", STAYS), stdin=False, tty=False
    )
    _, said = await anext(session.output())
    assert said
    _, _, inside = sorted(pids_inside(process, workload), key=lambda pid: pids_by_namespace(pid)[-1])
    (porter,) = (pid for pid in processes() if b"entrance.py" in cmdline(pid) and inside in children(pid))
    os.kill(porter, signal.SIGKILL)
    assert await session.wait() == 128 + signal.SIGKILL
    await wait_for(lambda: started(inside) is None)
    await session.close()


async def test_sessions_leave_no_descriptors(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    await process.enter(workload, *process.command("echo", "first"))
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(5):
        await process.enter(workload, *process.command("cat"), stdin=b"x")
        await process.enter(workload, "none")
    assert len([*Path("/proc/self/fd").iterdir()]) == before


async def test_usage_counts_what_was_used(process: ProcessHarness) -> None:
    workload = await running(process, STAYS)
    before = await process.runtime.usage(workload.plugin_uid, FIRST)
    if before is None:
        pytest.skip("no cgroup counts here")
    burn = "import time; kept = b'x' * (20 << 20)\nwhile time.process_time() < 0.3: pass"
    await process.enter(workload, PYTHON, "-c", burn)
    after = await process.runtime.usage(workload.plugin_uid, FIRST)
    assert after is not None
    assert after.cpu - before.cpu >= 0.3
    assert after.memory_peak is not None
    assert after.memory_peak >= before.memory + (20 << 20)
    deadline = asyncio.get_running_loop().time() + SECONDS
    while after.pids != 1:  # what has ended counts until it is reaped
        assert asyncio.get_running_loop().time() < deadline, after
        await asyncio.sleep(0.01)
        after = await process.runtime.usage(workload.plugin_uid, FIRST)
        assert after is not None


def pids_inside(process: ProcessHarness, workload: Workload) -> list[int]:
    """Return the processes in an instance's sandbox: bubblewrap's first, the plugin, commands."""
    inside = _namespace(process.instance(workload).pid or 0)
    return [pid for pid in processes() if inside is not None and _namespace(pid) == inside]


def _namespace(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None
