"""A cluster without nodes: the API server apart from the operator, and every way in which either fails."""

from __future__ import annotations

import random
import signal
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from desired import Desired
from ground import LocalGround
from kubelet import Fate, replica_of
from places import Seen, chosen, pause

from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ordeal import Step
    from places import Fault

BODY = {
    "version": "1.0.0",
    "type": "python",
    "source": {"inline": {"main.py": "import signal\nsignal.pause()\n"}},
    "entrypoint": ["main.py"],
    "sandbox": {"allowDegraded": ["pids", "openFiles"]},
    "update": {"strategy": "recreate"},
    "stopGrace": "1s",
    "recovery": {"strategy": ["restart"], "backoff": {"initial": "50ms", "max": "1s"}},
}


class Fleet:
    """The operator of a cluster as a process of its own, before an API server that can be told to fail."""

    patience = 120.0

    def __init__(self, folder: Path) -> None:
        self.ground = LocalGround(folder)
        self.desired = Desired(self._client, BODY)
        self._names: dict[str, str] = {}
        self.faults: dict[str, Fault] = {
            "kill operator": self.kill_operator,
            "restart operator": self.restart_operator,
            "freeze operator": self.freeze_operator,
            "two operators": self.two_operators,
            "API server away": self.server_away,
            "API errors": self.api_errors,
            "lost answers": self.lost_answers,
            "latency": self.latency,
            "cut watches": self.cut_watches,
            "crash pod": self.crash_pod,
            "evict pod": self.evict_pod,
            "delete pod": self.delete_pod,
        }

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        yield self.ground.client

    async def open(self) -> None:
        await self.ground.__aenter__()
        self.ground.kubelet.fates["looper"] = Fate(code=3)
        self.ground.start()

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.ground.place.glob("operator-*.log")))

    async def kill_operator(self, _: Step) -> None:
        await self.ground.end(number=signal.SIGKILL)
        self.ground.start()

    async def restart_operator(self, _: Step) -> None:
        await self.ground.end()
        self.ground.start()

    async def freeze_operator(self, step: Step) -> None:
        process = self.ground.operators["one"]
        process.send_signal(signal.SIGSTOP)
        try:
            await pause(step.lasts)
        finally:
            process.send_signal(signal.SIGCONT)

    async def two_operators(self, step: Step) -> None:
        """Start another, let it live a while beside the first, and kill it."""
        if "two" not in self.ground.operators:
            self.ground.start("two")
            await pause(step.lasts * 2)
            await self.ground.end("two", signal.SIGKILL)

    async def server_away(self, step: Step) -> None:
        self.ground.faults.away = True
        self.ground.faults.cut()
        await pause(step.lasts)
        self.ground.faults.away = False

    async def api_errors(self, step: Step) -> None:
        """Refuse half of all requests in every way a server does."""
        dice = random.Random(step.pick)
        answers = [
            (500, "etcdserver: leader changed"),
            (429, "too many requests"),
            (503, "not ready"),
            None,
            None,
        ]
        self.ground.faults.answer = lambda *_: dice.choice(answers)
        await pause(step.lasts)
        self.ground.faults.answer = lambda *_: None

    async def lost_answers(self, step: Step) -> None:
        """Do what is asked, and say that it failed."""
        dice = random.Random(step.pick)
        self.ground.faults.answer_after = lambda verb, _: (
            (504, "the answer is lost") if verb != "GET" and dice.random() < 0.5 else None
        )
        await pause(step.lasts)
        self.ground.faults.answer_after = lambda *_: None

    async def latency(self, step: Step) -> None:
        self.ground.faults.latency = 0.05 + step.pick % 400 / 1000
        await pause(step.lasts)
        self.ground.faults.latency = 0.0

    async def cut_watches(self, _: Step) -> None:
        self.ground.faults.cut()

    async def crash_pod(self, step: Step) -> None:
        for pod in chosen(await self._pods("Running"), step):
            await self.ground.kubelet.finish(pod, 3)

    async def evict_pod(self, step: Step) -> None:
        for pod in chosen(await self._pods("Running"), step):
            await self.ground.kubelet.take(pod, "Evicted")

    async def delete_pod(self, step: Step) -> None:
        for pod in chosen(await self._pods("Running"), step):
            await self.desired.ask(
                lambda client, name=pod["metadata"]["name"]: client.delete(self.ground.path("pods", name))
            )

    async def mend(self) -> None:
        faults = self.ground.faults
        faults.away, faults.latency = False, 0.0
        faults.answer = faults.answer_after = lambda *_: None

    def alive(self) -> Counter[str]:
        """Count by uid: the kubelet knows names, and a name that came back is another Plugin's."""
        return Counter(
            {
                self._names.get(replica, replica): len(pods)
                for replica, pods in self.ground.kubelet.alive.items()
                if pods
            }
        )

    async def look(self) -> Seen:
        uids = {
            plugin["metadata"]["name"]: plugin["metadata"]["uid"] for plugin in await self.desired.plugins()
        }
        things: list[tuple[str, str]] = []
        alive: Counter[str] = Counter()
        for pod in await self.ground.pods():
            if (pod.get("status") or {}).get("phase") in {"Running", "Pending"}:
                _, name, ordinal = replica_of(pod).split("/")
                alive[f"{uids.get(name, name)}/{ordinal}"] += 1
        for plural in ("configmaps", "networkpolicies", "services", "poddisruptionbudgets", "pods"):
            for item in (await self.ground.client.get(self.ground.path(plural)))["items"]:
                owner = (item["metadata"].get("ownerReferences") or [{}])[0].get("uid", "")
                things.append((f"{plural} {item['metadata']['name']}", owner))
        return Seen(alive, tuple(things))

    async def close(self) -> list[str]:
        wrong = []
        try:
            if self.ground.operators and await self.ground.end() != 0:
                wrong.append("the operator did not end with 0")
        finally:
            await self.ground.__aexit__(None, None, None)
        return wrong

    async def _pods(self, phase: str) -> list[dict[str, Any]]:
        try:
            found = await self.ground.pods()
        except CrucibleError:
            return []
        return [
            pod
            for pod in found
            if (pod.get("status") or {}).get("phase") == phase
            and not pod["metadata"]["name"].startswith("looper")
        ]
