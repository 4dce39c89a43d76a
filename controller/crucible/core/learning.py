"""From what a plugin was seen to use, and was refused, to the smallest manifest that covers it. Pure."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.model.quantity import format_bytes, format_cpu, parse_bytes, parse_cpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MIB: Final = 1 << 20
MEMORY_LEAST: Final = 8 * MIB
MEMORY_STEP: Final = 4 * MIB
CPU_LEAST: Final = 20
CPU_STEP: Final = 10
PIDS_LEAST: Final = 4
DISK_STEP: Final = MIB
_DENIED: Final = frozenset({"EgressDenied", "BusDenied"})
_NEARLY: Final = 0.95
_GRANT: Final = re.compile(
    r"; to allow it, add '([A-Za-z0-9.:*>$\[\]/_-]{1,300})'"
    r" to spec\.capabilities\.(network\.connect|bus\.publish|bus\.subscribe|bus\.call)$"
)

Grants = dict[str, tuple[str, ...]]
"""Lines to add, by the list of ``capabilities`` that they belong to: ``network.connect``, ``bus.publish``."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one instance used at one moment; None where nobody counts it.

    Attributes:
        cores: processor time lately, in cores.
        memory: the most bytes it held so far.
        pids: processes and threads now.
        throttled: seconds so far in which its cpu limit held it back.
        disk: bytes in its scratch places now.
    """

    instance: str
    cores: float | None
    memory: int | None
    pids: int | None
    throttled: float | None
    disk: int | None = None


@dataclass(frozen=True, slots=True)
class Peaks:
    """The most that any instance used, and whether what it has was too little to tell.

    Attributes:
        cpu: thousandths of a core.
        memory: bytes.
        pids: processes and threads.
        held_back: an instance was held back by its cpu limit while it was watched.
        disk: bytes in its scratch places.
    """

    cpu: int | None
    memory: int | None
    pids: int | None
    held_back: bool
    disk: int | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """A proposal.

    Attributes:
        spec: the manifest's ``spec`` as it would be.
        notes: what a person should know before taking it over.
    """

    spec: dict[str, Any]
    notes: tuple[str, ...]


def peaks_of(samples: Iterable[Sample]) -> Peaks:
    """Return the peaks of a run."""
    kept = tuple(samples)
    cores = [sample.cores for sample in kept if sample.cores is not None]
    memory = [sample.memory for sample in kept if sample.memory is not None]
    pids = [sample.pids for sample in kept if sample.pids is not None]
    return Peaks(
        cpu=-(-int(max(cores) * 1_000_000) // 1000) if cores else None,
        memory=max(memory, default=None),
        pids=max(pids, default=None),
        disk=max((sample.disk for sample in kept if sample.disk is not None), default=None),
        held_back=any(_grew(kept, name) for name in {sample.instance for sample in kept}),
    )


def _grew(samples: Sequence[Sample], instance: str) -> bool:
    mine = [one.throttled for one in samples if one.instance == instance and one.throttled is not None]
    return bool(mine) and mine[-1] > mine[0]


def grants_of(events: Iterable[Mapping[str, Any]]) -> Grants:
    """Return the lines of ``capabilities`` that would have allowed what was refused.

    What an event says was made from a plugin's words: only its last clause is read, and only as a place to
    connect to, a subject or a method. Admission checks it again.
    """
    found: dict[str, dict[str, None]] = {}
    for event in events:
        match = _GRANT.search(str(event.get("message", ""))) if event.get("reason") in _DENIED else None
        if match:
            found.setdefault(match[2], {})[match[1]] = None
    return {name: tuple(lines) for name, lines in found.items()}


def lesson_of(spec: Mapping[str, Any], peaks: Peaks, grants: Grants) -> Lesson:
    """Return the smallest manifest that covers a run: half as much again as its peaks, rounded up.

    Memory in steps of 4 MiB and 8 MiB at least, cpu in steps of 10m and 20m at least, pids two more than that
    and 4 at least; disk twice the peak in whole MiB, for /tmp has three quarters of it. What nobody counted
    stays as it is.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(spec))
    resources: dict[str, Any] = changed.setdefault("resources", {})
    notes: list[str] = []
    if peaks.memory is not None:
        if _touched(peaks.memory, resources.get("memory"), parse_bytes):
            notes.append("memory: it came within 5 % of its limit and may want more than it could take")
        resources["memory"] = format_bytes(_up(peaks.memory * 3 // 2, MEMORY_STEP, MEMORY_LEAST))
    if peaks.cpu is not None:
        wanted = _up(peaks.cpu * 3 // 2, CPU_STEP, CPU_LEAST)
        if peaks.held_back and "cpu" in resources:
            notes.append("cpu: its limit held it back, so what it wants is not known: not lowered")
            wanted = max(wanted, parse_cpu(resources["cpu"]))
        resources["cpu"] = format_cpu(wanted)
    if peaks.pids is not None:
        if _touched(peaks.pids, resources.get("pids"), int):
            notes.append("pids: it came within 5 % of its limit and may want more than it could take")
        resources["pids"] = max(peaks.pids * 3 // 2 + 2, PIDS_LEAST)
    if peaks.disk is not None:
        if _touched(peaks.disk * 4 // 3, resources.get("disk"), parse_bytes):
            notes.append("disk: /tmp came within 5 % of its share and may want more than it could take")
        resources["disk"] = format_bytes(_up(peaks.disk * 2, DISK_STEP, DISK_STEP))
    for name, lines in sorted(grants.items()):
        part, _, field = name.partition(".")
        capabilities = changed["capabilities"] = dict(changed.get("capabilities") or {})
        lists = capabilities[part] = dict(capabilities.get(part) or {})
        lists[field] = list(dict.fromkeys((*(lists.get(field) or ()), *lines)))
        notes.append(f"{name}: each new line was refused; grant what you recognise, drop the rest")
    return Lesson(changed, tuple(notes))


def _up(amount: int, step: int, least: int) -> int:
    return max(-(-amount // step) * step, least)


def _touched(peak: int, limit: object, parse: Any) -> bool:  # noqa: ANN401 - one of three parsers
    return limit is not None and peak >= _NEARLY * parse(limit)
