"""The life of a plugin on a cluster: created, changed, put to rest, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ground import condition

if TYPE_CHECKING:
    from ground import Ground, LocalGround


async def test_a_plugin_becomes_a_pod_and_is_ready(ground: Ground) -> None:
    await ground.apply("echo")
    plugin = await ground.until_ready("echo")
    (pod,) = await ground.pods("echo")
    assert pod["metadata"]["name"] == "echo-0-1"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == plugin["metadata"]["uid"]
    assert plugin["status"]["runtime"] == "kubernetes"
    maps = (await ground.client.get(ground.path("configmaps")))["items"]
    assert any(
        each["data"].get("f0", "").startswith("import signal") for each in maps if each.get("immutable")
    )


async def test_nothing_may_reach_a_plugin_or_be_reached_by_it(ground: Ground) -> None:
    await ground.apply("echo")
    await ground.until_ready("echo")
    policy = await ground.client.get(ground.path("networkpolicies", "crucible-echo"))
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not policy["spec"].get("ingress")
    assert not policy["spec"].get("egress")


async def test_a_plugin_that_listens_has_a_service_and_says_where(ground: Ground) -> None:
    await ground.apply("web", capabilities={"network": {"listen": [8080]}})
    plugin = await ground.until_ready("web")
    service = await ground.client.get(ground.path("services", "web"))
    assert [port["port"] for port in service["spec"]["ports"]] == [8080]
    policy = await ground.client.get(ground.path("networkpolicies", "crucible-web"))
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == [8080]
    assert plugin["status"]["endpoints"] == [f"8080 at web.{ground.namespace}.svc:8080"]


async def test_replicas_follow_the_spec_and_have_a_budget_while_there_are_several(ground: Ground) -> None:
    await ground.apply("many", replicas=3)
    await ground.until_ready("many", 3)
    budget = await ground.client.get(ground.path("poddisruptionbudgets", "crucible-many"))
    assert budget["spec"]["maxUnavailable"] == 1
    await ground.change("many", replicas=1)
    await ground.until_ready("many", 1)
    await ground.until(lambda: _count(ground, "many", 1))

    async def without_budget() -> bool:
        return not (await ground.client.get(ground.path("poddisruptionbudgets")))["items"]

    await ground.until(without_budget)


async def test_a_changed_plugin_is_replaced(ground: Ground) -> None:
    await ground.apply("echo", update={"strategy": "recreate"})
    before = await ground.until_ready("echo")
    await ground.change("echo", config={"value": 2})
    after = await ground.until_ready("echo")
    assert after["status"]["revision"] != before["status"]["revision"]
    await ground.until(lambda: _only(ground, "echo", after["status"]["revision"]))


async def test_a_suspended_plugin_has_no_pods_and_comes_back(ground: Ground) -> None:
    await ground.apply("echo")
    await ground.until_ready("echo")
    await ground.change("echo", suspend=True)
    await ground.until(lambda: _count(ground, "echo", 0))
    await ground.until(lambda: _phase(ground, "echo", "Suspended"))
    await ground.change("echo", suspend=False)
    await ground.until_ready("echo")


async def test_a_deleted_plugin_leaves_nothing_behind(ground: Ground) -> None:
    await ground.apply("web", replicas=2, capabilities={"network": {"listen": [8080]}})
    await ground.until_ready("web", 2)
    await ground.delete("web")

    async def nothing() -> bool:
        selector = {"labelSelector": "crucible.dev/plugin=web"}
        for plural in ("pods", "services", "configmaps", "networkpolicies", "poddisruptionbudgets"):
            if (await ground.client.get(ground.path(plural), selector))["items"]:
                return False
        return not (await ground.client.get(ground.plugins))["items"]

    await ground.until(nothing)


async def test_a_folder_is_refused_with_what_to_use_instead(ground: Ground) -> None:
    await ground.apply("local", source={"path": "/plugins/x"})
    said = await ground.until_condition("local", "Stalled", "SourceUnsupported")
    assert "inline" in said["message"]


async def test_what_a_cluster_cannot_hold_a_plugin_to_is_refused_unless_it_is_accepted(
    ground: Ground,
) -> None:
    await ground.apply("strict", sandbox={})
    said = await ground.until_condition("strict", "Stalled", "NotEnforceable")
    assert "allowDegraded: [pids, openFiles]" in said["message"]


async def test_by_handover_the_service_leads_to_one_of_two_pods_at_any_time(local: LocalGround) -> None:
    local.start()
    spec: dict[str, Any] = {
        "capabilities": {"network": {"listen": [8080]}},
        "health": {"ready": {"tcp": {"port": 8080}}},
        "update": {"strategy": "handover", "verify": "500ms"},
        "lifecycle": {"drain": "1s"},
    }
    await local.apply("p", **spec)
    await local.until_ready("p")
    seen: list[frozenset[str]] = []

    async def leads_to() -> dict[str, str]:
        found: dict[str, str] = (await local.client.get(local.path("services", "p")))["spec"]["selector"]
        return found

    async def over() -> bool:
        selector = await leads_to()
        running = await local.running("p")
        if selector != await leads_to():
            return False  # it changed while the pods were listed: that is not how they were at one time
        wanted = selector.items()
        reached = frozenset(
            pod["metadata"]["name"] for pod in running if wanted <= pod["metadata"]["labels"].items()
        )
        if not seen or seen[-1] != reached:
            seen.append(reached)
        status = (await local.plugin("p"))["status"]
        return bool(status["instances"][0]["name"] == "p-0-2" and status["phase"] == "Running")

    assert not await over()
    await local.change("p", config={"a": 1})
    await local.until(over)
    assert seen[0] == {"p-0-1"}
    assert seen[-1] == {"p-0-2"}
    assert all(seen), f"at one time nobody was reached: {seen}"
    old_alone, new_alone = seen.index(frozenset({"p-0-1"})), seen.index(frozenset({"p-0-2"}))
    assert old_alone < new_alone
    assert local.kubelet.most["default/p/0"] == 2


async def test_a_changed_configuration_comes_to_the_pod_that_runs(local: LocalGround) -> None:
    local.start()
    await local.apply("p", configDelivery="file", config={"a": 1})
    await local.until_ready("p")
    (before,) = await local.pods("p")
    await local.change("p", config={"a": 2})

    async def told() -> bool:
        events = (await local.client.get(local.path("events")))["items"]
        return any(event["reason"] == "Configured" for event in events)

    await local.until(told)
    (after,) = await local.running("p")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    shown = await local.client.get(local.path("configmaps", "crucible-p-0-1-config"))
    assert shown["data"] == {"config.json": '{"a": 2}'}


async def _count(ground: Ground, name: str, wanted: int) -> bool:
    return len(await ground.pods(name)) == wanted


async def _only(ground: Ground, name: str, revision: str) -> bool:
    running = await ground.running(name)
    return [pod["metadata"]["labels"]["crucible.dev/revision"] for pod in running] == [revision]


async def _phase(ground: Ground, name: str, phase: str) -> bool:
    plugin = await ground.plugin(name)
    return plugin["status"]["phase"] == phase and condition(plugin, "Ready")["reason"] == phase
