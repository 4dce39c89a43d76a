"""What people asked for, as the API server acknowledged it, while everything else fails."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crucible.errors import Conflict, NotFound, Unavailable
from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ordeal import Step

PLUGINS = "/apis/crucible.dev/v1alpha1/namespaces/default/plugins"
PATIENCE = 90.0
LOOPER = "looper"
"""A plugin that always ends at once: it has to come to rest in quarantine, and stay there."""
LOOPER_RESTARTS = 2
MOST = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """One Plugin as it was asked for.

    Attributes:
        most: instances that one replica may have at once: two where one hands over to the next.
    """

    uid: str
    value: int
    most: int = 1
    replicas: int = 1
    suspended: bool = False
    frozen: bool = False

    @property
    def phase(self) -> str:
        """What its status has to say in the end."""
        return "Suspended" if self.suspended else "Frozen" if self.frozen else "Running"


class Desired:
    """Changes Plugins through whatever client there is; an answer that was lost is asked for again.

    Attributes:
        wanted: by name.
    """

    def __init__(
        self,
        client: Callable[[], AbstractAsyncContextManager[Any]],
        body: Mapping[str, Any],
        kinds: Sequence[Mapping[str, Any]] = ({},),
        *,
        freezes: bool = False,
    ) -> None:
        """Begin with nothing.

        Args:
            client: opens a client; raises while there is no server.
            body: of every Plugin's spec.
            kinds: what is more in a Plugin's spec, in turns.
            freezes: instances can be held still here.
        """
        self.wanted: dict[str, Wanted] = {}
        self._client = client
        self._body = body
        self._kinds = kinds
        self._freezes = freezes
        self._made = 0

    async def ask(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Ask the server until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                async with self._client() as client:
                    return await work(client)
            except (Unavailable, OSError) as error:
                if time.monotonic() > deadline:
                    raise TimeoutError("the API server stays away") from error
                await asyncio.sleep(0.05)

    async def begin(self) -> None:
        """Ask for the plugin that crashes in a loop, and two that do not."""
        recovery = {"maxRestarts": LOOPER_RESTARTS, "backoff": {"initial": "100ms", "max": "500ms"}}
        source = {"inline": {"main.py": "import sys\nsys.exit(3)\n"}}
        await self._create(LOOPER, {"recovery": recovery, "source": source})
        for _ in range(max(2, len(self._kinds))):
            await self.add()

    async def change(self, step: Step) -> None:
        """Change one thing."""
        all_of_them = sorted(name for name in self.wanted if name != LOOPER)
        name = all_of_them[step.pick % len(all_of_them)]
        known = self.wanted[name]
        match step.what:
            case "add" if len(all_of_them) < MOST:
                await self.add()
            case "change":
                await self._patch(name, replace(known, value=step.pick))
            case "scale":
                await self._patch(name, replace(known, replicas=1 + step.pick % 3))
            case "rest":
                await self._patch(name, replace(known, suspended=True))
            case "wake":
                await self._patch(name, replace(known, suspended=False))
            case "freeze" if self._freezes:
                await self._hold(name, replace(known, frozen=True))
            case "thaw":
                for still in (name for name in all_of_them if self.wanted[name].frozen):
                    await self._hold(still, replace(self.wanted[still], frozen=False))
            case "delete" if len(all_of_them) > 2:
                await self.delete(name)

    async def add(self) -> None:
        self._made += 1
        await self._create(f"p{self._made}", self._kinds[(self._made - 1) % len(self._kinds)])

    async def delete(self, name: str) -> None:
        async def drop(client: Any) -> None:
            with suppress(NotFound):
                await client.delete(f"{PLUGINS}/{name}")

        await self.ask(drop)
        del self.wanted[name]

    async def delete_all(self) -> None:
        for name in sorted(self.wanted):
            await self.delete(name)

    async def plugins(self) -> list[dict[str, Any]]:
        """Return every Plugin, as the server has it."""
        return list((await self.ask(lambda client: client.get(PLUGINS)))["items"])

    async def _create(self, name: str, spec: Mapping[str, Any]) -> None:
        body = {
            "apiVersion": "crucible.dev/v1alpha1",
            "kind": "Plugin",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {**self._body, "config": {"value": 0}, **spec},
        }

        async def create(client: Any) -> Any:
            try:
                return await client.create(PLUGINS, body)
            except Conflict:  # the answer to an earlier try was lost
                return await client.get(f"{PLUGINS}/{name}")

        made = await self.ask(create)
        hands_over = made["spec"]["update"]["strategy"] == "handover"
        self.wanted[name] = Wanted(made["metadata"]["uid"], 0, most=2 if hands_over else 1)

    async def _patch(self, name: str, wanted: Wanted) -> None:
        spec = {
            "config": {"value": wanted.value},
            "replicas": wanted.replicas,
            "suspend": wanted.suspended,
        }
        await self.ask(lambda client: client.patch(f"{PLUGINS}/{name}", {"spec": spec}))
        self.wanted[name] = wanted

    async def _hold(self, name: str, wanted: Wanted) -> None:
        """Ask to hold a Plugin still, or to let it go on."""
        note = {names.FROZEN: "true" if wanted.frozen else None}
        patch = {"metadata": {"annotations": note}}
        await self.ask(lambda client: client.patch(f"{PLUGINS}/{name}", patch))
        self.wanted[name] = wanted


def missed(plugins: list[dict[str, Any]], wanted: Mapping[str, Wanted]) -> list[str]:
    """Return what was acknowledged and is not as it was asked for: lost, doubled or changed by nobody."""
    found = {plugin["metadata"]["name"]: plugin for plugin in plugins}
    wrong = [f"{name}: nobody asked for it" for name in found.keys() - wanted.keys()]
    for name, one in wanted.items():
        plugin = found.get(name)
        if plugin is None:
            wrong.append(f"{name}: it was asked for and is gone")
            continue
        spec = plugin["spec"]
        is_there = Wanted(
            plugin["metadata"]["uid"],
            spec["config"]["value"],
            one.most,
            spec.get("replicas", 1),
            bool(spec.get("suspend", False)),
            names.FROZEN in plugin["metadata"].get("annotations", {}),
        )
        if is_there != one:
            wrong.append(f"{name}: {is_there} instead of {one}")
    return wrong


def unsettled(plugins: list[dict[str, Any]], wanted: Mapping[str, Wanted]) -> list[str]:
    """Return which Plugins do not say yet that they are as was asked for."""
    waiting = []
    for plugin in plugins:
        name, status = plugin["metadata"]["name"], plugin.get("status") or {}
        one = wanted.get(name)
        if one is None:
            continue
        phase = "Quarantined" if name == LOOPER else one.phase
        ready = one.replicas if phase == "Running" else 0
        said = (status.get("phase"), status.get("readyReplicas", 0), status.get("observedGeneration"))
        if said != (phase, ready, plugin["metadata"]["generation"]):
            wanted_now = (phase, ready, plugin["metadata"]["generation"])
            waiting.append(f"{name}: {said} instead of {wanted_now}; {_why(status)}")
    return waiting


def _why(status: Mapping[str, Any]) -> str:
    """Return what its replicas say for themselves."""
    told = [
        f"{each.get('name')} {each.get('state')}: {(each.get('lastExit') or {}).get('message', '')}"
        for each in status.get("instances") or ()
    ]
    return "; ".join(told)[:400]


class History:
    """What may only grow, held against what was seen before."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}

    def broken(self, plugins: list[dict[str, Any]]) -> list[str]:
        """Return where history was forgotten, or a restart happened that the policy forbids."""
        wrong = []
        for plugin in plugins:
            uid, name, status = (
                plugin["metadata"]["uid"],
                plugin["metadata"]["name"],
                plugin.get("status") or {},
            )
            attempts = int(status.get("attempts", 0))
            if attempts < self._attempts.get(uid, 0):
                wrong.append(f"{name}: {attempts} attempts, and {self._attempts[uid]} were on record")
            self._attempts[uid] = max(attempts, self._attempts.get(uid, 0))
            if name == LOOPER and status.get("phase") == "Quarantined":
                crashes = len(status["instances"][0].get("crashes", ()))
                if crashes != LOOPER_RESTARTS + 1:
                    wrong.append(f"{name}: {crashes} crashes on record, not {LOOPER_RESTARTS + 1}")
        return wrong
