"""The Docker runtime under test, over a real engine."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import engine as engines
from harness import Common
from onlooker import everything

from crucible.backbone.local import Seal
from crucible.runtimes.docker import DockerRuntime, DockerSettings
from crucible.runtimes.docker.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.model.workload import Workload
    from crucible.runtimes.base import Runtime


class DockerHarness(Common):
    """One control plane of its own, on an engine shared by the whole session."""

    def __init__(self, place: Path, engine: engines.Engine) -> None:
        super().__init__()
        self.place = place
        self.engine = engine
        self.client = engines.client(engine.url)
        # A control plane is known by its id, which is also part of container names.
        mark = hashlib.sha256(f"{os.getpid()} {place}".encode()).hexdigest()[:8]
        self.control_plane = f"test-{mark}"
        self.sources = place / "sources"
        self.sources.mkdir()
        self.strangers: list[Runtime] = []

    def settings(self, **changes: object) -> DockerSettings:
        values = {
            "state_dir": self.place / "docker",
            "control_plane": self.control_plane,
            "url": self.engine.url,
            "heartbeat": 0.5,
            "volumes": self.volumes,
            "bus_authority": Seal(self.place / "bus-authority").authority,
        }
        return DockerSettings(**(values | changes))  # type: ignore[arg-type]

    async def open(self) -> None:
        self.runtime = DockerRuntime(self.settings(), self.sources.joinpath, self.secrets_of)
        await self.runtime.open(self.heard.append)

    async def reopen(self) -> None:
        await self.runtime.close()
        await self.open()

    async def stranger(self) -> Runtime:
        settings = self.settings(
            state_dir=self.place / "other",
            control_plane=f"{self.control_plane}-other",
            uid_base=1_800_000_000,
        )
        runtime = DockerRuntime(settings, self.sources.joinpath)
        await runtime.open(lambda _: None)
        self.strangers.append(runtime)
        return runtime

    async def close(self) -> None:
        for runtime in (self.runtime, *self.strangers):
            await runtime.close()
        for found in self._containers():
            self.client.remove_container(found["Id"], force=True, v=True)
        for found in self._networks():
            self.client.remove_network(found["Id"])
        Memory(self.settings().memory, self.control_plane).sweep(())
        self.client.close()

    def source(self, name: str, files: dict[str, str]) -> str:
        place = self.sources / name
        for path, text in files.items():
            file = place / path
            if file.exists() and file.read_text() == text:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
            file.parent.chmod(0o755)
        return name

    def script(self, text: str, name: str = "s", *words: str, **changes: object) -> Workload:
        """Return a workload with a program of its own."""
        source = self.source(f"script-{name}", {"main.py": text})
        return self.workload(name=name, source=source, **({"entrypoint": ("main.py", *words)} | changes))

    def container(self, workload: Workload, slot: str = "0-1") -> str:
        """Return the name of an instance's container."""
        return f"crucible-{self.control_plane}-{workload.plugin_uid}-{slot}"

    def leftovers(self) -> list[str]:
        found = [str(path) for path in everything(self.place / "docker" / "instances")]
        found += [str(path) for path in everything(self.settings().memory / f"crucible-{self.control_plane}")]
        found += [str(entry["Names"]) for entry in self._containers()]
        return found + [entry["Name"] for entry in self._networks()]

    def _containers(self) -> list[dict[str, object]]:
        return [
            entry
            for entry in self.client.containers(all=True)
            if any(self.control_plane in name for name in entry["Names"])
        ]

    def _networks(self) -> list[dict[str, str]]:
        return [entry for entry in self.client.networks() if self.control_plane in entry["Name"]]
