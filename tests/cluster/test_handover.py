"""Several operators: one works, and whatever becomes of it, another goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from ground import LocalGround


async def leader(local: LocalGround) -> str:
    lease = await local.client.get(
        f"/apis/coordination.k8s.io/v1/namespaces/{local.namespace}/leases/crucible-operator"
    )
    return str(lease["spec"].get("holderIdentity", ""))


async def two(local: LocalGround) -> None:
    local.start("one")
    await local.until(lambda: "one leads" in local.log("one"))
    local.start("two")
    await local.until(lambda: "answers on" in local.log("two"))
    await local.apply("a", update={"strategy": "recreate"})
    await local.until_ready("a")


async def ask(local: LocalGround, identity: str, port: str, path: str) -> tuple[int, str]:
    number = local.port(port, identity)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{number}{path}") as answer:
        return answer.status, await answer.text()


async def test_a_standby_takes_over_from_one_that_is_killed(local: LocalGround) -> None:
    await two(local)
    assert await leader(local) == "one"
    await local.end("one", signal.SIGKILL)
    began = time.monotonic()
    await local.apply("b")
    await local.until_ready("b")
    assert time.monotonic() - began < 60  # four times what a machine with nothing else to do needs at most
    assert await leader(local) == "two"
    assert all(most == 1 for most in local.kubelet.most.values())


async def test_one_that_ends_gives_its_place_away(local: LocalGround) -> None:
    await two(local)
    assert await local.end("one", signal.SIGTERM) == 0
    await local.until(lambda: "two leads" in local.log("two"))
    assert "Traceback" not in local.log("one") + local.log("two")


async def test_one_that_was_paused_does_nothing_more_when_it_goes_on(local: LocalGround) -> None:
    await two(local)
    paused = local.operators["one"]
    paused.send_signal(signal.SIGSTOP)
    await local.until(lambda: "two leads" in local.log("two"))
    await local.change("a", config={"value": 2})
    await local.until_ready("a")
    before = len(local.faults.asked)
    paused.send_signal(signal.SIGCONT)
    await local.until(lambda: "leads no more" in local.log("one"))
    (pod,) = await local.running("a")
    await local.kubelet.finish(pod, 3)

    async def again() -> bool:
        return [each["metadata"]["name"] for each in await local.running("a")] == ["a-0-3"]

    await local.until(again)
    assert await leader(local) == "two"
    creates = [each for each in local.faults.asked[before:] if each == f"POST {local.path('pods')}"]
    assert len(creates) == 1


async def test_both_are_ready_and_one_leads(local: LocalGround) -> None:
    await two(local)
    for identity, leads in (("one", "1"), ("two", "0")):

        async def ready(identity: str = identity) -> bool:
            return await ask(local, identity, "health", "/readyz") == (200, "ok\n")

        await local.until(ready)
        assert await ask(local, identity, "health", "/healthz") == (200, "ok\n")
        _, text = await ask(local, identity, "metrics", "/metrics")
        assert f"crucible_leader {leads}\n" in text


async def test_the_figures_count_plugins_turns_and_restarts(local: LocalGround) -> None:
    local.start()
    await local.apply("a")
    await local.until_ready("a")
    (pod,) = await local.running("a")
    await local.kubelet.finish(pod, 3)

    async def counted() -> bool:
        _, text = await ask(local, "one", "metrics", "/metrics")
        figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return (
            figures['crucible_plugins{phase="Running"}'] == "1"
            and figures["crucible_restarts"] == "1"
            and float(figures["crucible_reconciles_total"]) >= 3
            and float(figures["crucible_loop_age_seconds"]) < 30
        )

    await local.until(counted)


async def test_a_log_for_programs_is_json_in_every_line_also_where_libraries_speak(
    local: LocalGround,
) -> None:
    local.start("one", "--log-format", "json", "--verbose")
    await local.apply("a")
    await local.until_ready("a")
    assert await local.end() == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in local.log().splitlines()]
    assert {line["logger"].partition(".")[0] for line in lines} >= {"crucible", "kopf"}


async def test_an_operator_of_some_namespaces_leaves_the_others_alone(local: LocalGround) -> None:
    for name in ("team-a", "team-b"):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await local.client.create("/api/v1/namespaces", body)
    local.start("one", "--namespace", "team-a", "--namespace", "team-b")
    await local.apply("left")
    for name in ("team-a", "team-b"):
        local.namespace = name
        await local.apply("p")
        await local.until_ready("p")
    local.namespace = "default"
    await asyncio.sleep(0)
    assert not (await local.plugin("left")).get("status")
    assert await local.pods() == []
