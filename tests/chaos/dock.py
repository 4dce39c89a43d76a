"""One machine's control plane whose plugins are containers of an engine that may be broken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import engine as engines
from desired import Desired
from docker.errors import APIError, DockerException
from kinds import FILE, PLAIN, SIGNAL
from machine import BODY, Machine
from onlooker import below
from places import Seen, chosen, pause

from crucible.runtimes.process import proc

if TYPE_CHECKING:
    from pathlib import Path

    from ordeal import Step
    from places import Fault

_MARK = "dev.crucible.control-plane"
_UID = "dev.crucible.plugin-uid"
_SLOT = "dev.crucible.slot"


class Dock(Machine):
    """As :class:`Machine`, with the Docker runtime; plugins listen, so that there are networks too."""

    # An engine whose shim was killed can be silent for a minute and more by itself.
    patience = 300.0

    def __init__(self, folder: Path, roots: Path, engine: engines.Engine) -> None:
        super().__init__(folder, roots, "--runtime", "docker", environment={"DOCKER_HOST": engine.url})
        self.engine = engine
        self.disk.mounted = (
            False  # the engine lives in mounts of its own, and would not see a disk mounted later
        )
        body = {**BODY, "capabilities": {"network": {"listen": [8080]}}, "resources": {"memory": "48Mi"}}
        self.desired = Desired(self.plane.client, body, (PLAIN, SIGNAL, FILE), freezes=True)
        controllers = (
            "kill controller",
            "freeze controller",
            "restart controller",
            "clock jump",
            "lock database",
        )
        self.faults: dict[str, Fault] = {
            **{name: self.faults[name] for name in controllers},
            "kill engine": self.kill_engine,
            "freeze engine": self.freeze_engine,
            "lose networks": self.lose_networks,
            "kill shim": self.kill_shim,
            "crash container": self.crash_container,
            "remove container": self.remove_container,
            "kill relay": self.kill_relay,
        }
        self._down = False
        self._last: Counter[str] = Counter()

    async def open(self) -> None:
        await self._revive()
        await super().open()

    async def _revive(self) -> None:
        """Have an engine that answers; a second one beside it would take its socket away."""
        if not await asyncio.to_thread(self.engine.answers):
            await asyncio.to_thread(self.engine.revive)

    async def kill_engine(self, step: Step) -> None:
        self._down = True
        self.engine.kill()
        await pause(step.lasts)
        await self._revive()
        self._down = False

    async def lose_networks(self, step: Step) -> None:
        """Kill the engine, and have it start without its list of networks; containers live on, cut off."""
        self._down = True
        self.engine.kill()
        await pause(step.lasts)
        await asyncio.to_thread(self.engine.forget_networks)
        await self._revive()
        self._down = False

    async def freeze_engine(self, step: Step) -> None:
        self.engine.freeze(held=True)
        try:
            await pause(step.lasts)
        finally:
            self.engine.freeze(held=False)

    async def kill_shim(self, step: Step) -> None:
        """Kill what holds a container's streams and reports its end; the container itself may live on."""
        shims = [pid for pid in proc.all_pids() if _is_shim(pid, str(self.engine.place))]
        for pid in chosen(sorted(shims), step):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def crash_container(self, step: Step) -> None:
        await self._on_one("instance", step, lambda client, name: client.kill(name))

    async def remove_container(self, step: Step) -> None:
        await self._on_one("instance", step, lambda client, name: client.remove_container(name, force=True))

    async def kill_relay(self, step: Step) -> None:
        await self._on_one("relay", step, lambda client, name: client.kill(name))

    async def mend(self) -> None:
        await super().mend()
        self.engine.freeze(held=False)
        await self._revive()

    def alive(self) -> Counter[str]:
        """Count running containers; while the engine does not answer, what was seen last."""
        if self._down:
            return self._last
        with contextlib.suppress(DockerException, OSError, ValueError):
            self._last = Counter(_replica(entry) for entry in self._containers("instance", running=True))
        return self._last

    async def look(self) -> Seen:
        try:
            return await self._look()
        except (DockerException, OSError) as error:
            return Seen(Counter(), ((f"an engine that does not answer ({error})", ""),))

    async def _look(self) -> Seen:
        alive: Counter[str] = Counter()
        things: list[tuple[str, str]] = []
        for entry in await asyncio.to_thread(self._containers, ""):
            if entry["Labels"].get("dev.crucible.role") == "instance" and entry["State"] == "running":
                alive[_replica(entry)] += 1
            things.append((f"container {entry['Names']}", entry["Labels"].get(_UID, "")))
        networks = await asyncio.to_thread(self._networks)
        things += [(f"network {network['Name']}", network["Labels"].get(_UID, "")) for network in networks]
        things += [
            (str(folder), folder.parent.name)
            for folder in below(self.plane.places.root / "docker/instances", "*/*")
        ]
        # The network of all relays is everybody's while there is a relay.
        relays = any(entry["Labels"].get("dev.crucible.role") == "relay" for entry in self._containers(""))
        owner = next(iter(self.desired.wanted.values())).uid if relays and self.desired.wanted else ""
        return Seen(alive, tuple((what, uid or owner) for what, uid in things))

    def _leftovers(self) -> list[str]:
        """Remove what the engine still has of this control plane; return what that was."""
        left = super()._leftovers()
        if not self._has_begun():
            return left
        mark = f"{_MARK}={self.plane.mark()}"
        with contextlib.closing(engines.client(self.engine.url)) as client:
            for entry in client.containers(all=True, filters={"label": mark}):
                left.append(f"container {entry['Names']}")
                client.remove_container(entry["Id"], force=True)
            for network in client.networks(filters={"label": mark}):
                left.append(f"network {network['Name']}")
                client.remove_network(network["Id"])
        return left

    def _containers(self, role: str, *, running: bool = False) -> list[dict[str, Any]]:
        labels = [f"{_MARK}={self.plane.mark()}", *([f"dev.crucible.role={role}"] if role else [])]
        with contextlib.closing(engines.client(self.engine.url)) as client:
            return list(client.containers(all=not running, filters={"label": labels}))

    def _networks(self) -> list[dict[str, Any]]:
        with contextlib.closing(engines.client(self.engine.url)) as client:
            return list(client.networks(filters={"label": f"{_MARK}={self.plane.mark()}"}))

    async def _on_one(self, role: str, step: Step, act: Any) -> None:
        with contextlib.suppress(DockerException, APIError, OSError):
            entries = sorted(self._containers(role, running=True), key=lambda entry: str(entry["Names"]))
            with contextlib.closing(engines.client(self.engine.url)) as client:
                for entry in chosen(entries, step):
                    act(client, entry["Id"])


def _replica(entry: dict[str, Any]) -> str:
    return f"{entry['Labels'].get(_UID)}/{entry['Labels'].get(_SLOT, '').partition('-')[0]}"


def _is_shim(pid: int, place: str) -> bool:
    words = proc.arguments(pid)
    return bool(words) and b"containerd-shim" in words[0] and any(place.encode() in word for word in words)
