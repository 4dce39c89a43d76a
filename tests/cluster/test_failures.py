"""Everything that keeps a plugin from running on a cluster is said in a condition, with what to do."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from ground import condition
from kubelet import Fate

if TYPE_CHECKING:
    from ground import Ground, LocalGround

WAITING = {
    "ImagePullBackOff": "the image cannot be pulled",
    "ErrImagePull": "the image cannot be pulled",
    "CreateContainerConfigError": "is missing: make it",
}
REFUSALS = {
    "a webhook": (
        400,
        'admission webhook "policy.example.org" denied the request: no',
        "a rule of the cluster refused its pod",
    ),
    "pod security": (403, 'pods "p-0-1" is forbidden: violates PodSecurity "x"', "Pod Security"),
    "the schema": (422, "Pod is invalid: spec.x: Invalid value", "the cluster refused its pod"),
}
WAITS = {
    "a namespace that is only just there": (
        403,
        'error looking up service account default/default: serviceaccount "default" not found',
        "is not ready",
    ),
    "a quota": (403, "pods is forbidden: exceeded quota: small, requested: cpu=1", "raise it"),
    "a right": (403, 'User "op" cannot create resource "pods" in API group ""', "lacks a right"),
    "overload": (429, "too many requests", "too many requests"),
    "a fault": (500, "etcdserver: leader changed", "etcdserver"),
}


@pytest.mark.parametrize("reason", sorted(WAITING))
async def test_a_container_that_cannot_be_made_says_why(local: LocalGround, reason: str) -> None:
    local.kubelet.fates["p"] = Fate(waiting=reason, message="the node's words")
    local.start()
    await local.apply("p")
    await local.until_condition("p", "Degraded", reason, WAITING[reason], "the node's words")
    assert condition(await local.plugin("p"), "Ready")["status"] == "False"


async def test_a_pod_that_no_node_takes_says_why(local: LocalGround) -> None:
    local.kubelet.fates["p"] = Fate(unschedulable=True, message="0/3 nodes are available")
    local.start()
    await local.apply("p")
    await local.until_condition("p", "Degraded", "Unschedulable", "0/3 nodes are available", "add nodes")


@pytest.mark.parametrize("name", sorted(REFUSALS))
async def test_a_pod_that_the_cluster_refuses_is_a_failed_start(local: LocalGround, name: str) -> None:
    code, message, words = REFUSALS[name]
    local.faults.answer = lambda verb, path: (
        (code, message) if verb == "POST" and path.endswith("/pods") else None
    )
    local.start()
    await local.apply("p")
    await local.until_condition("p", "Degraded", words, message[:20])
    await local.until_condition("p", "Degraded", "CrashLoop")
    local.faults.answer = lambda _verb, _path: None
    await local.change("p", config={"mended": True})
    await local.until_ready("p")


@pytest.mark.parametrize("name", sorted(WAITS))
async def test_what_may_pass_by_itself_is_waited_for(local: LocalGround, name: str) -> None:
    code, message, words = WAITS[name]
    local.faults.answer = lambda verb, path: (
        (code, message) if verb == "POST" and path.endswith("/pods") else None
    )
    local.start()
    await local.apply("p")
    await local.until_condition("p", "Stalled", "RuntimeUnavailable", words)
    local.faults.answer = lambda _verb, _path: None
    plugin = await local.until_ready("p")
    assert plugin["status"]["restarts"] == 0


async def test_a_plugin_that_crashes_is_started_again_and_given_up_in_the_end(ground: Ground) -> None:
    if hasattr(ground, "kubelet"):
        ground.kubelet.fates["p"] = Fate(code=3)
    source = {"inline": {"main.py": "raise SystemExit(3)\n"}}
    await ground.apply("p", source=source, recovery={"maxRestarts": 2, "backoff": {"initial": "100ms"}})
    said = await ground.until_condition("p", "Degraded", "CrashLoop", "exited with status 3")
    assert "3 times" in said["message"]
    plugin = await ground.plugin("p")
    assert plugin["status"]["phase"] == "Quarantined"
    assert plugin["status"]["attempts"] == 3


@pytest.mark.parametrize("reason", ["Evicted", "NodeLost"])
async def test_a_plugin_that_its_node_gives_up_runs_elsewhere(local: LocalGround, reason: str) -> None:
    local.start()
    await local.apply("p")
    await local.until_ready("p")
    (pod,) = await local.pods("p")
    await local.kubelet.take(pod, reason, "the node was low on memory")

    async def again() -> bool:
        plugin = await local.plugin("p")
        replica = plugin["status"]["instances"][0]
        return bool(replica["attempt"] == 2 and "low on memory" in replica["lastExit"]["message"])

    await local.until(again)
    await local.until_ready("p")


async def test_a_pod_of_the_same_name_is_left_alone_and_named(local: LocalGround) -> None:
    theirs = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p-0-1"}, "spec": {"containers": []}}
    made = await local.client.create(local.path("pods"), theirs)
    local.start()
    await local.apply("p")
    await local.until_ready("p")
    plugin = await local.plugin("p")
    assert "belongs to someone else" in plugin["status"]["instances"][0]["lastExit"]["message"]
    left = await local.client.get(local.path("pods", "p-0-1"))
    assert left["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_service_of_the_same_name_is_left_alone_and_named(local: LocalGround) -> None:
    spec = {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}
    await local.client.create(
        local.path("services"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec},
    )
    local.start()
    await local.apply("web", capabilities={"network": {"listen": [8080]}})
    await local.until_condition("web", "Degraded", "Service web is there and belongs to someone else")
    left = await local.client.get(local.path("services", "web"))
    assert left["spec"]["selector"] == {"app": "theirs"}


async def test_a_plugin_deaf_to_its_end_is_killed_after_its_grace(local: LocalGround) -> None:
    local.kubelet.fates["p"] = Fate(obeys=False)
    local.start()
    await local.apply("p", stopGrace="1s")
    await local.until_ready("p")
    await local.delete("p")

    async def gone() -> bool:
        return not (await local.client.get(local.plugins))["items"]

    await local.until(gone)
    assert not (await local.client.get(local.path("pods")))["items"]
    assert await local.end(number=signal.SIGTERM) == 0


async def test_restarts_that_do_not_help_end_with_a_pod_for_which_nothing_before_is_left(
    local: LocalGround,
) -> None:
    local.kubelet.fates["p"] = Fate(code=3)
    local.start()
    steps = ["restart", "recreate", "quarantine"]
    await local.apply("p", recovery={"strategy": steps, "maxRestarts": 1, "backoff": {"initial": "10ms"}})

    async def quarantined() -> bool:
        return ((await local.plugin("p")).get("status") or {}).get("phase") == "Quarantined"

    await local.until(quarantined)
    (left,) = await local.pods("p")
    assert left["metadata"]["name"].endswith("-0-3"), "the pods before were deleted before it was made"
    events = (await local.client.get(local.path("events")))["items"]
    assert [event["reason"] for event in events if event["reason"] == "Recreated"]


async def test_what_a_pod_cannot_is_said_and_what_is_asked_all_the_same_is_not_done(
    local: LocalGround,
) -> None:
    local.start()
    await local.apply("live", configDelivery="signal")
    said = await local.until_condition("live", "Stalled", "ConfigDeliveryUnavailable")
    assert "write file, or restart" in said["message"]
    await local.apply("still")
    await local.until_ready("still")
    path = f"{local.plugins}/still"
    await local.client.patch(path, {"metadata": {"annotations": {"crucible.dev/frozen": "now"}}})
    await local.until_condition("still", "Degraded", "FreezeUnavailable", "a pod cannot be frozen")
    await local.until_ready("still")
