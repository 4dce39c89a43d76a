"""Takes each control away from what the compilers made, one by one: the suite has to notice from inside.

A few in every run; all with ``make mutants`` (``CRUCIBLE_LONG=1``). Whatever is taken away, the suite does no
harm: it goes nowhere that it finds a route to, and takes no more than a few times what it may.
"""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from crucible.breakout import trial
from crucible.breakout.trial import Sources
from crucible.breakout.verdict import tallies
from crucible.errors import Unavailable
from crucible.runtimes.docker import starting
from crucible.runtimes.process import argv, launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import ProcessHarness
    from harness_docker import DockerHarness

LONG = bool(os.environ.get("CRUCIBLE_LONG"))
Words = tuple[str, ...]


def without(*words: str) -> Callable[[Words], Words]:
    """Take an option away, with what follows it."""

    def change(given: Words) -> Words:
        at = next(n for n in range(len(given)) if given[n : n + len(words)] == words)
        return given[:at] + given[at + len(words) :]

    return change


def instead(old: str, new: str, beside: str = "") -> Callable[[Words], Words]:
    """Put another option in an option's place: that which is ``beside`` a word, or each."""

    def change(given: Words) -> Words:
        chosen = [
            n for n, word in enumerate(given) if word == old and (not beside or beside in given[n : n + 3])
        ]
        assert chosen, (old, beside)
        return tuple(new if n in chosen else word for n, word in enumerate(given))

    return change


def unnamed_words(given: Words) -> Words:
    """Take the host name away."""
    at = given.index("--hostname")
    return given[:at] + given[at + 2 :]


def unsized(given: Words) -> Words:
    """Take the size away from every tmpfs."""
    kept = list(given)
    while "--size" in kept:
        at = kept.index("--size")
        del kept[at : at + 2]
    return tuple(kept)


SHAPE: dict[str, Callable[[Words], Words]] = {
    "a process namespace": without("--unshare-pid"),
    "a network namespace": without("--unshare-net"),
    "an IPC namespace": without("--unshare-ipc"),
    "a host name's namespace": without("--unshare-uts"),
    "a cgroup namespace": without("--unshare-cgroup"),
    "the end of user namespaces": without("--disable-userns"),
    "a session": without("--new-session"),
    "an empty environment": without("--clearenv"),
    "the filter": without("--seccomp", str(argv.SECCOMP_FD)),
}
FILES: dict[str, Callable[[Words], Words]] = {
    "a read-only root": instead("--ro-bind", "--bind", "/"),
    "a read-only source": instead("--ro-bind", "--bind", "/plugin"),
    "a read-only configuration": instead("--ro-bind-data", "--bind-data"),
    "sizes of scratch space": unsized,
    "a root of its own": instead(argv.SHOWN.root, "/"),
}
RLIMITS = {
    "a limit of files": resource.RLIMIT_NOFILE,
    "a limit of cores": resource.RLIMIT_CORE,
    "a limit of locked memory": resource.RLIMIT_MEMLOCK,
    "a limit of messages": resource.RLIMIT_MSGQUEUE,
}
GROUPS: dict[str, dict[str, int]] = {
    "a limit of memory": {"memory": 8 << 30},
    "a limit of processes": {"pids": 20_000},
    "a limit of processor time": {"cpu": 64_000},
}
IDENTITY = "a user of its own"
PROCESS = [*SHAPE, *FILES, *RLIMITS, *GROUPS, IDENTITY]
PROCESS_SHORT = ["a network namespace", "a limit of processes"]


def host_config(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change fields of a container's host configuration; None takes one away."""

    def change(body: dict[str, Any]) -> None:
        for name, value in changes.items():
            assert name in body["HostConfig"] or value is not None
            body["HostConfig"][name] = value

    return change


def option(position: int) -> Callable[[dict[str, Any]], None]:
    """Take a security option away."""

    def change(body: dict[str, Any]) -> None:
        given = body["HostConfig"]["SecurityOpt"]
        gone = given.pop(position)
        if gone.startswith("seccomp="):
            given.append("seccomp=unconfined")

    return change


def ulimit(name: str) -> Callable[[dict[str, Any]], None]:
    """Take an rlimit away."""

    def change(body: dict[str, Any]) -> None:
        given = body["HostConfig"]["Ulimits"]
        body["HostConfig"]["Ulimits"] = [limit for limit in given if limit["Name"] != name]

    return change


def scratch(word: str) -> Callable[[dict[str, Any]], None]:
    """Take an option away from scratch space."""

    def change(body: dict[str, Any]) -> None:
        given = body["HostConfig"]["Tmpfs"]
        for path, options in given.items():
            given[path] = ",".join(one for one in options.split(",") if not one.startswith(word))
            if word in {"nosuid", "nodev"}:
                given[path] += f",{word.removeprefix('no')}"

    return change


def writable(body: dict[str, Any]) -> None:
    for mount in body["HostConfig"]["Mounts"]:
        mount["ReadOnly"] = False


def as_root(body: dict[str, Any]) -> None:
    body["User"] = "0:0"


def unnamed(body: dict[str, Any]) -> None:
    body["HostConfig"]["UTSMode"] = "host"
    body["Hostname"] = ""  # engines take no name where the namespace is the host's


def unguarded(body: dict[str, Any]) -> None:
    """With the filter alone no container starts without ``no-new-privileges``."""
    body["HostConfig"]["SecurityOpt"] = ["seccomp=unconfined"]


DOCKER: dict[str, Callable[[dict[str, Any]], None]] = {
    "a user of its own": as_root,
    "a read-only root": host_config(ReadonlyRootfs=False),
    "no capabilities": host_config(CapDrop=[]),
    "no privilege gain": option(0),
    "the filter": option(1),
    "all that holds it": host_config(Privileged=True),
    "an IPC namespace": host_config(IpcMode="host"),
    "a cgroup namespace": host_config(CgroupnsMode="host"),
    "a process namespace": host_config(PidMode="host"),
    "a host name's namespace": unnamed,
    "no privilege gain, and the filter": unguarded,
    "no network": host_config(NetworkMode="bridge"),
    "a limit of memory": host_config(Memory=0, MemorySwap=0),
    "a limit of swap": host_config(MemorySwap=-1),
    "a limit of processor time": host_config(NanoCpus=0),
    "a limit of processes": host_config(PidsLimit=0),
    "a limit of files": ulimit("nofile"),
    "a limit of cores": ulimit("core"),
    "a size of shared memory": host_config(ShmSize=256 << 20),
    "a size of scratch space": scratch("size="),
    "no set-uid in scratch space": scratch("nosuid"),
    "no devices in scratch space": scratch("nodev"),
    "read-only mounts": writable,
}
DOCKER_SHORT = ["no capabilities"]


ALONE = {"a limit of memory": trial._memory, "a limit of processor time": trial._processor}
"""Programs that exhaust what is no longer limited."""
NEVER_RAN = "never ran:"
CANNOT_RUN = {"a root of its own", "no privilege gain"}
"""Without these no sandbox starts, which is noticed too."""


async def noticed(harness: Any, place: Path, alone: Any = None) -> list[str]:
    """Run what of the suite is about every control, and return what it found amiss."""
    made = Sources(place / "suite")
    for name in ("breakout", "breakout-alone"):
        (harness.sources / name).symlink_to(made.path_of(name))
    bait = place / "bait"
    bait.mkdir(mode=0o755)
    try:
        checks = (await trial.attempt(harness.runtime, bait, routes_only=True)).checks
        if alone is not None:
            checks = (*(check for check in await alone(harness.runtime)), *checks)
    except Unavailable as error:
        return [f"{NEVER_RAN} {error}"]
    counted = tallies(harness.runtime.capabilities, checks)
    return [f"{check.name}: {check.detail}" for tally in counted for check in tally.failures]


def judge(what: str, found: list[str]) -> None:
    """A program that ran and was let through is what counts; print it for whoever reads ``make mutants``."""
    print(f"without {what}: {len(found)} noticed, the first: {found[:1]}")  # noqa: T201 - for whoever reads it
    assert found
    assert found[0].startswith(NEVER_RAN) == (what in CANNOT_RUN), found


@pytest.mark.parametrize("what", PROCESS if LONG else PROCESS_SHORT)
async def test_a_sandbox_that_lacks_one_control_is_noticed(
    process: ProcessHarness, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's sandboxes lack some controls by themselves: run the tests as root")
    if what in SHAPE:
        real = argv.command_line
        monkeypatch.setattr(argv, "command_line", lambda *a, **k: SHAPE[what](real(*a, **k)))
        if what == "a host name's namespace":  # bubblewrap takes no name without it
            named = argv.confirmation
            monkeypatch.setattr(argv, "confirmation", lambda *a, **k: unnamed_words(named(*a, **k)))
    elif what in FILES:
        whole = argv.confirmation
        monkeypatch.setattr(argv, "confirmation", lambda *a, **k: FILES[what](whole(*a, **k)))
    elif what in RLIMITS:
        limits = launch.rlimits
        gone = RLIMITS[what]
        hard = resource.getrlimit(gone)[1]
        monkeypatch.setattr(
            launch, "rlimits", lambda *a, **k: tuple(one for one in limits(*a, **k) if one[0] != gone)
        )
        if gone == resource.RLIMIT_MEMLOCK and hard <= 64 << 10:
            pytest.skip("this host's own limit is as low")
    elif what in GROUPS:
        groups = process.runtime._prepared.host.cgroups  # type: ignore[attr-defined]
        make = type(groups).make
        monkeypatch.setattr(
            type(groups), "make", lambda self, name, given: make(self, name, replace(given, **GROUPS[what]))
        )
    else:
        started = launch.Launch
        monkeypatch.setattr(launch, "Launch", lambda **given: started(**given | {"uid": None}))
    judge(what, await noticed(process, tmp_path, ALONE.get(what)))


@pytest.mark.parametrize("what", DOCKER if LONG else DOCKER_SHORT)
async def test_a_container_that_lacks_one_control_is_noticed(
    docker: DockerHarness, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = starting.body

    def body(*given: Any) -> dict[str, Any]:
        made = real(*given)
        DOCKER[what](made)
        return made

    monkeypatch.setattr(starting, "body", body)
    judge(what, await noticed(docker, tmp_path, ALONE.get(what)))
