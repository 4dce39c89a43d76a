"""Probes that judge by what a pod uses, where the cluster tells it and where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ground import condition

if TYPE_CHECKING:
    from faults import Answer
    from ground import LocalGround

FRUGAL = {"live": {"resource": {"memory": "64Mi", "cpu": "500m"}, "interval": "100ms", "failures": 1}}


async def test_a_pod_that_uses_too_much_is_replaced(local: LocalGround) -> None:
    local.output.used["p-0-1"] = {"cpu": "100m", "memory": "65Mi"}
    local.output.used["p-0-2"] = {"cpu": "100m", "memory": "32Mi"}
    local.start()
    await local.apply("p", health=FRUGAL, resources={"memory": "128Mi"})

    async def replaced() -> bool:
        said = next(iter((await local.plugin("p")).get("status", {}).get("instances", [])), {})
        end = said.get("lastExit", {}).get("message", "")
        probes = {each["check"]: each.get("passing") for each in said.get("probes", [])}
        return said.get("name") == "p-0-2" and "memory 65Mi > 64Mi" in end and probes == {"live": True}

    await local.until(replaced)


async def test_what_a_ready_probe_finds_here_and_what_the_kubelet_finds_both_count(
    local: LocalGround,
) -> None:
    expression = "usage.cpu < 0.5 && usage.memory < 50000000"
    local.output.used["p-0-1"] = {"cpu": "900000000n", "memory": "32Mi"}
    local.start()
    ready = {"custom": {"expression": expression}, "interval": "100ms", "failures": 1}
    await local.apply("p", health={"startup": {"tcp": {"port": 80}}, "ready": ready})

    async def unready() -> bool:
        said = (await local.plugin("p")).get("status", {}).get("instances", [])
        return any(
            each["message"] == "the expression does not hold"
            for one in said
            for each in one.get("probes", [])
        )

    await local.until(unready)
    assert condition(await local.plugin("p"), "Ready")["status"] == "False"
    local.output.used["p-0-1"] = {"cpu": "1000n", "memory": "32Mi"}
    await local.until_ready("p")
    (pod,) = await local.pods("p")
    container = pod["spec"]["containers"][0]
    assert ("startupProbe" in container, "readinessProbe" in container) == (True, False)


async def test_without_metrics_such_a_probe_is_refused_with_what_to_install(local: LocalGround) -> None:
    def answer(method: str, path: str) -> Answer | None:
        del method
        return (404, "not found") if "metrics.k8s.io" in path else None

    local.faults.answer = answer
    local.start()
    await local.apply("p", health=FRUGAL, resources={"memory": "128Mi"})
    await local.until_condition(
        "p", "Stalled", "ProbeUnavailable", "does not offer resource", "metrics-server"
    )


async def test_what_a_clusters_metrics_do_not_count_is_refused(local: LocalGround) -> None:
    local.start()
    await local.apply("p", health={"live": {"resource": {"pids": 3}}})
    await local.until_condition("p", "Stalled", "ProbeUnavailable", "spec.health.live.resource", "pids")
    await local.apply("q", health={"live": {"custom": {"expression": "usage.throttled < 1.0"}}})
    await local.until_condition("q", "Stalled", "ProbeUnavailable", "spec.health.live.custom", "throttled")
