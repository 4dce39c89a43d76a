"""One container this control plane holds, and what the engine tells of it. Translation is pure."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from signal import Signals
from typing import TYPE_CHECKING, Any, Final

from crucible.model.door import Doorway
from crucible.model.instance import Exit, Instance, State
from crucible.model.workload import config_digest
from crucible.runtimes.docker import labels as marks
from crucible.runtimes.doors import Doors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crucible.model.door import Door
    from crucible.model.workload import Slot, Workload

_STOPPING: Final = "stopping"
_CONFIGURED: Final = "configured"
_DIGEST: Final = 64
_SIGNALLED: Final = 128
_LAST_SIGNAL: Final = 64
_KILLED: Final = 137
_INIT_FAILED: Final = b"[FATAL tini ("
_NOT_RUN: Final = frozenset({126, 127})


@dataclass(slots=True)
class Held:
    """An instance of ours.

    Attributes:
        instance: as it is known now.
        uid: the user id its processes have.
        directory: what is kept for it on this host.
        container: the engine's id of it; empty until it is created.
        oom: the kernel said that it went over its memory limit.
        killed: we killed it.
        fate: why we kill it, where nobody asked for that.
        type_image: it runs in its type's own image.
        ended: set once it has ended.
        told: set once the engine, too, knows of that: it clears away first, and the output is complete.
        names: the doors it has.
        doors: the same, to be opened.
    """

    instance: Instance
    uid: int
    directory: Path
    container: str = ""
    oom: bool = False
    killed: bool = False
    fate: str = ""
    type_image: bool = True
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    names: tuple[Door, ...] = ()
    doors: Doors = field(init=False)

    def __post_init__(self) -> None:
        """Give it its doors, shut."""
        self.doors = Doors(self.directory, self.names)

    def doorways(self) -> tuple[Doorway, ...]:
        """Describe its doors, as long as it may come through them."""
        one = self.instance
        if self.ended.is_set():
            return ()
        return tuple(
            Doorway(
                door,
                one.namespace,
                one.plugin,
                one.plugin_uid,
                str(one.slot),
                self.uid,
                self.doors.speaks_tls(door),
            )
            for door in self.names
        )

    def become(self, state: State, **changes: float | Exit) -> None:
        """Change what is known of the instance."""
        self.instance = replace(self.instance, state=state, **changes)  # type: ignore[arg-type] # its own names

    def note_stopping(self, at: float) -> None:
        """Note, for the next controller too, when it was asked to stop; it may have ended at once."""
        self.become(State.EXITED if self.ended.is_set() else State.STOPPING, stopping_at=at)
        with contextlib.suppress(FileNotFoundError):  # it has ended, and what is kept for it is gone
            (self.directory / _STOPPING).touch()

    def recall_stopping(self) -> None:
        """Read what an earlier controller noted."""
        note = self.directory / _STOPPING
        if note.is_file():
            self.become(State.STOPPING, stopping_at=note.stat().st_mtime)

    def went_over(self) -> None:
        """Note that the kernel found it over its memory limit; the word can come after that of its end."""
        self.oom = True
        how = self.instance.exit
        if how is not None and how.signal == _KILLED - _SIGNALLED and not self.killed:
            self.become(State.EXITED, exit=replace(how, oom=True))

    def note_frozen(self, *, still: bool) -> None:
        """Note whether it is held still."""
        if not self.ended.is_set():
            self.instance = replace(self.instance, frozen=still)

    def note_config(self, digest: str) -> None:
        """Note, for the next controller too, which configuration it was given."""
        self.instance = replace(self.instance, config=digest)
        with contextlib.suppress(FileNotFoundError):  # it has ended, and what is kept for it is gone
            (self.directory / _CONFIGURED).write_text(digest)

    def recall_config(self) -> None:
        """Read what an earlier controller noted."""
        note = self.directory / _CONFIGURED
        if note.is_file():
            self.instance = replace(self.instance, config=note.read_text()[:_DIGEST])

    def end(self, how: Exit) -> None:
        """Note that it ended; only the first end counts."""
        if not self.ended.is_set():
            how = Exit(at=how.at, problem=self.fate) if self.fate else how
            self.become(State.EXITED, exit=how, frozen=False)
            self.doors.close()
            self.ended.set()


def new_instance(workload: Workload, slot: Slot, at: float) -> Instance:
    """Return an instance that is about to be made."""
    return Instance(
        plugin_uid=workload.plugin_uid,
        name=f"{workload.plugin}-{slot}",
        slot=slot,
        revision=workload.revision,
        state=State.STARTING,
        created_at=at,
        namespace=workload.namespace,
        plugin=workload.plugin,
        source=workload.source,
        config=config_digest(workload.config),
    )


def listed_instance(entry: Mapping[str, Any], slot: Slot) -> Instance:
    """Return the instance that an entry of ``GET /containers/json`` tells of."""
    found = entry["Labels"]
    plugin = found.get(marks.PLUGIN, "")
    return Instance(
        plugin_uid=found[marks.PLUGIN_UID],
        name=f"{plugin}-{slot}",
        slot=slot,
        revision=found.get(marks.REVISION, ""),
        state=State.RUNNING,
        created_at=_number(found.get(marks.CREATED, "")) or float(entry["Created"]),
        namespace=found.get(marks.NAMESPACE, ""),
        plugin=plugin,
        source=found.get(marks.SOURCE, ""),
    )


def exit_of_code(code: int, at: float, *, oom: bool) -> Exit:
    """Return how a container ended: the init process ends with 128 and the signal's number."""
    number = code - _SIGNALLED
    if 0 < number <= _LAST_SIGNAL and number in set(Signals):
        return Exit(at=at, signal=number, oom=oom and code == _KILLED)
    return Exit(at=at, code=code)


def exit_of_inspection(found: Mapping[str, Any], at: float) -> Exit:
    """Return how a container ended, from ``GET /containers/ID/json``."""
    state = found["State"]
    finished = unix_time(state.get("FinishedAt", "")) or at
    if state.get("Error") and state.get("ExitCode"):
        return Exit(at=finished, problem=str(state["Error"])[:1024])
    return exit_of_code(int(state.get("ExitCode", 0)), finished, oom=bool(state.get("OOMKilled")))


def may_be_init(code: int) -> bool:
    """Whether the code may be the init process' word that it could not execute the program."""
    return code in _NOT_RUN


def init_problem(last_line: bytes) -> str:
    """Return why the init process could not execute the program, from its output; empty if it could."""
    if not last_line.startswith(_INIT_FAILED):
        return ""
    _, _, what = last_line.partition(b"] ")
    return f"the program cannot be executed: {what.decode(errors='replace').removeprefix('exec ')[:1024]}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def unix_time(text: str) -> float | None:
    """Return unix seconds for ``2026-01-31T09:30:00.123456789Z``, or None for the engine's zero."""
    if not text or text.startswith("0001-"):
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
    except ValueError:
        return None
