"""Plugins in containers that misbehave: each is held to its limits, as the kernel counts them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from harness import FIRST, LIMITS, MIB, SECONDS, wait_for
from test_process_contained import BOMB, FILES, FILLS, THREADS

from crucible.errors import Conflict
from crucible.model.instance import State
from crucible.runtimes.docker.groups import Groups

if TYPE_CHECKING:
    from harness_docker import DockerHarness


@pytest.mark.parametrize("program", [BOMB, THREADS], ids=["processes", "threads"])
async def test_no_more_processes_than_allowed(docker: DockerHarness, program: str) -> None:
    workload = docker.script(program, limits=replace(LIMITS, memory=512 * MIB))
    await docker.runtime.start(workload, FIRST)
    await docker.says_in_the_end(workload, b"made")
    (line,) = await docker.lines(workload)
    assert LIMITS.pids - 3 <= int(line.split()[1]) <= LIMITS.pids
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert docker.leftovers() == []


async def test_disk_is_held(docker: DockerHarness) -> None:
    workload = docker.script(FILLS)
    ended = await docker.run(workload)
    first, second, total = await docker.lines(workload)
    assert ended.exit is not None
    assert (ended.exit.code, first, second) == (0, b"28", b"28")
    assert int(total) <= LIMITS.disk


async def test_memory_of_a_tmpfs_counts(docker: DockerHarness) -> None:
    limits = replace(LIMITS, memory=16 * MIB, disk=256 * MIB)
    workload = docker.script(FILLS, limits=limits)
    await docker.run(workload)
    await docker.until(workload, lambda one: one.exit is not None and one.exit.oom)


async def test_open_files_are_held(docker: DockerHarness) -> None:
    workload = docker.script(FILES)
    await docker.run(workload)
    assert await docker.lines(workload) == [b"24 %d" % LIMITS.open_files]


async def test_the_hosts_crash_handler_cannot_be_called(docker: DockerHarness) -> None:
    workload = docker.script("print(open('/proc/self/limits').read())")
    await docker.run(workload)
    limits = {line[:26].strip(): line[26:].split()[:2] for line in await docker.lines(workload)}
    assert limits[b"Max core file size"] == [b"1", b"1"]


async def test_cpu_and_swap_are_held_by_the_kernel(docker: DockerHarness) -> None:
    workload = docker.script("while True: pass", limits=replace(LIMITS, cpu=200))
    await docker.runtime.start(workload, FIRST)
    config = docker.client.inspect_container(docker.container(workload))["HostConfig"]
    assert config["NanoCpus"] == 200_000_000
    assert config["MemorySwap"] == config["Memory"] == LIMITS.memory

    async def throttled() -> float:
        used = await docker.runtime.usage(workload.plugin_uid, FIRST)
        return used.throttled if used else 0.0

    async with asyncio.timeout(SECONDS):
        while not await throttled():
            await asyncio.sleep(0.02)


async def test_usage_is_the_kernels_count_here_and_the_engines_where_that_is_elsewhere(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    await docker.says(workload, b"staying")
    client, asked = docker.runtime._engine.client, []  # type: ignore[attr-defined]
    stats = client.stats
    monkeypatch.setattr(client, "stats", lambda *words, **more: asked.append(words) or stats(*words, **more))
    here = await docker.runtime.usage(workload.plugin_uid, FIRST)
    assert here is not None
    assert asked == [], "asking the engine costs a hundred times as much"
    containers = docker.runtime._containers  # type: ignore[attr-defined]
    monkeypatch.setattr(containers, "groups", Groups("tcp://elsewhere:2376"))
    there = await docker.runtime.usage(workload.plugin_uid, FIRST)
    assert there is not None
    assert len(asked) == 1
    assert there.cpu >= here.cpu > 0
    assert abs(there.memory - here.memory) < LIMITS.memory / 2
    assert there.pids == here.pids


async def test_a_start_is_two_requests_and_asks_for_nothing_twice(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await docker.runtime.start(docker.workload("stay", name="before"), FIRST)  # the image is known by now
    client, asked = docker.runtime._engine.client, []  # type: ignore[attr-defined]
    request = client.request

    def noted(method: str, url: str, **options: object) -> object:
        asked.append((method.upper(), url.partition("/containers/")[2].split("/")[-1]))
        return request(method, url, **options)

    monkeypatch.setattr(client, "request", noted)
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    await docker.until(workload, lambda one: one.state is State.RUNNING)
    assert asked == [("POST", "create"), ("POST", "start")]


async def test_isolation_vm_is_the_engines_runtime_for_that_and_everything_else_its_usual_one(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "io.containerd.runc.v2"  # a name that every engine knows beside that of its usual runtime
    monkeypatch.setattr(docker.runtime._engine, "vm_runtime", other)  # type: ignore[attr-defined]
    for isolation in ("vm", "container"):
        workload = docker.workload("stay", name=isolation, isolation=isolation)
        await docker.runtime.start(workload, FIRST)
        config = docker.client.inspect_container(docker.container(workload))["HostConfig"]
        assert (config["Runtime"] == other) == (isolation == "vm")


async def test_a_program_that_is_not_there_is_an_end_with_a_reason(docker: DockerHarness) -> None:
    source = docker.source("binary", {"present": "no program"})
    for name in ("absent", "present"):
        ended = await docker.run(docker.workload(name=name, type="binary", source=source, entrypoint=(name,)))
        assert ended.exit is not None
        assert f"the program cannot be executed: /plugin/{name}" in ended.exit.problem
        assert ended.exit.code is None


async def test_a_stranger_of_our_name_is_said_and_left_alone(docker: DockerHarness) -> None:
    workload = docker.workload("stay")
    name = docker.container(workload)
    made = docker.client.create_container("crucible/python:0.1.0", ["/x"], name=name)
    with pytest.raises(Conflict, match=r"is not ours is named .*: rename or remove it"):
        await docker.runtime.start(workload, FIRST)
    assert docker.client.inspect_container(name)["Id"] == made["Id"]
    assert docker.runtime.instances() == ()


async def test_a_container_by_hand_with_our_labels_is_not_adopted(docker: DockerHarness) -> None:
    labels = {
        "dev.crucible.control-plane": docker.control_plane,
        "dev.crucible.plugin-uid": "uid-forged",
        "dev.crucible.slot": "0-1",
        "dev.crucible.role": "instance",
    }
    made = docker.client.create_container(
        "crucible/python:0.1.0", ["/x"], name=f"by-hand-{docker.control_plane}", labels=labels
    )
    await docker.reopen()
    assert docker.runtime.instances() == ()
    assert docker.client.inspect_container(made["Id"])["State"]["Status"] == "created"


async def test_a_start_that_was_cut_off_is_cleared_and_made_anew(docker: DockerHarness) -> None:
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    first = docker.client.inspect_container(docker.container(workload))["Id"]
    held = docker.runtime._containers.get(workload.plugin_uid, FIRST)  # type: ignore[attr-defined]
    docker.runtime._containers.drop(held)  # type: ignore[attr-defined]
    await docker.runtime.start(workload, FIRST)
    second = docker.client.inspect_container(docker.container(workload))["Id"]
    assert first != second
    assert len(docker._containers()) == 1


async def test_followers_that_leave_leave_no_threads(docker: DockerHarness) -> None:
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    await docker.says(workload, b"staying")
    followers = [docker.runtime.logs(workload.plugin_uid, FIRST, tail=0, follow=True) for _ in range(20)]
    tasks = [asyncio.ensure_future(anext(follower)) for follower in followers]
    await wait_for(lambda: readers() == 20)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await wait_for(lambda: readers() == 0, lambda: str(readers()))


def readers() -> int:
    return sum(thread.name == "docker-logs" for thread in threading.enumerate())
