"""``crucible doctor``."""

import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli import exits
from crucible.cli.options import Data, DataOutput
from crucible.cli.table import table
from crucible.cli.terminal import colourful, note, paint
from crucible.cli.up import RuntimeName
from crucible.errors import CrucibleError
from crucible.model.enforcement import Control, Finding
from crucible.runtimes.process import ProcessRuntime, ProcessSettings

EXAMPLES: Final = """\b
Examples:
  crucible doctor
  crucible doctor --runtime docker
  crucible doctor -o json

Runs a real sandbox and looks at it from inside; takes some seconds. For Docker it asks the engine. Ends
with 0 when everything a manifest can promise is enforced here, with 1 when something is missing.
"""
_PYTHON: Final = (3, 11)
_KERNEL: Final = (5, 10)
"""Signals by pidfd, and cgroups as they are read here."""


def command(
    output: DataOutput = Data.TEXT,
    runtime: Annotated[
        RuntimeName, typer.Option("--runtime", metavar="process|docker", help="Which runtime to look at.")
    ] = RuntimeName.PROCESS,
) -> None:
    """Say what this host can enforce, and how to mend what it cannot."""
    if output is Data.TEXT and runtime is RuntimeName.PROCESS:
        note("trying out a sandbox; this takes some seconds ...")
    findings = [*host(), *(processes() if runtime is RuntimeName.PROCESS else containers())]
    if output is Data.TEXT:
        print("\n".join(report(findings, colour=colourful())))
    else:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        print(data_as([asdict(finding) for finding in findings], output), end="")
    if any(not finding.ok for finding in findings):
        raise typer.Exit(exits.FAILED)


def host() -> list[Finding]:
    """Return what can be said without running anything."""
    release = platform.release()
    kernel = tuple(int(part) for part in release.split("-", maxsplit=1)[0].split(".")[:2] if part.isdecimal())
    return [
        Finding(
            "python",
            ok=sys.version_info[:2] >= _PYTHON,
            detail=platform.python_version(),
            fix="install Python 3.11 or newer",
        ),
        Finding(
            "kernel",
            ok=sys.platform == "linux" and kernel >= _KERNEL,
            detail=f"{platform.system()} {release}",
            fix="use Linux 5.10 or newer",
        ),
        Finding("user", ok=True, detail=_user()),
    ]


def _user() -> str:
    if os.geteuid() == 0:
        return "root: every plugin gets a user id of its own"
    return "an ordinary user: plugins share your user id, apart by user namespaces"


def containers() -> list[Finding]:
    """Ask the engine what it offers, and which of the types' images it has."""
    from crucible.runtimes.docker import DockerSettings, diagnose  # noqa: PLC0415 - loads the SDK

    with tempfile.TemporaryDirectory(prefix="crucible-doctor-") as folder:
        return asyncio.run(diagnose(DockerSettings(Path(folder), "doctor")))


def processes() -> list[Finding]:
    """Open the process runtime in a folder of its own, and return what it found."""
    with tempfile.TemporaryDirectory(prefix="crucible-doctor-") as folder:
        try:
            return asyncio.run(_diagnose(Path(folder)))
        except CrucibleError as error:
            what, _, fix = str(error).partition(": ")
            return [Finding("sandbox", ok=False, detail=what, fix=fix)]


async def _diagnose(folder: Path) -> list[Finding]:
    def no_source(_: str) -> Path:
        return folder

    settings = ProcessSettings(state_dir=folder / "process", control_plane="doctor")
    opened = ProcessRuntime(settings, source_of=no_source)
    await opened.open(lambda _: None)
    try:
        return await opened.diagnose()
    finally:
        await opened.close()


def report(findings: Sequence[Finding], *, colour: bool) -> list[str]:
    """Return the lines of a report: what there is, then the commands that mend the rest."""
    controls = {control.value for control in Control}
    lines: list[str] = []
    for title, chosen in (
        ("This host", [finding for finding in findings if finding.name not in controls]),
        ("What a plugin is held to", [finding for finding in findings if finding.name in controls]),
    ):
        if chosen:
            rows = table([("", "", ""), *([_mark(f), f.name, f.detail] for f in chosen)])[1:]
            marks = zip(chosen, rows, strict=True)
            lines += [f"{title}:", *(f"  {_painted(finding, row, colour=colour)}" for finding, row in marks)]
    broken = [finding for finding in findings if not finding.ok]
    if not broken:
        return [*lines, "", paint("Everything a manifest can promise is enforced here.", "green", on=colour)]
    fixes: dict[str, list[str]] = {}
    for finding in broken:
        fixes.setdefault(fix_of(finding), []).append(finding.name)
    return [
        *lines,
        "",
        paint(f"{len(broken)} to mend:", "red", on=colour),
        *(f"  {', '.join(names)}: {fix}" for fix, names in fixes.items()),
    ]


def fix_of(finding: Finding) -> str:
    """Return what would mend it: what follows the semicolon, where a detail ends with that."""
    return finding.fix or finding.detail.rpartition("; ")[2]


def _mark(finding: Finding) -> str:
    if finding.ok:
        return "ok"
    return "WEAKER" if finding.detail.startswith("degraded") else "MISSING"


def _painted(finding: Finding, row: str, *, colour: bool) -> str:
    mark = _mark(finding)
    return row.replace(mark, paint(mark, "green" if finding.ok else "red", on=colour), 1)
