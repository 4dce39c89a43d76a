"""Answers that are lost, late or stale: what is known comes to what is."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import requests
from docker import APIClient
from docker.errors import APIError
from harness import FIRST, wait_for

from crucible.errors import Unavailable
from crucible.model.instance import State
from crucible.runtimes.docker import containers
from crucible.runtimes.docker import labels as marks
from crucible.runtimes.docker import network as bodies
from crucible.runtimes.docker.body import Image
from crucible.runtimes.docker.deaths import Death
from crucible.runtimes.docker.groups import Groups

if TYPE_CHECKING:
    from harness_docker import DockerHarness

    from crucible.model.workload import Workload
    from crucible.runtimes.docker.events import Happened

LEARNS = pytest.mark.skipif(
    tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 15),
    reason="before Linux 6.15 the engine alone is told how a container ended",
)


async def test_a_start_whose_answer_was_lost_is_found_and_not_repeated(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = docker.workload("stay")
    really = APIClient.start

    def lose(client: APIClient, name: str) -> None:
        really(client, name)
        raise requests.ReadTimeout("timed out")

    with monkeypatch.context() as patched:
        patched.setattr(APIClient, "start", lose)
        with pytest.raises(Unavailable, match="does not answer in time"):
            await docker.runtime.start(workload, FIRST)
    await wait_for(lambda: bool(docker.runtime.instances(workload.plugin_uid)))
    found = await docker.until(workload, lambda one: one.state is State.RUNNING)
    assert await docker.runtime.start(workload, FIRST) == found
    assert len(docker._containers()) == 1
    await docker.runtime.deliver(workload.plugin_uid, FIRST, "{}", signal=False)  # all it is shown is there


async def test_a_container_that_is_shown_what_is_gone_is_ended_with_a_reason(docker: DockerHarness) -> None:
    """As one that an engine starts when its start was given up long ago."""
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    await docker.runtime.close()
    shutil.rmtree(docker.place / "docker/instances")
    await docker.open()
    ended = await docker.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    assert "is gone" in ended.exit.problem
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert docker.leftovers() == []


async def test_a_create_whose_answer_was_lost_is_cleared_and_made_anew(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = docker.workload("stay")
    really = APIClient.create_container_from_config

    def lose(client: APIClient, *words: Any) -> None:
        really(client, *words)
        raise requests.ReadTimeout("timed out")

    with monkeypatch.context() as patched:
        patched.setattr(APIClient, "create_container_from_config", lose)
        with pytest.raises(Unavailable):
            await docker.runtime.start(workload, FIRST)
    await docker.runtime.start(workload, FIRST)
    await docker.says(workload, b"staying")
    assert len(docker._containers()) == 1


async def test_a_container_that_does_not_end_is_said(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    with monkeypatch.context() as patched:
        patched.setattr(APIClient, "kill", lambda *_: None)
        patched.setattr(containers, "_END_SECONDS", 0.2)
        with pytest.raises(Unavailable, match="does not end p-0-1: look at its log"):
            await docker.runtime.kill(workload.plugin_uid, FIRST)
    assert docker.instance(workload).alive
    await docker.runtime.kill(workload.plugin_uid, FIRST)
    assert not docker.instance(workload).alive


async def test_an_end_that_the_engines_list_does_not_know_yet_is_adopted_as_one(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = docker.workload("exit:3")
    await docker.run(workload)
    really = APIClient.containers

    def stale(client: APIClient, **options: Any) -> Any:
        return [entry | {"State": "running"} for entry in really(client, **options)]

    with monkeypatch.context() as patched:
        patched.setattr(APIClient, "containers", stale)
        await docker.reopen()
        found = docker.instance(workload)
    assert found.exit is not None
    assert found.exit.code == 3


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[Death]:
    """What the kernel tells of ends, to runtimes that are opened from here on.

    Whether memory was the reason is not asked: an engine may clear the group away before a busy loop looks.
    """
    told: list[Death] = []
    really = containers.Containers._died

    def listen(known: containers.Containers, container: str, death: Death) -> None:
        told.append(death)
        really(known, container, death)

    monkeypatch.setattr(containers.Containers, "_died", listen)
    monkeypatch.setattr(Groups, "over_memory", lambda *_: False)
    return told


def hold_back(docker: DockerHarness) -> list[Happened]:
    """Keep from the runtime what the engine tells; return the list of it, which grows."""
    told: list[Happened] = []

    def keep(event: Happened) -> bool:
        told.append(event)
        return True

    docker.runtime._connection._happened = keep
    return told


async def strike(docker: DockerHarness, workload: Workload) -> None:
    """Kill a container's first process while the loop goes on: what watches is there as it ends."""
    await asyncio.to_thread(docker.client.kill, docker.container(workload), "SIGKILL")


@LEARNS
async def test_an_end_is_known_before_the_engine_tells_and_deleted_after(
    docker: DockerHarness, deaths: list[Death]
) -> None:
    await docker.reopen()
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    hear = docker.runtime._connection._happened
    told = hold_back(docker)
    await strike(docker, workload)
    ended = await docker.until(workload, lambda one: not one.alive)
    assert deaths == [Death(code=137, oom=False)]
    assert ended.exit is not None
    assert (ended.exit.signal, ended.exit.oom) == (9, False)
    removing = asyncio.create_task(docker.runtime.remove(workload.plugin_uid, FIRST))
    await wait_for(lambda: any(event.kind == "die" for event in told))
    assert not removing.done()
    assert len(docker._containers()) == 1
    for event in told:
        hear(event)
    await removing
    assert docker.leftovers() == []


@LEARNS
async def test_one_that_was_adopted_is_watched_too(docker: DockerHarness, deaths: list[Death]) -> None:
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    await docker.reopen()
    hold_back(docker)
    await strike(docker, workload)
    ended = await docker.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    assert ended.exit.signal == 9
    assert deaths == [Death(code=137, oom=False)]


async def test_a_container_that_someone_removes_is_an_end_with_a_reason(docker: DockerHarness) -> None:
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    docker.client.remove_container(docker.container(workload), force=True)
    ended = await docker.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert docker.leftovers() == []


async def test_what_dying_controllers_left_is_cleared_away(docker: DockerHarness) -> None:
    """Each of a start or an end that was cut off."""
    plane, client = docker.control_plane, docker.client
    image = docker.settings().image_of("python")
    labels = marks.labels_of(plane, docker.workload("stay"), FIRST, 1, 1.0)
    never = client.create_container(image, ["true"], name=marks.name_of(plane, "uid-p", FIRST), labels=labels)
    await docker.runtime.close()
    for arguments in (
        bodies.network_arguments(plane, "uid-old", (8080,)),
        bodies.edge_arguments(plane),
    ):
        client.create_network(**arguments)
    relay = bodies.relay_body(plane, "uid-old", (8080,), Image(id=image, before=("python3",), env=()), {})
    client.create_container_from_config(relay, bodies.relay_name(plane, "uid-old"))
    (docker.place / "docker/instances/uid-old/0-1").mkdir(parents=True)
    foreign = client.create_container(image, ["true"], labels=labels)
    try:
        await docker.open()
        await docker.runtime.sweep()
        await wait_for(lambda: docker.leftovers() == [], lambda: str(docker.leftovers()))
        assert client.inspect_container(foreign["Id"])  # our labels, and not our name: anyone can write them
    finally:
        client.remove_container(foreign["Id"])
    assert never


async def test_many_that_listen_and_start_at_once_share_one_network_of_relays(docker: DockerHarness) -> None:
    workloads = [docker.workload("stay", name=f"p{at}", listen=(8080,)) for at in range(6)]
    await asyncio.gather(*(docker.runtime.start(workload, FIRST) for workload in workloads))
    for workload in workloads:
        await docker.until(workload, lambda one: one.state is State.RUNNING and bool(one.endpoints))
    edge = bodies.edge_name(docker.control_plane)
    assert [each["Name"] for each in docker._networks()].count(edge) == 1
    for workload in workloads:
        await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert docker.leftovers() == []


async def test_networks_that_bear_one_name_are_made_one(docker: DockerHarness) -> None:
    arguments = {**bodies.edge_arguments(docker.control_plane), "check_duplicate": False}
    for _ in range(3):
        with contextlib.suppress(APIError):  # engines from 25 on refuse the second by themselves
            docker.client.create_network(**arguments)
    workload = docker.workload("stay", listen=(8080,))
    with contextlib.suppress(Unavailable):
        await docker.runtime.start(workload, FIRST)
    await docker.runtime.start(workload, FIRST)
    await docker.until(workload, lambda one: bool(one.endpoints))
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert docker.leftovers() == []


async def test_the_network_of_relays_alone_is_cleared_away(docker: DockerHarness) -> None:
    docker.client.create_network(**bodies.edge_arguments(docker.control_plane))
    await docker.runtime.sweep()
    await wait_for(lambda: docker.leftovers() == [], lambda: str(docker.leftovers()))


async def test_an_engine_that_refuses_a_survey_is_an_outage_and_not_the_end(
    docker: DockerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await docker.runtime.close()

    def refuse(client: APIClient, **_: Any) -> None:
        client._raise_for_status(client._get(client._url("/containers/%20/json")))

    with monkeypatch.context() as patched:
        patched.setattr(APIClient, "containers", refuse)
        await docker.open()
        assert "look at its log" in docker.runtime.outage
    await wait_for(lambda: not docker.runtime.outage)
