"""Examines this host for ``crucible doctor``: what each runtime offers, and whether it holds when tried."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.breakout.grants import lay_out
from crucible.breakout.trial import Sources, run_suite
from crucible.breakout.verdict import tallies
from crucible.core.enforce import enforcement_of
from crucible.errors import CrucibleError
from crucible.model.enforcement import Control, Finding, Level

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable
    from pathlib import Path

    from crucible.breakout.grants import Grants
    from crucible.breakout.verdict import Check, Tally
    from crucible.model.enforcement import Capabilities, Enforcement
    from crucible.runtimes.base import Runtime


@dataclass(frozen=True, slots=True)
class Held:
    """One control on one runtime: what is claimed, and what came of trying.

    Attributes:
        claim: how well it holds, and by what.
        fixed: it holds every plugin; otherwise only those that ask for its capability.
        tally: of the suite; None where it was not run, or has nothing about this control.
        untried: why there is none; empty where there is one.
    """

    claim: Enforcement
    fixed: bool
    tally: Tally | None
    untried: str = ""

    @property
    def ok(self) -> bool:
        """Nothing is to be mended: it is enforced and held, or no plugin relies on it unasked."""
        claimed = self.claim.level is Level.ENFORCED or not self.fixed
        return claimed and (self.tally is None or self.tally.holds)


@dataclass(frozen=True, slots=True)
class Examination:
    """What one runtime is like on this host.

    Attributes:
        runtime: its name.
        findings: about what it needs.
        held: about every control; empty where it cannot run at all.
    """

    runtime: str
    findings: tuple[Finding, ...]
    held: tuple[Held, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is to be mended."""
        return all(finding.ok for finding in self.findings) and all(held.ok for held in self.held)


async def examine_process(place: Path, say: Callable[[str], None], *, tried: bool) -> Examination:
    """Examine sandboxed processes.

    Args:
        place: an empty folder for this.
        say: told what is going on.
        tried: run the suite too.
    """
    from crucible.runtimes.process import ProcessRuntime, ProcessSettings  # noqa: PLC0415 - one at a time

    sources = Sources(place / "suite")
    grants = lay_out(place / "volumes")
    settings = ProcessSettings(place / "process", control_plane=_control_plane(), volumes=grants.volumes)
    runtime = ProcessRuntime(settings, sources.path_of, grants.secrets_of)
    say("process: preparing a sandbox")
    try:
        async with _opened(runtime):
            findings = await runtime.diagnose()
            suite = (place, grants) if tried else None
            return await _examine("process", runtime, findings, say, suite)
    except CrucibleError as error:
        return Examination("process", (_problem("sandbox", error),))


async def examine_docker(place: Path, say: Callable[[str], None], *, tried: bool) -> Examination:
    """Examine containers of this host's engine; see :func:`examine_process`."""
    from crucible.runtimes.docker import DockerRuntime, DockerSettings, diagnose  # noqa: PLC0415 - loads the SDK

    sources = Sources(place / "suite")
    grants = lay_out(place / "volumes")
    settings = DockerSettings(place / "docker", _control_plane(), volumes=grants.volumes)
    say("docker: asking the engine")
    findings = await diagnose(settings)
    if any(finding.name == "engine" and not finding.ok for finding in findings):
        return Examination("docker", tuple(findings))
    without_image = any(finding.name == "python plugins" and not finding.ok for finding in findings)
    runtime = DockerRuntime(settings, sources.path_of, grants.secrets_of)
    try:
        async with _opened(runtime):
            suite = (place, grants) if tried and not without_image else None
            return await _examine("docker", runtime, findings, say, suite)
    except CrucibleError as error:
        return Examination("docker", (*_other(findings), _problem("suite", error)))


def held_of(capabilities: Capabilities, checks: Iterable[Check]) -> tuple[Held, ...]:
    """Put what a runtime claims beside what came of trying."""
    counted = {tally.control: tally for tally in tallies(capabilities, checks)}
    fixed = {entry.control for entry in enforcement_of(None, capabilities)}
    return tuple(
        Held(
            entry,
            entry.control in fixed,
            counted.get(entry.control),
            "" if entry.control in counted else _untried(entry, fixed, tried=bool(counted)),
        )
        for entry in capabilities.controls
    )


def _untried(claim: Enforcement, fixed: Collection[Control], *, tried: bool) -> str:
    """Say why the suite has nothing about a control."""
    if not tried:
        return "the suite was not run"
    if claim.level is Level.UNAVAILABLE:
        return "not to be had here"
    if claim.control not in fixed:
        return "it holds only plugins that ask for it, and the suite's do not"
    return "nothing here lets it be measured"


async def _examine(
    name: str,
    runtime: Runtime,
    findings: Iterable[Finding],
    say: Callable[[str], None],
    suite: tuple[Path, Grants] | None,
) -> Examination:
    """Do what the two above have in common; ``suite`` is where to run it, and with what, or None."""
    checks: tuple[Check, ...] = ()
    if suite is not None:
        bait = suite[0] / "bait"
        bait.mkdir(mode=0o755)
        checks = await run_suite(runtime, bait, lambda what: say(f"{name}: trying {what}"), suite[1])
    return Examination(name, _other(findings), held_of(runtime.capabilities, checks))


def _other(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that are not about a control."""
    controls = {control.value for control in Control}
    return tuple(finding for finding in findings if finding.name not in controls)


def _problem(name: str, error: CrucibleError) -> Finding:
    what, _, fix = str(error).partition(": ")
    return Finding(name, ok=False, detail=what, fix=fix)


def _control_plane() -> str:
    """Return an id that no other control plane of this host has, not even another examination."""
    return f"doctor-{secrets.token_hex(3)}"


@contextlib.asynccontextmanager
async def _opened(runtime: Runtime) -> AsyncIterator[None]:
    await runtime.open(lambda _: None)
    try:
        yield
    finally:
        for instance in runtime.instances():
            await runtime.remove(instance.plugin_uid, instance.slot)
        await runtime.close()
