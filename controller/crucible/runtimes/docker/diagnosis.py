"""What an engine offers, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docker import errors

from crucible.errors import Unavailable
from crucible.model.enforcement import Finding, Level
from crucible.model.manifest import PluginType
from crucible.runtimes.docker.enforcement import NOT_OFFERED, capabilities, vm_runtime
from crucible.runtimes.docker.engine import Engine
from crucible.runtimes.docker.memory import Memory

if TYPE_CHECKING:
    from crucible.runtimes.docker.engine import Facts
    from crucible.runtimes.docker.settings import DockerSettings


async def diagnose(settings: DockerSettings) -> list[Finding]:
    """Ask an engine what it offers and which images it has; changes nothing."""
    engine = Engine(settings)
    try:
        facts = await engine.connect()
        images = [await _image(engine, settings, kind) for kind in PluginType if kind != PluginType.SERVICE]
    except Unavailable as error:
        what, _, fix = str(error).partition(": ")
        return [Finding("engine", ok=False, detail=what, fix=fix)]
    finally:
        engine.close()
    no_memory = Memory(settings.memory, settings.control_plane).problem
    return [*_engine(facts), *images, *_controls(facts, no_memory)]


def _engine(facts: Facts) -> list[Finding]:
    vm = vm_runtime(facts.info)
    said = f"isolation vm by {vm}" if vm else "no gVisor or Kata: isolation vm is refused"
    return [
        Finding("engine", ok=True, detail=f"{facts.version}, speaks Docker's API {facts.api}"),
        Finding("virtual machines", ok=True, detail=said),
    ]


def _controls(facts: Facts, no_memory: str) -> list[Finding]:
    return [
        Finding(entry.control.value, entry.level is Level.ENFORCED, f"{entry.level.value}: {entry.by}")
        for entry in capabilities(facts.info, no_memory).controls
        if entry.control not in NOT_OFFERED
    ]


async def _image(engine: Engine, settings: DockerSettings, kind: PluginType) -> Finding:
    name = settings.image_of(kind)
    try:
        await engine.call(engine.client.inspect_image, name)
    except errors.ImageNotFound:
        return Finding(
            f"{kind} plugins", ok=False, detail=f"the engine has no image {name}", fix="make images"
        )
    return Finding(f"{kind} plugins", ok=True, detail=name)
