"""What the Kubernetes runtime promises to whoever stands above it, beyond what a plugin's life shows."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from kubelet import Fate

from crucible.control.cluster import ClusterClient
from crucible.control.kubeconfig import load_endpoint
from crucible.errors import NotFound, Unavailable, Unsupported
from crucible.model.instance import State
from crucible.model.workload import Limits, Slot, Workload, config_digest
from crucible.runtimes.kubernetes import KubernetesRuntime, KubernetesSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ground import LocalGround

FIRST = Slot(0, 1)
UID = "u-1"


def workload(**changes: Any) -> Workload:
    return Workload(
        **{
            "namespace": "default",
            "plugin": "p",
            "plugin_uid": UID,
            "type": "python",
            "entrypoint": ("main.py",),
            "env": (),
            "config": "{}",
            "source": "sha256:0",
            "limits": Limits(cpu=100, memory=1 << 24, pids=8, disk=1 << 20, open_files=64),
            "isolation": "container",
            "grace": 5.0,
            "restart": "",
            **changes,
        }
    )


@pytest.fixture
async def owned(local: LocalGround) -> Workload:
    """A workload whose Plugin is there: what belongs to nobody is collected."""
    plugin = await local.apply("p", suspend=True)
    return workload(plugin_uid=plugin["metadata"]["uid"])


@asynccontextmanager
async def opened(local: LocalGround, heard: list[str]) -> AsyncIterator[KubernetesRuntime]:
    find = partial(load_endpoint, local.kubeconfig())
    async with ClusterClient(find) as client:
        runtime = KubernetesRuntime(client, KubernetesSettings(), lambda _: {"main.py": ""}, time.time)
        await runtime.open(heard.append)
        yield runtime
        await runtime.close()


async def test_every_verb_is_idempotent_and_the_next_controller_finds_what_runs(
    local: LocalGround, owned: Workload
) -> None:
    heard: list[str] = []
    uid = owned.plugin_uid
    async with opened(local, heard) as runtime:
        first = await runtime.start(owned, FIRST)
        assert (await runtime.start(owned, FIRST)).name == first.name
        await local.until(lambda: runtime.instances(uid)[0].state is State.RUNNING)
        assert uid in heard
    async with opened(local, heard) as runtime:
        (found,) = runtime.instances(uid)
        assert (found.name, found.revision, found.source) == (first.name, owned.revision, owned.source)
        assert (await runtime.start(owned, FIRST)).state is State.RUNNING
        for _ in range(2):
            await runtime.stop(uid, FIRST)
        await local.until(lambda: not runtime.instances(uid)[0].alive)
        assert runtime.instances(uid)[0].stopping_at is not None
        await runtime.kill(uid, FIRST)
        for _ in range(2):
            await runtime.remove(uid, FIRST)
        assert runtime.instances(uid) == ()
        assert not runtime.broken
    assert not (await local.client.get(local.path("pods")))["items"]


async def test_what_ended_stays_until_it_is_removed(local: LocalGround, owned: Workload) -> None:
    local.kubelet.fates["p"] = Fate(code=3)
    async with opened(local, []) as runtime:
        await runtime.start(owned, FIRST)
        await local.until(lambda: not runtime.instances()[0].alive)
        (ended,) = runtime.instances()
        assert ended.exit is not None
        assert ended.exit.code == 3
        assert ended.stopping_at is None


async def test_output_comes_with_its_times_and_a_tail_is_the_end_of_it(
    local: LocalGround, owned: Workload
) -> None:
    local.output.lines["p-0-1"] = [b"one", b"two  words", b""]
    uid = owned.plugin_uid
    async with opened(local, []) as runtime:
        await runtime.start(owned, FIRST)
        lines = [line async for line in runtime.logs(uid, FIRST, tail=None, follow=False)]
        assert [line.text for line in lines] == [b"one", b"two  words", b""]
        assert lines[0].at > 1_700_000_000
        assert [line.text async for line in runtime.logs(uid, FIRST, tail=1, follow=False)] == [b""]
        with pytest.raises(NotFound):
            runtime.logs(uid, Slot(0, 9), tail=None, follow=False)


async def test_what_it_cannot_do_it_says(local: LocalGround, owned: Workload) -> None:
    async with opened(local, []) as runtime:
        await runtime.start(owned, FIRST)
        with pytest.raises(Unsupported, match="kubectl exec"):
            await runtime.exec(owned.plugin_uid, FIRST, ["sh"], stdin=False, tty=False)
        with pytest.raises(NotFound):
            await runtime.exec(owned.plugin_uid, Slot(0, 9), ["sh"], stdin=False, tty=False)
        with pytest.raises(Unavailable, match="no metrics of p-0-1"):
            await runtime.usage(owned.plugin_uid, FIRST)
        assert await runtime.usage(owned.plugin_uid, Slot(0, 9)) is None


async def test_a_cluster_that_does_not_answer_is_an_outage_until_it_does(
    local: LocalGround, owned: Workload
) -> None:
    local.faults.away = True
    heard: list[str] = []
    async with opened(local, heard) as runtime:
        assert "cannot be followed" in runtime.outage
        local.faults.away = False
        await local.until(lambda: not runtime.outage)
        await runtime.start(owned, FIRST)
        local.faults.away = True
        local.faults.cut()
        await local.until(lambda: runtime.outage)
        assert owned.plugin_uid in heard
        assert [found.name for found in runtime.instances()] == ["p-0-1"]


async def test_files_that_somebody_put_in_the_way_are_not_run(local: LocalGround, owned: Workload) -> None:
    async with opened(local, []) as runtime:
        await runtime.start(owned, FIRST)
        (mine,) = (await local.client.get(local.path("configmaps")))["items"]
        await local.client.delete(local.path("configmaps", mine["metadata"]["name"]))
        forged = {"name": mine["metadata"]["name"]}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": forged, "data": {"f0": "evil"}}
        await local.client.create(local.path("configmaps"), body)
        second = await runtime.start(owned, Slot(0, 2))
        assert second.exit is not None
        assert "belongs to someone else" in second.exit.problem


async def selected(local: LocalGround) -> set[str]:
    """Return the pods that the plugin's Service selects."""
    service = await local.client.get(local.path("services", "p"))
    wanted = service["spec"]["selector"].items()
    pods = await local.pods("p")
    return {pod["metadata"]["name"] for pod in pods if wanted <= pod["metadata"]["labels"].items()}


async def test_new_connections_go_where_they_are_sent_also_after_a_restart(
    local: LocalGround, owned: Workload
) -> None:
    uid, second = owned.plugin_uid, Slot(0, 2)
    listens = workload(plugin_uid=uid, listen=(8080,))
    async with opened(local, []) as runtime:
        await runtime.start(listens, FIRST)
        assert await selected(local) == {"p-0-1"}
        await runtime.route(uid, (FIRST,))
        await runtime.start(workload(plugin_uid=uid, listen=(8080,), config='{"a": 1}'), second)
        await local.until(lambda: all(one.state is State.RUNNING for one in runtime.instances(uid)))
        assert [one.reached for one in runtime.instances(uid)] == [True, False]
        assert await selected(local) == {"p-0-1"}
    async with opened(local, []) as runtime:
        assert [one.reached for one in runtime.instances(uid)] == [True, False]
        for _ in range(2):
            await runtime.route(uid, (second,))
        assert [one.reached for one in runtime.instances(uid)] == [False, True]
        assert await selected(local) == {"p-0-2"}
        await runtime.route(uid, ())
        assert [one.reached for one in runtime.instances(uid)] == [True, True]
        assert await selected(local) == {"p-0-1", "p-0-2"}
        await runtime.kill(uid, FIRST)
        await runtime.route(uid, (FIRST, second))
        assert not runtime.broken


async def test_who_is_reached_is_read_from_the_cluster_whoever_changes_it(
    local: LocalGround, owned: Workload
) -> None:
    uid = owned.plugin_uid
    async with opened(local, []) as runtime:
        await runtime.start(workload(plugin_uid=uid, listen=(8080,)), FIRST)
        await runtime.route(uid, (FIRST,))
        labels = {"metadata": {"labels": {"crucible.dev/reached": "no"}}}
        await local.client.patch(local.path("pods", "p-0-1"), labels)
        await local.until(lambda: not runtime.instances(uid)[0].reached)
        await runtime.route(uid, (FIRST,))
        assert await selected(local) == {"p-0-1"}


async def config_of(local: LocalGround, pod: str) -> str:
    """Return what the kubelet shows a pod as its configuration."""
    (found,) = [each for each in await local.pods() if each["metadata"]["name"] == pod]
    (volume,) = [each["configMap"] for each in found["spec"]["volumes"] if each["name"] == "config"]
    shown = await local.client.get(local.path("configmaps", volume["name"]))
    return str(shown["data"]["config.json"])


async def shown_to(local: LocalGround) -> dict[str, dict[str, str]]:
    """Return what is in the ConfigMaps of single pods."""
    found = (await local.client.get(local.path("configmaps")))["items"]
    names = {each["metadata"]["name"]: each["data"] for each in found}
    return {name: data for name, data in names.items() if name.endswith("-config")}


async def test_a_pod_is_given_a_configuration_while_it_runs_and_no_other_is(
    local: LocalGround, owned: Workload
) -> None:
    uid, second = owned.plugin_uid, Slot(1, 2)
    live = workload(plugin_uid=uid, delivery="file", config='{"a": 1}')
    async with opened(local, []) as runtime:
        for slot in (FIRST, second):
            await runtime.start(live, slot)
        assert {one.config for one in runtime.instances(uid)} == {config_digest('{"a": 1}')}
        for _ in range(2):
            await runtime.deliver(uid, FIRST, '{"a": 2}', signal=False)
        assert await config_of(local, "p-0-1") == '{"a": 2}'
        assert await config_of(local, "p-1-2") == '{"a": 1}'
        with pytest.raises(Unsupported, match="signalled"):
            await runtime.deliver(uid, FIRST, "{}", signal=True)
    async with opened(local, []) as runtime:
        given = [one.config for one in runtime.instances(uid)]
        assert given == [config_digest('{"a": 2}'), config_digest('{"a": 1}')]
        for slot in (FIRST, second):
            await runtime.kill(uid, slot)
            await runtime.deliver(uid, slot, "{}", signal=False)
            await runtime.remove(uid, slot)
        assert not runtime.broken
    assert await shown_to(local) == {}


async def test_a_configuration_that_somebody_put_in_the_way_is_not_shown_or_changed(
    local: LocalGround, owned: Workload
) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "crucible-p-0-1-config"}}
    await local.client.create(local.path("configmaps"), {**body, "data": {"config.json": "theirs"}})
    async with opened(local, []) as runtime:
        found = await runtime.start(workload(plugin_uid=owned.plugin_uid, delivery="file"), FIRST)
        assert found.exit is not None
        assert "belongs to someone else" in found.exit.problem
        await runtime.remove(owned.plugin_uid, FIRST)
    assert await shown_to(local) == {"crucible-p-0-1-config": {"config.json": "theirs"}}
