"""``crucible doctor``."""

import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from crucible import __version__
from crucible.cli import exits
from crucible.cli.operator import UserNamespaces
from crucible.cli.options import Data, DataOutput, ImagePullPolicy, ImageTag, PullPolicy
from crucible.cli.table import table
from crucible.cli.terminal import colourful, note, paint
from crucible.cli.up import RuntimeName
from crucible.errors import InvalidInput
from crucible.model.enforcement import Control, Finding, Level

if TYPE_CHECKING:
    from crucible.breakout.examination import Examination, Held

EXAMPLES: Final = """\b
Examples:
  crucible doctor
  crucible doctor --runtime docker
  crucible doctor --quick
  crucible doctor -o json
  crucible doctor --kubernetes --namespace crucible-doctor

Runs the breakout suite on every runtime there is: a hostile plugin tries some 250 ways out, each beside
the right thing to do, and what the kernel says of its sandbox is compared with what was asked for. Takes
about half a minute. Ends with 0 when nothing that holds every plugin is missing, weaker, or was got
through, with 1 otherwise; the last lines say what was not tried, and why.
With --kubernetes it runs in six pods of the cluster, made as the operator makes plugins' pods, and removes
them; that can take some minutes, for a kubelet takes its time to end a pod that fills a disk.
"""
_PYTHON: Final = (3, 11)
_KERNEL: Final = (5, 10)
"""Signals by pidfd, and cgroups as they are read here."""
_COLOURS: Final = {"ok": "green", "-": "dim"}


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    output: DataOutput = Data.TEXT,
    runtime: Annotated[
        RuntimeName | None,
        typer.Option(
            "--runtime",
            metavar="process|docker",
            help="Only this one. Default: process, docker if it answers.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Say what is claimed; do not try to break out.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Not this host: the cluster that KUBECONFIG names.")
    ] = False,
    namespace: Annotated[
        str,
        typer.Option("--namespace", "-n", metavar="NS", help="Of the pods. Default: the kubeconfig's."),
    ] = "",
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Instead of KUBECONFIG's.")
    ] = None,
    images: Annotated[
        str, typer.Option("--images", metavar="PREFIX", help="As the operator has it: PREFIX/python:TAG.")
    ] = "crucible",
    image_tag: ImageTag = __version__,
    image_pull_policy: ImagePullPolicy = PullPolicy.IF_NOT_PRESENT,
    image_pull_secret: Annotated[
        str, typer.Option("--image-pull-secret", metavar="NAME", help="A Secret of that namespace.")
    ] = "",
    seccomp: Annotated[
        str,
        typer.Option("--seccomp", metavar="FILE", help="As the operator has it. Default: RuntimeDefault."),
    ] = "",
    user_namespaces: Annotated[
        UserNamespaces,
        typer.Option(
            "--user-namespaces",
            metavar="auto|on|off",
            help="auto: where every node says it has them (Kubernetes 1.33).",
        ),
    ] = UserNamespaces.AUTO,
) -> None:
    """Try out what this host, or a cluster, can enforce, and say how to mend what it cannot."""
    if kubernetes:
        if runtime is not None:
            raise InvalidInput("--kubernetes and --runtime: choose one")
        from crucible.breakout.cluster import Place, examine_cluster  # noqa: PLC0415 - loads clients
        from crucible.runtimes.kubernetes import KubernetesSettings  # noqa: PLC0415 - the same

        settings = KubernetesSettings(
            images.rstrip("/"), image_tag, image_pull_policy.value, image_pull_secret, seccomp
        )
        place = Place(kubeconfig, namespace, settings, user_namespaces.value)
        findings: list[Finding] = []
        examined = [asyncio.run(examine_cluster(place, _progress, tried=not quick))]
    else:
        findings = host()
        examined = asyncio.run(_examine(runtime, tried=not quick))
    form = Data.JSON if json else output
    if form is Data.TEXT:
        print("\n".join(report(findings, examined, colour=colourful())))
    else:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        print(data_as(document(findings, examined), form), end="")
    if not all((*(finding.ok for finding in findings), *(one.ok for one in examined))):
        raise typer.Exit(exits.FAILED)


async def _examine(runtime: RuntimeName | None, *, tried: bool) -> "list[Examination]":
    """Examine the runtime asked for, or all; an engine that is not there is no fault unless asked for."""
    from crucible.breakout.examination import examine_docker, examine_process  # noqa: PLC0415 - loads runtimes

    ways = {RuntimeName.PROCESS: examine_process, RuntimeName.DOCKER: examine_docker}
    found = []
    for name in [runtime] if runtime else list(ways):
        with _folder() as place:
            one = await ways[name](place, _progress, tried=tried)
        if runtime is None and name is RuntimeName.DOCKER and not one.held:
            note(f"docker: not examined: {one.findings[0].detail}")
            continue
        found.append(one)
    return found


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder that every plugin's user can walk through."""
    with tempfile.TemporaryDirectory(prefix="crucible-doctor-") as name:
        place = Path(name)
        place.chmod(0o711)
        yield place


def _progress(what: str) -> None:
    note(f"{what} ...")


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


def document(findings: Sequence[Finding], examined: "Sequence[Examination]") -> dict[str, Any]:
    """Return everything as data."""
    return {
        "host": [asdict(finding) for finding in findings],
        "runtimes": {
            one.runtime: {
                "ok": one.ok,
                "findings": [asdict(finding) for finding in one.findings],
                "controls": [_control(held) for held in one.held],
            }
            for one in examined
        },
    }


def _control(held: "Held") -> dict[str, Any]:
    tally = held.tally
    return {
        "control": held.claim.control.value,
        "level": held.claim.level.value,
        "by": held.claim.by,
        "ok": held.ok,
        "passed": tally.passed if tally else 0,
        "tried": tally.tried if tally else 0,
        "untried": held.untried,
        "failures": [
            {"name": check.name, "detail": check.detail} for check in (tally.failures if tally else ())
        ],
    }


def report(findings: Sequence[Finding], examined: "Sequence[Examination]", *, colour: bool) -> list[str]:
    """Return the lines of a report: what there is, the table of controls, then what mends the rest."""
    lines = ["This host:", *_listed(findings, colour=colour)] if findings else []
    for one in examined:
        lines += [f"{one.runtime}: what it needs", *_listed(one.findings, colour=colour)]
        if one.held:
            lines += [f"{one.runtime}: what a plugin is held to", *_controls(one.held, colour=colour)]
    fixes = _fixes([*findings, *(finding for one in examined for finding in one.findings)], examined)
    if not fixes:
        return [*lines, "", *(_ending(one, colour=colour) for one in examined if one.held)]
    count = sum(len(names) for names in fixes.values())
    return [
        *lines,
        "",
        paint(f"{count} to mend:", "red", on=colour),
        *(f"  {', '.join(names)}: {fix}" for fix, names in fixes.items()),
    ]


def _ending(one: "Examination", *, colour: bool) -> str:
    """Say what was tried and held, and what was not tried and why: nothing is to be mended."""
    tried = sum(held.tally is not None for held in one.held)
    reasons: dict[str, list[str]] = {}
    for held in one.held:
        if held.untried:
            reasons.setdefault(held.untried, []).append(held.claim.control.value)
    said = f"{one.runtime}: {tried} of {len(one.held)} controls were tried, and held."
    others = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
    return paint(said, "green", on=colour) + (f" Not tried: {others}." if others else "")


def _listed(findings: Sequence[Finding], *, colour: bool) -> list[str]:
    return _marked([(_mark(f), f.name, f.detail) for f in findings], colour=colour)


def _controls(held: "Sequence[Held]", *, colour: bool) -> list[str]:
    rows = [(_standing(one), one.claim.control.value, _tried(one), one.claim.by) for one in held]
    lines = _marked(rows, colour=colour)
    for one, row in zip(held, list(lines), strict=True):
        at = lines.index(row) + 1
        failures = one.tally.failures if one.tally and not one.tally.holds else ()
        lines[at:at] = table([("", "", ""), *(("", f"  got through: {f.name}", f.detail) for f in failures)])[
            1:
        ]
    return lines


def _marked(rows: Sequence[tuple[str, ...]], *, colour: bool) -> list[str]:
    """Return the lines of a table whose first column is a mark."""
    if not rows:
        return []
    lines = table([("",) * len(rows[0]), *rows])[1:]
    return [
        f"  {line.replace(row[0], paint(row[0], _COLOURS.get(row[0], 'red'), on=colour), 1)}"
        for row, line in zip(rows, lines, strict=True)
    ]


def _mark(finding: Finding) -> str:
    return "ok" if finding.ok else "MISSING"


def _standing(held: "Held") -> str:
    if held.tally is not None and not held.tally.holds:
        return "BROKEN"
    if held.claim.level is Level.ENFORCED:
        return "ok"
    if not held.fixed:
        return "-"
    return "WEAKER" if held.claim.level is Level.DEGRADED else "MISSING"


def _tried(held: "Held") -> str:
    return f"{held.tally.passed} of {held.tally.tried}" if held.tally else "not tried"


def _fixes(findings: Sequence[Finding], examined: "Sequence[Examination]") -> dict[str, list[str]]:
    """Return what mends what is not well, each with the names of what it mends."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        if not finding.ok:
            found.setdefault(_fix_of(finding.fix, finding.detail), []).append(finding.name)
    for one in examined:
        for held in one.held:
            if held.ok:
                continue
            broken = held.tally is not None and not held.tally.holds
            unheeded = one.runtime == "kubernetes" and held.claim.control is Control.NETWORK
            fix = (_UNHEEDED if unheeded else _BROKEN) if broken else _fix_of("", held.claim.by)
            found.setdefault(fix, []).append(held.claim.control.value)
    return found


_BROKEN: Final = (
    "a control that should hold was got through: run no plugins you do not trust here, and report it"
)

_UNHEEDED: Final = (
    "this cluster's network does not enforce NetworkPolicies, or not all of one: install a network plugin "
    "that does, and leave plugins.networkPolicies=unknown until this passes"
)


def _fix_of(fix: str, detail: str) -> str:
    """Return what would mend it: what follows the semicolon, where a detail ends with that."""
    return fix or detail.rpartition("; ")[2]
