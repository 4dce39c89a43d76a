"""What one replica's ladder goes by, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crucible.core.health import Asking

if TYPE_CHECKING:
    from crucible.model.decision import Action, Event
    from crucible.model.health import Watch
    from crucible.model.instance import Instance
    from crucible.model.manifest import Recovery, Update
    from crucible.model.status import Replica


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one replica needs now.

    Attributes:
        replica: what to say of it.
        actions: in order.
        events: what happened since it was last spoken of.
        revisit: unix seconds at which to look again; None: not needed.
        serving: the instance that serves, or is about to, if there is one.
        updating: instances of another revision are still alive.
        watches: the probes to go on asking its instance.
        gave_up: why the revision is to be taken back, where there is another to go back to; empty otherwise.
        clearing: all that was made for it goes before it is started again, what explains its end included.
    """

    replica: Replica
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    revisit: float | None = None
    serving: Instance | None = None
    updating: bool = False
    watches: tuple[Watch, ...] = ()
    gave_up: str = ""
    clearing: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What a replica's ladder goes by besides what is.

    Attributes:
        recovery: of the manifest.
        update: of the manifest.
        attempt: the number of the instance to start, if one has to be.
        now: unix seconds.
        beside: this replica may have two instances at once.
        instead: this replica may be without one that serves until the new one does.
        asking: what its instance is asked, and what it answered.
        awaited: what it cannot do without is not there: nothing is started, and no end is held against it.
        crowded: so many were started lately that one that crashed waits for its turn.
        thawed: unix seconds when what was held still went on last.
        fallback: there is a good revision to go back to.
        trial: seconds in which the wanted revision has to become ready without a crash, or be taken back;
            None: it was good before, or is not on trial.
    """

    recovery: Recovery
    update: Update
    attempt: int
    now: float
    beside: bool = False
    instead: bool = False
    asking: Asking = field(default_factory=Asking)
    awaited: bool = False
    crowded: bool = False
    thawed: float = 0.0
    fallback: bool = False
    trial: float | None = None
