"""Probes the host by running one complete sandbox, and says what it holds."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import CrucibleError, Unsupported
from crucible.model.door import Door
from crucible.model.workload import Limits, Slot, Workload
from crucible.runtimes.process import host as hosts
from crucible.runtimes.process import proc
from crucible.runtimes.process.cgroups import base as groups
from crucible.runtimes.process.cgroups import choose
from crucible.runtimes.process.enforcement import Facts, capabilities, findings, userns_fix
from crucible.runtimes.process.launch import CannotStart, Host, Prospect, group_name, launch
from crucible.runtimes.process.live import Live
from crucible.runtimes.process.output import PIPE, make_pipe
from crucible.runtimes.process.record import Record, discard, save
from crucible.runtimes.process.spawn import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.model.enforcement import Capabilities, Finding
    from crucible.runtimes.passage import Passage
    from crucible.runtimes.process.settings import ProcessSettings
    from crucible.runtimes.process.spawn import Spawner


_SECONDS: Final = 20.0
_LIMITS: Final = Limits(cpu=1000, memory=64 << 20, pids=16, disk=1 << 20, open_files=64)
# Runs inside, and tells what it sees there.
_PROGRAM: Final = """\
import json, os, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
keys = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
seen = {key: status[key].strip() for key in keys if key in status}
seen["uid"], seen["pids"] = os.getuid(), sum(name.isdigit() for name in os.listdir("/proc"))
seen["interfaces"] = [name for _, name in socket.if_nameindex()]
if "CRUCIBLE_EGRESS" in os.environ:
    ways = (socket.AF_INET, ("127.0.0.1", 3128)), (socket.AF_UNIX, os.environ["CRUCIBLE_EGRESS"])
    for family, place in ways:
        with socket.socket(family) as one:
            one.settimeout(10)
            one.connect(place)
    seen["egress"] = True
print(json.dumps(seen))
"""
_EXPECTED: Final = {
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "uid": 1000,
    "pids": 2,
    "interfaces": ["lo"],
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A host that was probed."""

    host: Host
    capabilities: Capabilities
    findings: tuple[Finding, ...]


async def prepare(
    settings: ProcessSettings,
    spawner: Spawner,
    passage: Passage,
    used_roots: frozenset[str],
    say: Callable[[str], None],
) -> Prepared:
    """Choose the bubblewrap that runs the complete sandbox here.

    Raises:
        Unsupported: none does; says why each failed and what to do.
    """
    roots = await asyncio.to_thread(hosts.build_roots, settings, used_roots, say)
    cgroups, about = choose(f"crucible-{settings.control_plane}", settings.cgroup_parent)
    filters = hosts.write_filters(settings.state_dir)
    problems = []
    for path in hosts.bwrap_candidates(settings):
        opened = hosts.open_program(path)
        found = os.fstat(opened)
        identity, libraries = (found.st_dev, found.st_ino), hosts.libraries_of(path)
        host = Host(opened, identity, libraries, filters, roots, cgroups, proc.boot_id())
        try:
            host, about = await _probe_with_fallback(host, about, settings, spawner)
            egress = await _probe_egress(host, settings, spawner, passage)
        except CannotStart as error:
            os.close(opened)
            problems.append(f"{path}: {error}")
            continue
        facts = Facts(
            *(str(path), os.geteuid() == 0, host.cgroups, about, frozenset(roots), tuple(problems)),
            volumes=settings.volumes,
            egress=egress,
        )
        return Prepared(host, capabilities(facts), findings(facts))
    raise Unsupported(
        f"no bubblewrap runs a sandbox here. {'; '.join(problems) or 'none was found'}. {userns_fix()}"
    )


async def _probe_with_fallback(
    host: Host, about: str, settings: ProcessSettings, spawner: Spawner
) -> tuple[Host, str]:
    """Probe with cgroups, and without them where only they stand in the way."""
    if host.cgroups is not None:
        try:
            await _probe(host, settings, spawner)
        except CannotStart as error:
            host, about = replace(host, cgroups=None), f"a sandbox cannot be put into one: {error}"
        else:
            return host, about
    await _probe(host, settings, spawner)
    return host, about


async def _probe_egress(host: Host, settings: ProcessSettings, spawner: Spawner, passage: Passage) -> str:
    """Return why a sandbox cannot be given a way to the egress proxy; empty where it can."""
    try:
        await _probe(host, settings, spawner, passage)
    except (CannotStart, CrucibleError) as error:
        return str(error)
    return ""


async def _probe(
    host: Host, settings: ProcessSettings, spawner: Spawner, passage: Passage | None = None
) -> None:
    """Run one sandbox, and look from inside; with a passage, one that has an egress door.

    Raises:
        CannotStart: it did not run, or does not isolate.
    """
    place = Path(tempfile.mkdtemp(prefix="probe-", dir=settings.state_dir))
    try:
        source = place / "source"
        source.mkdir()
        (source / "main.py").write_text(_PROGRAM)
        for path in (source, source / "main.py"):
            path.chmod(0o755)
        directory = place / "0-1"
        directory.mkdir()
        seen = await _run(host, settings, spawner, directory, source, passage)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    expected = _EXPECTED if passage is None else {**_EXPECTED, "egress": True}
    wrong = {key: seen.get(key) for key, value in expected.items() if seen.get(key) != value}
    if wrong:
        raise CannotStart(f"from inside the sandbox looks wrong: {wrong}")


async def _run(  # noqa: PLR0913, PLR0917 - what a start takes
    host: Host,
    settings: ProcessSettings,
    spawner: Spawner,
    directory: Path,
    source: Path,
    passage: Passage | None,
) -> dict[str, object]:
    name = f"probe-{os.getpid()}"
    slot = Slot(0, 1)
    workload = Workload(
        *("probe", "probe", name, "python", ("main.py",), (), "{}", "", _LIMITS, "process", 0.0, ""),
        doors=(Door.EGRESS,) if passage is not None else (),
    )
    paths = host.cgroups.directories(group_name(name, slot)) if host.cgroups else ()
    record = Record(
        control_plane=settings.control_plane,
        namespace="probe",
        plugin="probe",
        plugin_uid=name,
        slot=slot,
        revision="",
        uid=settings.uid_base + settings.uid_count if os.geteuid() == 0 else None,
        cgroups=tuple(str(path) for path in paths),
        bwrap=host.bwrap_identity,
        root=host.roots["python"][0].name,
        created_at=time.time(),
        doors=workload.doors,
    )
    save(record, directory)
    live = Live(record, directory)
    make_pipe(directory, record.uid)
    pipe = os.open(directory / PIPE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        prospect = Prospect(record, directory, source, live.doors, passage=passage)
        live.record, live.pidfd = await launch(host, spawner, workload, prospect)
        await _end(live.pidfd)
        said = os.read(pipe, 1 << 16)
    except BlockingIOError:
        said = b""
    finally:
        os.close(pipe)
        live.doors.close()
        await live.destroy()
        if live.pidfd is not None:
            os.close(live.pidfd)
        groups.remove(live.cgroups)
        discard(directory)
    try:
        seen = json.loads(said)
    except ValueError as error:
        raise CannotStart(said.decode(errors="replace").strip() or "it said nothing") from error
    return dict(seen)


async def _end(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, settle, ended)
    try:
        await asyncio.wait_for(ended, _SECONDS)
    except TimeoutError as error:
        raise CannotStart(f"it did not end in {_SECONDS:g} s") from error
    finally:
        loop.remove_reader(pidfd)
