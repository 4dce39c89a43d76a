"""kopf and the official Python client, unchanged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import kopf
import kubernetes
import kubernetes.aio as kube
import pytest
from probe import PLUGINS, Probe, plugin, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crucible.control.apiserver import ApiServer


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Any]:
    configuration = kube.client.Configuration()
    await kube.config.load_kube_config(str(server.kubeconfig), client_configuration=configuration)
    async with kube.client.ApiClient(configuration) as ready:
        yield ready


async def test_the_official_client_reads_and_writes(client: Any) -> None:
    custom, core = kube.client.CustomObjectsApi(client), kube.client.CoreV1Api(client)
    where = ("probe.dev", "v1", "default", "plugins")
    await custom.create_namespaced_custom_object(*where, plugin("a"))
    patched = await custom.patch_namespaced_custom_object(
        *where, "a", {"spec": {"image": "y1"}}, _content_type="application/merge-patch+json"
    )
    assert patched["spec"]["image"] == "y1"
    names = [item.metadata.name for item in (await core.list_namespace()).items]
    assert names == ["default", "kube-system"]
    secret = kube.client.V1Secret(metadata=kube.client.V1ObjectMeta(name="s"), string_data={"a": "b"})
    assert (await core.create_namespaced_secret("default", secret)).data == {"a": "Yg=="}
    await core.patch_namespaced_secret("s", "default", {"metadata": {"labels": {"l": "1"}}})
    await core.delete_namespaced_secret("s", "default")
    assert (await core.list_namespaced_pod("default")).items == []


async def test_the_official_client_watches(client: Any, probe: Probe) -> None:
    custom = kube.client.CustomObjectsApi(client)
    await probe.post(PLUGINS, plugin("a"))
    watch = kube.watch.Watch()
    found = []
    async for event in watch.stream(
        custom.list_namespaced_custom_object, "probe.dev", "v1", "default", "plugins", timeout_seconds=60
    ):
        found.append((event["type"], event["object"]["metadata"]["name"]))
        if len(found) == 1:
            await probe.delete(f"{PLUGINS}/a")
        else:
            break
    await watch.close()
    assert found == [("ADDED", "a"), ("DELETED", "a")]


async def test_the_synchronous_client_works_too(server: ApiServer) -> None:
    where = ("probe.dev", "v1", "default", "plugins")

    def use() -> list[tuple[str, str]]:
        configuration = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(server.kubeconfig), client_configuration=configuration)
        with kubernetes.client.ApiClient(configuration) as ready:
            custom = kubernetes.client.CustomObjectsApi(ready)
            custom.create_namespaced_custom_object(*where, plugin("a"))
            custom.patch_namespaced_custom_object(*where, "a", {"spec": {"image": "y1"}})
            watch, seen = kubernetes.watch.Watch(), []
            for event in watch.stream(custom.list_namespaced_custom_object, *where, timeout_seconds=60):
                seen.append((event["type"], event["object"]["spec"]["image"]))
                if event["type"] == "DELETED":
                    watch.stop()
                else:
                    custom.delete_namespaced_custom_object(*where, "a")
            names = kubernetes.client.CoreV1Api(ready).list_namespace().items
            assert [item.metadata.name for item in names] == ["default", "kube-system"]
            return seen

    assert await asyncio.to_thread(use) == [("ADDED", "y1"), ("DELETED", "y1")]


async def test_leases_as_leader_election_writes_them(probe: Probe) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec}
    made = await probe.post(path, body)
    taken = {**made.body, "spec": {**spec, "holderIdentity": "you"}}
    assert (await probe.put(f"{path}/l", taken)).code == 200
    late = await probe.put(f"{path}/l", {**made.body, "spec": {**spec, "holderIdentity": "they"}})
    assert late.code == 409


async def test_kopf_sees_every_step_of_a_life(
    server: ApiServer, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
    steps: list[str] = []

    @kopf.daemon("probe.dev", "v1", "plugins", registry=registry)
    async def host(stopped: Any, **_: Any) -> None:
        steps.append("started")
        await stopped.wait()
        steps.append("stopped")

    @kopf.on.event("probe.dev", "v1", "plugins", registry=registry)
    async def wake(event: Any, **_: Any) -> None:
        steps.append(str(event["type"]))

    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = "probe.dev/test"
    settings.posting.enabled = False
    stop = asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True, stop_flag=stop)
    )
    await probe.post(PLUGINS, plugin("a"))

    async def has(step: str) -> bool:
        return step in steps

    await until(lambda: has("started"))
    await probe.patch(f"{PLUGINS}/a", {"spec": {"image": "y1"}})
    await probe.delete(f"{PLUGINS}/a")
    await probe.until(f"{PLUGINS}/a", lambda reply: reply.code == 404)
    await until(lambda: has("DELETED"))
    stop.set()
    await operator
    assert steps.index("started") < steps.index("stopped") < steps.index("DELETED")
