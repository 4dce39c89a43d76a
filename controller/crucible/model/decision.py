"""What was decided: inert values that the loop carries out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from crucible.model.health import Watch
    from crucible.model.revision import Revision
    from crucible.model.status import PluginStatus
    from crucible.model.workload import Slot, Workload


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the Plugin object from disappearing before its instances: add the finalizer."""


@dataclass(frozen=True, slots=True)
class Start:
    """Make one instance."""

    workload: Workload
    slot: Slot


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an instance to end."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class RunHook:
    """Have an instance run a command before it is asked to end; what comes of it is looked at later.

    Attributes:
        slot: which.
        command: the program and its arguments.
        seconds: how long it may take.
    """

    slot: Slot
    command: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Kill:
    """End an instance that did not end when asked."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete what is left of an ended instance."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep what is wanted now as a revision to go back to."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Forget:
    """Keep a revision no longer."""

    name: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand an instance that runs a new configuration.

    Attributes:
        slot: which.
        config: as JSON text.
        how: by a ``file`` alone, with a ``signal`` besides, or by a call on the ``bus``; one that does not
            take that is asked to end.
    """

    slot: Slot
    config: str
    how: str = "file"


@dataclass(frozen=True, slots=True)
class Freeze:
    """Hold an instance still."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let an instance that is held still go on."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Route:
    """Have new connections from outside go to these instances alone.

    Attributes:
        slots: which; empty: to all there are.
    """

    slots: tuple[Slot, ...]


Action = Hold | Start | Stop | RunHook | Kill | Remove | Deliver | Freeze | Thaw | Route


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, for people. Becomes a Kubernetes Event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, what to say, and when to look again.

    Attributes:
        actions: carried out in this order.
        status: what to say of the Plugin.
        events: what happened since the last status.
        revisit: unix seconds at which to look again though nothing changed; None: not needed.
        released: nothing of the Plugin is left and it may disappear.
        watches: the probes to go on asking, and no others.
        keeping: revisions to remember and to forget; neither may hold up what runs.
    """

    actions: tuple[Action, ...]
    status: PluginStatus
    events: tuple[Event, ...] = ()
    revisit: float | None = None
    released: bool = False
    watches: tuple[Watch, ...] = ()
    keeping: tuple[Remember | Forget, ...] = ()
