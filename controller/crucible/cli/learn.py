"""``crucible learn``."""

import difflib
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.events import recent
from crucible.cli.exits import Failed, WrongUsage
from crucible.cli.objects import plugin_path
from crucible.cli.options import Data, DataOutput, with_access
from crucible.cli.printing import data_as, yaml_of
from crucible.cli.terminal import colourful, harmless, note, paint
from crucible.cli.top import usage_of
from crucible.core.learning import Lesson, Peaks, Sample, grants_of, lesson_of, peaks_of
from crucible.errors import InvalidInput
from crucible.model.quantity import parse_duration

EXAMPLES: Final = """\b
Examples:
  crucible learn word-count
  crucible learn word-count --for 5m
  crucible learn word-count -o yaml

Watches a running plugin, under the manifest it has and no more, and proposes the smallest resources and
capabilities that cover what it used and was refused: half as much again as the peak, rounded up. Make it
do all it does meanwhile. Nothing is changed: take the proposal over into the manifest, and apply that.
"""
_EVERY: Final = 1.0
_PARTS: Final = ("capabilities", "resources")
_UNSEEN: Final = "not watched, and left as they are: openFiles, files, secrets, store, system calls"


@with_access
def command(
    access: Access,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="A running plugin.", show_default=False)],
    duration: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long to watch, as 30s or 5m.")
    ] = "30s",
    output: DataOutput = Data.TEXT,
) -> None:
    """Watch a plugin, and propose the smallest manifest that covers what it did."""
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise WrongUsage(f"--for: {error}") from None
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        found = api.get(plugin_path(namespace, plugin))
        note(f"watching {plugin} for {duration} ...")
        samples = _watch(api, namespace, plugin, seconds)
        grants = grants_of(recent(api, namespace, frozenset({plugin})))
    if not samples:
        raise Failed(
            f"no instance of {plugin} was seen running, or nothing is counted here: "
            f"see 'crucible describe {plugin}' and 'crucible doctor'"
        )
    peaks = peaks_of(samples)
    try:
        lesson = lesson_of(found["spec"], peaks, grants)
    except ValueError as error:
        raise InvalidInput(f"spec.resources of {plugin}: {error}") from None
    if output is Data.TEXT:
        print("\n".join(report(found["spec"], peaks, lesson, colour=colourful())))
    else:
        print(data_as(document(peaks, lesson), output), end="")


def _watch(api: Api, namespace: str, plugin: str, seconds: float) -> list[Sample]:
    """Look once a second; instances that come and go meanwhile all count."""
    found: list[Sample] = []
    end = time.monotonic() + seconds
    while True:
        found += [_sample(facts) for facts in usage_of(api, namespace, frozenset({plugin}))]
        left = end - time.monotonic()
        if left <= 0:
            return found
        time.sleep(min(_EVERY, left))


def _sample(facts: Mapping[str, Any]) -> Sample:
    counted = [facts[name] for name in ("memory", "memoryPeak") if facts[name] is not None]
    return Sample(
        instance=facts["instance"],
        cores=facts["cores"],
        memory=int(max(counted)) if counted else None,
        pids=facts["pids"],
        throttled=facts["throttledSeconds"],
        disk=facts["disk"],
    )


def document(peaks: Peaks, lesson: Lesson) -> dict[str, Any]:
    """Return everything as data; ``proposed`` can be merged into a manifest's ``spec``."""
    return {
        "seen": {
            "cpu": peaks.cpu,
            "memory": peaks.memory,
            "pids": peaks.pids,
            "disk": peaks.disk,
            "heldBack": peaks.held_back,
        },
        "proposed": {name: lesson.spec[name] for name in _PARTS if name in lesson.spec},
        "notes": [*lesson.notes, _UNSEEN],
    }


def report(spec: Mapping[str, Any], peaks: Peaks, lesson: Lesson, *, colour: bool) -> Sequence[str]:
    """Return a diff of the manifest, after what was seen and before what to know."""
    seen = [
        f"cpu {peaks.cpu}m" if peaks.cpu is not None else "",
        f"memory {peaks.memory / (1 << 20):.1f}Mi" if peaks.memory is not None else "",
        f"pids {peaks.pids}" if peaks.pids is not None else "",
        f"disk {peaks.disk / (1 << 20):.1f}Mi" if peaks.disk is not None else "",
    ]
    changes = list(
        difflib.unified_diff(_lines(spec), _lines(lesson.spec), "manifest", "proposal", lineterm="")
    )
    painted = [paint(harmless(line), _COLOURS.get(line[:1], ""), on=colour) for line in changes]
    return (
        f"At most it used: {', '.join(word for word in seen if word)}",
        *(painted or ["The manifest is as small as it can be."]),
        *(f"- {word}" for word in (*lesson.notes, _UNSEEN)),
    )


_COLOURS: Final = {"+": "green", "-": "red"}


def _lines(spec: Mapping[str, Any]) -> list[str]:
    return yaml_of({"spec": {name: spec[name] for name in _PARTS if name in spec}}).splitlines()
