"""What only the Docker runtime promises about the inside of a container; the suite tries the rest."""

from __future__ import annotations

import json
import platform
import signal
from typing import TYPE_CHECKING

import pytest
from harness import FIRST

from crucible.core.profiles import PROFILES
from crucible.core.seccomp_json import document

if TYPE_CHECKING:
    from harness_docker import DockerHarness

IDS = "import os; print(os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *os.getgroups())"


async def test_the_user_is_the_instances_own(docker: DockerHarness) -> None:
    workload = docker.script(IDS)
    await docker.run(workload)
    (line,) = await docker.lines(workload)
    assert set(line.split()) == {str(docker.settings().first_uid).encode()}


async def test_the_engine_says_that_it_runs_what_was_asked(docker: DockerHarness) -> None:
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    found = docker.client.inspect_container(docker.container(workload))
    host, limits = found["HostConfig"], workload.limits
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert (host["CapAdd"] or [], host["CapDrop"]) == ([], ["ALL"])
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("", "", "")
    assert (host["IpcMode"], host["CgroupnsMode"], host["NetworkMode"]) == ("private", "private", "none")
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (
        *(limits.memory, limits.memory, limits.pids),
    )
    assert host["NanoCpus"] == limits.cpu * 1_000_000
    assert (host["Devices"] or [], host["DeviceRequests"] or [], host["Binds"] or []) == ([], [], [])
    assert all(mount["ReadOnly"] for mount in host["Mounts"])
    privileges, filtered = host["SecurityOpt"]
    assert privileges == "no-new-privileges"
    assert json.loads(filtered.removeprefix("seccomp=")) == json.loads(
        document(PROFILES["python"], (docker.client.info()["Architecture"],))
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a second machine of x86_64's")
async def test_a_call_of_another_machine_ends_the_program(docker: DockerHarness) -> None:
    ended = await docker.run(docker.script("import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39)"))
    assert ended.exit is not None
    assert ended.exit.signal == signal.SIGSYS
