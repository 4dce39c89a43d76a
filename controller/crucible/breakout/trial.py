"""Runs the suite in a runtime: the many attempts in one sandbox, those that exhaust something each alone."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crucible.breakout import expected, kernel
from crucible.breakout.bait import bait
from crucible.breakout.verdict import Check, listen
from crucible.core.profiles import PROFILES
from crucible.core.seccomp import PROFILE
from crucible.core.syscalls import numbers
from crucible.errors import Unavailable
from crucible.model.enforcement import Control, Level
from crucible.model.workload import Limits, Slot, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from crucible.breakout.grants import Grants
    from crucible.model.instance import Exit, Instance
    from crucible.runtimes.base import Runtime

FIRST: Final = Slot(0, 1)
MIB: Final = 1 << 20
LIMITS: Final = Limits(cpu=1000, memory=96 * MIB, pids=32, disk=8 * MIB, open_files=64)
SECONDS: Final = 120.0
LATE_WORD: Final = 5.0
"""Seconds after an end within which a runtime may still learn that it was for memory."""
_PROGRAMS: Final = Path(__file__).parent
_SOURCE: Final = "breakout"
_ALONE: Final = "breakout-alone"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of the attempts in one sandbox: every check, and what was read from inside."""

    checks: tuple[Check, ...]
    readings: Mapping[str, Any]


class Sources:
    """Folders with the suite's programs, where a runtime finds them by name."""

    def __init__(self, place: Path) -> None:
        """Copy the programs below a folder, readable for every user."""
        self._place = place
        for name, programs in ((_SOURCE, "inside"), (_ALONE, "alone")):
            folder = place / name
            shutil.copytree(_PROGRAMS / programs, folder, ignore=shutil.ignore_patterns("__pycache__"))
            folder.chmod(0o755)
            for path in folder.iterdir():
                path.chmod(0o644)

    def path_of(self, name: str) -> Path:
        """Return a folder, as a runtime asks for sources."""
        return self._place / name


def workload(program: str = "main.py", config: str = "{}", **changes: Any) -> Workload:  # noqa: ANN401 - fields
    """Return one of the suite's programs as a plugin."""
    whole = program == "main.py"
    made = Workload(
        namespace="default",
        plugin="breakout",
        plugin_uid=f"breakout-{secrets.token_hex(4)}",
        type="python",
        entrypoint=(program,),
        env=(("CRUCIBLE_BREAKOUT", secrets.token_hex(8)),),
        config=config,
        source=_SOURCE if whole else _ALONE,
        limits=LIMITS,
        isolation="process",
        grace=1.0,
        restart="",
    )
    return replace(made, **changes)


def forbidden_calls(*machines: str) -> dict[str, dict[str, int]]:
    """Return the numbers, by machine, of every system call that a Python plugin must not get through."""
    lost = PROFILE.allowed - PROFILES["python"].allowed
    tables = {machine: numbers(machine) for machine in machines}
    return {
        machine: {name: table[name] for name in sorted(PROFILE.denied | lost) if name in table}
        for machine, table in tables.items()
    }


async def run_suite(
    runtime: Runtime, place: Path, said: Callable[[str], None], grants: Grants | None = None
) -> tuple[Check, ...]:
    """Try everything, and return what came of it.

    Args:
        runtime: an open one, that finds the sources of :class:`Sources` by name.
        place: a folder of the host, for the bait.
        said: told what is being tried, in words.
        grants: what the runtime was opened with for the suite; None: nothing.

    Raises:
        Unavailable: the runtime does not answer, or the suite's program never ran.
    """
    said("every way out")
    found = list((await attempt(runtime, place)).checks)
    if grants is not None:
        said("more than was granted")
        found += await _granted(runtime, grants)
    for what, alone in (
        ("memory", _memory),
        ("files", _inodes),
        ("processor time", _processor),
        ("output", _output),
    ):
        said(f"{what} without end")
        found += await alone(runtime)
    return tuple(found)


async def attempt(runtime: Runtime, place: Path, *, routes_only: bool = False, **changes: Any) -> Seen:  # noqa: ANN401 - fields
    """Make every attempt that needs no sandbox to itself.

    Args:
        runtime: an open one.
        place: a folder of the host, for the bait.
        routes_only: a route to somewhere is bad enough, do not go there.
        changes: fields of the workload.

    Raises:
        Unavailable: the program never ran, or did not come to its end.
    """
    with bait(place) as laid:
        config = {
            "hostFiles": [str(laid.file), "/root/.ssh/id_rsa", "/var/lib/crucible/control/kubeconfig"],
            "hostPort": laid.port,
            "hostSocket": laid.socket,
            "hostPid": os.getpid() if runtime.capabilities.runtime == "process" else 0,
            "calls": forbidden_calls(platform.machine()),
            "routesOnly": routes_only,
        }
        asked = workload(config=json.dumps(config), **changes)
        async with _running(runtime, asked) as lines:
            told = [line async for line in lines]
            seen = await asyncio.to_thread(_seen_from_here, asked)
        visitors = Check(
            Control.NETWORK,
            "nobody came to the host",
            not laid.visitors,
            f"came: {laid.visitors or 'nobody'}",
        )
    heard = listen(told)
    if not heard.complete:
        last = b" / ".join(told[-4:]).decode(errors="replace")[-500:] or "nothing"
        raise Unavailable(f"the suite's program did not come to its end; it last said: {last}")
    inside = expected.from_inside(heard.readings, asked, runtime.capabilities.runtime)
    return Seen((*heard.checks, *inside, *seen, visitors), heard.readings)


async def _granted(runtime: Runtime, grants: Grants) -> tuple[Check, ...]:
    """Make every attempt with what was granted; nothing where a runtime has nothing to grant.

    Raises:
        Unavailable: the program never ran, or did not come to its end.
    """
    fields, granted = grants.asked(runtime.capabilities)
    if not granted:
        return ()
    asked = workload(config=json.dumps({"granted": granted}), **fields)
    async with _running(runtime, asked) as lines:
        heard = listen([line async for line in lines])
    if not heard.complete:
        raise Unavailable("the suite's program did not come to its end with what it was granted")
    return heard.checks


def _seen_from_here(asked: Workload) -> tuple[Check, ...]:
    """Ask the kernel about the process that carries the workload's mark; nothing where it is out of sight."""
    (name, value), *_ = asked.env
    pid = kernel.find(f"{name}={value}".encode())
    return tuple(kernel.checks(pid, asked, root=os.geteuid() == 0)) if pid is not None else ()


@asynccontextmanager
async def _running(runtime: Runtime, asked: Workload) -> AsyncIterator[AsyncIterator[bytes]]:
    """Run a workload for as long as this lasts; yields its output up to its last word, or its end."""
    await runtime.start(asked, FIRST)
    try:
        async with asyncio.timeout(SECONDS):
            yield _lines(runtime, asked)
    except TimeoutError as error:
        raise Unavailable(f"the suite's program did not end in {SECONDS:g} s") from error
    finally:
        await runtime.remove(asked.plugin_uid, FIRST)


async def _lines(runtime: Runtime, asked: Workload) -> AsyncIterator[bytes]:
    async for line in runtime.logs(asked.plugin_uid, FIRST, tail=None, follow=True):
        yield line.text
        if line.text.startswith(b'{"summary"'):
            return


def _instance(runtime: Runtime, asked: Workload) -> Instance:
    (found,) = runtime.instances(asked.plugin_uid)
    return found


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for something that a runtime says; whoever opened it has its bell."""
    while not holds():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.02)


async def _end(runtime: Runtime, asked: Workload) -> tuple[list[bytes], Instance]:
    """Run a program that ends by itself or is ended; return what it said and how it ended."""
    async with _running(runtime, asked) as lines:
        told = [line async for line in lines]
        await _until(lambda: not _instance(runtime, asked).alive)
        with suppress(TimeoutError):
            async with asyncio.timeout(LATE_WORD):
                await _until(lambda: _explained(_instance(runtime, asked).exit))
        return told, _instance(runtime, asked)


def _explained(how: Exit | None) -> bool:
    """Whether all is known of an end: that it was for memory can be told after the end itself."""
    return how is not None and (how.oom or how.signal != signal.SIGKILL)


async def _memory(runtime: Runtime) -> tuple[Check, ...]:
    """Memory without end."""
    asked = workload("memory.py", limits=replace(LIMITS, memory=48 * MIB))
    told, ended = await _end(runtime, asked)
    held = ended.exit is not None and (ended.exit.oom or any(b"MemoryError" in line for line in told))
    return _pair(Control.MEMORY, "take memory without end", told, held=held, detail=str(ended.exit))


async def _inodes(runtime: Runtime) -> tuple[Check, ...]:
    """Files without content; where memory is not enforced by a cgroup nothing bounds them, a known limit."""
    if not _enforced(runtime, Control.MEMORY):
        return ()
    asked = workload("inodes.py", limits=replace(LIMITS, memory=24 * MIB, disk=MIB))
    told, ended = await _end(runtime, asked)
    refused = any(line.startswith(b"refused") for line in told)
    held = refused or (ended.exit is not None and ended.exit.oom)
    return _pair(Control.MEMORY, "make files without end", told, held=held, detail=str(ended.exit))


async def _processor(runtime: Runtime) -> tuple[Check, ...]:
    """Processor time without end, until the kernel holds it back, and counts that where it can be read."""
    if not _enforced(runtime, Control.CPU):
        return ()
    asked = workload("processor.py", limits=replace(LIMITS, cpu=200))
    held = 0.0
    async with _running(runtime, asked) as lines:
        told = [await anext(lines)]
        while not held and _instance(runtime, asked).alive:
            usage = await runtime.usage(asked.plugin_uid, FIRST)
            if usage is None:
                return ()
            held = usage.throttled
            await asyncio.sleep(0.05)
    return _pair(
        Control.CPU, "take processor time without end", told, held=held > 0, detail=f"held back {held:.3f} s"
    )


async def _output(runtime: Runtime) -> tuple[Check, ...]:
    """Output without end, where the runtime slows it down."""
    if runtime.capabilities.runtime != "process":
        return ()
    asked = workload("output.py")
    async with _running(runtime, asked) as lines:
        told = [await anext(lines)]
        await _until(lambda: bool(_instance(runtime, asked).notices) or not _instance(runtime, asked).alive)
        notices = _instance(runtime, asked).notices
    return _pair(
        Control.DISK,
        "print without end",
        told,
        held=bool(notices),
        detail="; ".join(notices) or "was not held",
    )


def _pair(control: Control, name: str, told: list[bytes], *, held: bool, detail: str) -> tuple[Check, ...]:
    """Return the attempt, and that it got as far as every plugin may."""
    allowed = told[:1] == [b"allowed"]
    said = told[0].decode(errors="replace")[:300] if told else "it said nothing"
    return (
        Check(control, name, held, detail),
        Check(control, f"the right thing beside: {name}", allowed, said),
    )


def _enforced(runtime: Runtime, control: Control) -> bool:
    found = {entry.control: entry.level for entry in runtime.capabilities.controls}
    return found.get(control) is Level.ENFORCED
