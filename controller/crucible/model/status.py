"""What the controller says of a Plugin. It is also all the controller remembers between two lives."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from crucible.model.fields import ListMap
from crucible.model.health import Check


class Phase(StrEnum):
    """One word for a table. Programs read the conditions instead."""

    PENDING = "Pending"
    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"
    UPDATING = "Updating"
    FROZEN = "Frozen"
    STOPPING = "Stopping"
    SUSPENDED = "Suspended"
    BACK_OFF = "BackOff"
    QUARANTINED = "Quarantined"
    REFUSED = "Refused"
    TERMINATING = "Terminating"


def format_time(unix_seconds: float) -> str:
    """Return RFC 3339 in UTC, to the microsecond, as Kubernetes' MicroTime."""
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str | float) -> float:
    """Return unix seconds."""
    return text if isinstance(text, int | float) else datetime.fromisoformat(text).timestamp()


Time = Annotated[
    float,
    BeforeValidator(parse_time),
    PlainSerializer(format_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class _Part(BaseModel):
    """Lenient when read: an older controller wrote it, or a newer one."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )


class Condition(_Part):
    """One standard condition."""

    type: Annotated[str, Field(max_length=64)]
    """Ready, Progressing, Degraded; Reconciling and Stalled for tools that follow kstatus."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=128)]
    """One CamelCase word for programs."""
    message: Annotated[str, Field(max_length=2048)]
    """What happened and what to do, for people."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: int | None = None
    """The generation it was said of."""


class LastExit(_Part):
    """How the previous instance of a replica ended."""

    attempt: int
    """Of the instance that ended."""
    at: Time
    """When."""
    reason: Annotated[str, Field(max_length=128)]
    """OOMKilled, Crashed, Completed, StartFailed, Lost, Unhealthy or Stopped."""
    message: Annotated[str, Field(max_length=2048)]
    """In words."""
    code: int | None = None
    """Exit status."""
    signal: int | None = None
    """The signal that ended it."""


class ProbeReport(_Part):
    """What the answers to one probe came to."""

    check: Check
    """startup, ready or live."""
    attempt: int
    """Of the instance that was asked."""
    passing: bool | None = None
    """What it came to; nothing yet while there are too few answers alike."""
    ok: bool
    """What the newest answers say."""
    count: int
    """How many say so in a row; no more are counted than decide anything."""
    message: Annotated[str, Field(max_length=512)] = ""
    """What the newest of them said."""
    at: Time
    """When the newest of those counted came."""


class Replica(_Part):
    """One replica: the instance that serves it now, and what became of those before."""

    ordinal: int
    """Counts from 0."""
    name: Annotated[str, Field(max_length=128)] = ""
    """Of the instance."""
    attempt: int = 0
    """Which of the Plugin's instances serves it, or did last: they are counted from 1."""
    state: Annotated[str, Field(max_length=16)] = ""
    """starting, running, stopping, exited; empty before the first start."""
    revision: Annotated[str, Field(max_length=64)] = ""
    """Of the workload that crashes are counted for."""
    pid: int | None = None
    """Of its main process, where there is one."""
    started_at: Time | None = None
    """When the instance was made."""
    running_since: Time | None = None
    """When the instance was first seen to run."""
    ready: bool = False
    """What serves is ready."""
    ready_since: Time | None = None
    """Since when the instance is ready without a break."""
    probes: Annotated[tuple[ProbeReport, ...], Field(max_length=3), ListMap("check")] = ()
    """What its probes came to."""
    condemned: int = 0
    """The attempt that failed its probes so that it has to go; its end counts as a crash already."""
    condemned_because: Annotated[str, Field(max_length=512)] = ""
    """What its probes said."""
    incumbent: Annotated[str, Field(max_length=128)] = ""
    """The instance of the revision before that serves until this one is verified."""
    restarts: int = 0
    """Restarts of this revision that followed an end nobody asked for."""
    crashes: Annotated[tuple[Time, ...], Field(max_length=102)] = ()
    """Ends of this revision that nobody asked for, within the recovery window."""
    next_start: Time | None = None
    """When a replica that backs off is started again."""
    quarantined: bool = False
    """No restart until a person changes the Plugin or asks for one."""
    last_exit: LastExit | None = None
    """How the instance before ended."""
    ended: Annotated[tuple[int, ...], Field(max_length=1000)] = ()
    """Attempts whose end is on record and whose output is still kept."""


class ControlReport(_Part):
    """How well one control holds for this Plugin."""

    control: Annotated[str, Field(max_length=32)]
    """Its name."""
    level: Literal["enforced", "degraded", "unavailable"]
    """How well it holds."""
    by: Annotated[str, Field(max_length=512)]
    """What enforces it, or why nothing does and how to mend that."""


class SourceReport(_Part):
    """What the source was resolved to."""

    digest: Annotated[str, Field(max_length=80)]
    """Of every file's name, mode and content; of an image: its own."""
    resolved_for: Annotated[str, Field(max_length=256)]
    """The generation and annotation it was resolved for."""
    image: Annotated[str, Field(max_length=700)] = ""
    """The image to run, by digest or by its id; empty where the source is files."""


class RevisionReport(_Part):
    """One revision that the Plugin went through; the object of the same name keeps it whole."""

    number: int
    """Counts from 1; the highest is what the manifest asks for."""
    revision: Annotated[str, Field(max_length=64)]
    """Of the workload."""
    version: Annotated[str, Field(max_length=128)] = ""
    """Of the plugin."""
    at: Time
    """When it was wanted first, or again."""
    good: bool = False
    """Every replica of it was ready at some time."""
    source: Annotated[str, Field(max_length=80)] = ""
    """Digest of its source."""


class RollbackReport(_Part):
    """Which revision runs in the place of the one that the manifest asks for."""

    failed: Annotated[str, Field(max_length=64)]
    """What the manifest asks for."""
    revision: Annotated[str, Field(max_length=64)]
    """What runs instead."""
    asked: bool = False
    """A person asked for it."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why."""


class DrainReport(_Part):
    """An instance that is to be stopped, and goes on with what it has until then."""

    ordinal: int
    """Of its replica."""
    attempt: int
    """Of the instance."""
    since: Time
    """From when on it is given nothing new."""


class HookReport(_Part):
    """An instance that runs its ``preStop`` hook, and is stopped after that."""

    ordinal: int
    """Of its replica."""
    attempt: int
    """Of the instance."""
    due: Time
    """When it is stopped at the latest, whatever the hook does."""


class DependencyReport(_Part):
    """What became of one dependency."""

    name: Annotated[str, Field(max_length=63)]
    """Of the other Plugin."""
    version: Annotated[str, Field(max_length=128)] = ""
    """What there is; empty: nothing."""
    fits: bool
    """It is there, in a version that fits, and ready."""
    optional: bool = False
    """It is done without where it is not."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why it does not fit."""


class PluginStatus(_Part):
    """What is."""

    observed_generation: int = 0
    """The generation this status speaks of."""
    phase: Phase = Phase.PENDING
    """One word."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListMap("type")] = ()
    """What holds, why, and what to do."""
    revision: Annotated[str, Field(max_length=64)] = ""
    """Of the workload that should run."""
    runtime: Annotated[str, Field(max_length=32)] = ""
    """What makes its instances."""
    replicas: int = 0
    """Instances that are alive."""
    ready_replicas: int = 0
    """Instances that serve."""
    restarts: int = 0
    """Of all replicas."""
    thawed_at: Time | None = None
    """When instances that were held still went on."""
    attempts: int = 0
    """Instances started so far, whatever became of them."""
    source: SourceReport | None = None
    """What the source was resolved to."""
    instances: Annotated[tuple[Replica, ...], Field(max_length=100), ListMap("ordinal")] = ()
    """One entry for each replica."""
    history: Annotated[tuple[RevisionReport, ...], Field(max_length=64), ListMap("number")] = ()
    """The revisions it went through, oldest first; the last is what the manifest asks for."""
    looked_at: Annotated[str, Field(max_length=16)] = ""
    """Of which manifest and restart the last of them is."""
    rollback: RollbackReport | None = None
    """Which of them runs in the place of the last; unset: none does."""
    answered: Annotated[str, Field(max_length=256)] = ""
    """The last rollback that a person asked for and that was looked at: done, or refused by an event."""
    draining: Annotated[tuple[DrainReport, ...], Field(max_length=200), ListMap("attempt")] = ()
    """Instances that are given nothing new, because they are to be stopped."""
    hooks: Annotated[tuple[HookReport, ...], Field(max_length=200), ListMap("attempt")] = ()
    """Instances that run their ``preStop`` hook before they are stopped."""
    dependencies: Annotated[tuple[DependencyReport, ...], Field(max_length=32), ListMap("name")] = ()
    """What became of each dependency."""
    endpoints: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Where its ports can be reached from the host: ``8080 at 127.0.0.1:49153``."""
    enforcement: Annotated[tuple[ControlReport, ...], Field(max_length=32), ListMap("control")] = ()
    """How well each control holds."""
