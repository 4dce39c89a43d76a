"""The operator is killed again and again while many plugins change; in the end each runs once, as asked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ground import LocalGround

LONG = bool(os.environ.get("CRUCIBLE_LONG"))
KILLS, PLUGINS = (20, 100) if LONG else (7, 30)


class Churn:
    """Plugins that people change at random, and what should be there in the end."""

    def __init__(self, local: LocalGround, dice: random.Random) -> None:
        self.local = local
        self.dice = dice
        self.wanted: dict[str, int] = {}
        self.made = 0

    async def add(self) -> None:
        self.made += 1
        name = f"p{self.made}"
        await self.local.apply(name, recovery={"strategy": ["restart"]}, update={"strategy": "recreate"})
        self.wanted[name] = 0

    async def act(self) -> None:
        """Change one thing."""
        name = self.dice.choice(sorted(self.wanted))
        match self.dice.choice(["change", "change", "delete", "crash", "evict"]):
            case "change":
                self.wanted[name] = self.dice.randrange(10**6)
                await self.local.change(name, config={"value": self.wanted[name]})
            case "delete":
                del self.wanted[name]
                await self.local.delete(name)
                await self.add()
            case "crash":
                for pod in await self.local.running(name):
                    await self.local.kubelet.finish(pod, 3)
            case "evict":
                for pod in await self.local.running(name):
                    await self.local.kubelet.take(pod, "Evicted")

    async def settled(self) -> bool:
        """Every Plugin says that it runs what was last asked for."""
        plugins = (await self.local.client.get(self.local.plugins))["items"]
        return {plugin["metadata"]["name"] for plugin in plugins} == self.wanted.keys() and all(
            (plugin.get("status") or {}).get("phase") == "Running"
            and plugin["status"]["observedGeneration"] == plugin["metadata"]["generation"]
            and plugin["status"]["readyReplicas"] == 1
            for plugin in plugins
        )


async def test_every_plugin_runs_exactly_once_and_as_asked_however_often_the_operator_is_killed(
    local: LocalGround,
) -> None:
    dice = random.Random(20)
    local.deadline = 180
    churn = Churn(local, dice)
    await asyncio.gather(*(churn.add() for _ in range(PLUGINS)))
    local.start()
    await local.until(churn.settled)
    for _ in range(KILLS):
        acting = [asyncio.create_task(churn.act()) for _ in range(5)]
        leading = local.log().count("leads")
        await asyncio.sleep(dice.uniform(0, 0.3))  # dice decide when, not a wait for anything
        await local.end(number=signal.SIGKILL)
        local.start()
        await asyncio.gather(*acting)
        if dice.random() < 0.7:
            await local.until(lambda leading=leading: local.log().count("leads") > leading)  # type: ignore[misc]
            await asyncio.sleep(dice.uniform(0, 1.5))
    await local.until(churn.settled)
    await _check(local, churn)
    for name in sorted(churn.wanted):
        await local.delete(name)
    await local.until(lambda: _nothing(local))
    assert await local.end() == 0
    assert "Traceback" not in local.log()


async def _check(local: LocalGround, churn: Churn) -> None:
    plugins = {
        plugin["metadata"]["name"]: plugin for plugin in (await local.client.get(local.plugins))["items"]
    }
    running = [pod for name in churn.wanted for pod in await local.running(name)]
    assert len(running) == PLUGINS
    for pod in running:
        plugin = plugins[pod["metadata"]["ownerReferences"][0]["name"]]
        assert pod["metadata"]["ownerReferences"][0]["uid"] == plugin["metadata"]["uid"]
        assert pod["metadata"]["labels"]["crucible.dev/revision"] == plugin["status"]["revision"]
    twice = {replica: most for replica, most in local.kubelet.most.items() if most != 1}
    assert not twice


async def _nothing(local: LocalGround) -> bool:
    for plural in ("pods", "configmaps", "networkpolicies"):
        left: list[Any] = (await local.client.get(local.path(plural)))["items"]
        if left:
            return False
    return True
