"""Reads what earlier controllers left, and tells what is still alive."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from crucible.model.instance import Exit
from crucible.runtimes.process import proc
from crucible.runtimes.process.record import Record, load, slot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crucible.model.workload import Slot


class Find(Enum):
    """What an instance's directory turned out to be."""

    RUNNING = auto()
    ENDED_UNSEEN = auto()
    ENDED = auto()
    NEVER_RAN = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class Found:
    """One instance's directory, its record where that could be read, and what follows."""

    directory: Path
    plugin_uid: str
    slot: Slot
    find: Find
    record: Record | None
    problem: str = ""


def survey(
    instances: Path, control_plane: str, known: Callable[[str, Slot], bool] = lambda *_: False
) -> Iterator[Found]:
    """Yield every instance of this control plane; others' ones, and what is no instance, are passed over.

    Args:
        instances: where their directories are.
        control_plane: whose they have to be.
        known: told a plugin's uid and a slot; those it knows are passed over too.
    """
    for plugin in sorted(instances.iterdir()) if instances.is_dir() else ():
        for directory in sorted(plugin.iterdir()) if plugin.is_dir() else ():
            slot = slot_of(directory.name)
            if slot is None or known(plugin.name, slot) or not directory.is_dir():
                continue
            try:
                record = load(directory)
            except ValueError as error:
                yield Found(directory, plugin.name, slot, Find.UNREADABLE, None, str(error))
                continue
            if record is None:
                yield Found(directory, plugin.name, slot, Find.NEVER_RAN, None)
            elif record.control_plane == control_plane and (record.plugin_uid, record.slot) == (
                plugin.name,
                slot,
            ):
                yield Found(directory, plugin.name, slot, _judge(record), record)


def never_ran(directory: Path, control_plane: str) -> bool:
    """Tell whether a directory is there and is what a start of ours left that had no process yet."""
    if not directory.is_dir():
        return False
    try:
        record = load(directory)
    except ValueError:
        return False
    return record is None or (record.control_plane == control_plane and _judge(record) is Find.NEVER_RAN)


def _judge(record: Record) -> Find:
    if record.exit is not None:
        return Find.ENDED
    if record.monitor is None:
        return Find.NEVER_RAN
    return Find.RUNNING if monitor_runs(record) else Find.ENDED_UNSEEN


def monitor_runs(record: Record) -> bool:
    """Tell whether the very process that was started as this instance's monitor still runs."""
    monitor = record.monitor
    if monitor is None or monitor.boot != proc.boot_id() or proc.started(monitor.pid) != monitor.started:
        return False
    program = proc.executable(monitor.pid)
    return (
        program in {None, record.bwrap}
        and proc.arguments(monitor.pid)[:1] == (record.mark.encode(),)
        and len(proc.pids_by_namespace(monitor.pid)) == 1
    )


def hold_monitor(record: Record) -> int | None:
    """Return a pidfd of an instance's monitor; None when that has ended."""
    if record.monitor is None:
        return None
    held = proc.hold(record.monitor.pid)
    if held is not None and not monitor_runs(record):
        # It ended between two looks, and the number may be another's by now.
        os.close(held)
        return None
    return held


def unreadable(found: Found, control_plane: str, cgroups: tuple[str, ...], now: float) -> Record:
    """Return a record in place of an unreadable one: enough to end the instance, show it and remove it."""
    return Record(
        control_plane=control_plane,
        namespace="",
        plugin=found.plugin_uid,
        plugin_uid=found.plugin_uid,
        slot=found.slot,
        revision="",
        uid=None,
        cgroups=cgroups,
        bwrap=(0, 0),
        root="",
        created_at=now,
        exit=Exit(
            at=now,
            problem=f"its record could not be read after a restart ({found.problem}); it was ended",
            lost=True,
        ),
    )
