"""What a runtime can hold a plugin to, control by control."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from crucible.model.bus import USES
from crucible.model.probe import KINDS


class Control(StrEnum):
    """One thing the manifest or the product promises to hold a plugin to.

    Those up to ``OPEN_FILES`` hold every plugin. The others each hold a plugin to what it was granted of one
    capability, and matter to those that ask for it.
    """

    IDENTITY = "identity"
    NAMESPACES = "namespaces"
    ROOT_FS = "rootFilesystem"
    PRIVILEGES = "privileges"
    SYSCALLS = "systemCalls"
    NETWORK = "network"
    CPU = "cpu"
    MEMORY = "memory"
    PIDS = "pids"
    DISK = "disk"
    OPEN_FILES = "openFiles"
    LISTEN = "listen"
    FILES = "files"
    EGRESS = "egress"
    SECRETS = "secrets"
    BUS = "bus"
    STORE = "store"
    SECRET_ENV = "secretEnvironment"  # noqa: S105 - a control's name


class Level(StrEnum):
    """How well a control holds: by the kernel, by something weaker, or not at all."""

    ENFORCED = "enforced"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """One control, how well it holds here, and by what (or why not, and the fix)."""

    control: Control
    level: Level
    by: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one runtime on this host offers: asked by the core before anything is started.

    Attributes:
        runtime: ``process``, ``docker`` or ``kubernetes``.
        types: plugin types it can run.
        isolation: values of ``sandbox.isolation`` it can give.
        controls: one entry for every :class:`Control`.
        sources: kinds of ``spec.source`` it can run from.
        volumes: uses of volumes that it offers, in the words of :func:`crucible.model.volume.access`.
        probes: kinds of probe that can be asked.
        deliveries: values of ``configDelivery`` that it can keep.
        no_freezer: why instances cannot be held still, and the fix; empty where they can.
        asks: kinds of probe that the runtime asks itself; ``Instance.ready`` says what they came to.
        usage: which figures of ``Usage`` it can tell.
        bus: of :data:`crucible.model.bus.USES`, what it offers where it offers the bus.
        lacks: what it does not offer that others do, each with why and the fix.
    """

    runtime: str
    types: frozenset[str]
    isolation: frozenset[str]
    controls: tuple[Enforcement, ...]
    sources: frozenset[str] = frozenset({"inline", "path"})
    probes: frozenset[str] = frozenset(KINDS)
    volumes: frozenset[str] = frozenset()
    deliveries: frozenset[str] = frozenset({"restart", "file", "signal", "bus"})
    no_freezer: str = ""
    asks: frozenset[str] = frozenset()
    usage: frozenset[str] = frozenset({"memory", "cpu", "pids", "throttled"})
    bus: frozenset[str] = USES
    lacks: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a report with a hole: a control nobody spoke of would look like one that holds."""
        missing = set(Control) - {entry.control for entry in self.controls}
        if missing:
            raise ValueError(f"capabilities of {self.runtime} say nothing about {sorted(missing)}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis: what was looked at, whether it is well, what was seen, what would mend it."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
