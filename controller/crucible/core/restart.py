"""When a replica whose instance ended is started again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.model.manifest import Strategy

if TYPE_CHECKING:
    from crucible.model.manifest import Backoff, Recovery
    from crucible.model.status import Replica

STARTS_A_SECOND = 32
"""So many starts within a second are enough: one that crashed waits, so that a fault of the host that ends
all plugins at once does not bring them all back in the same instant."""
_JITTER = 0.1
_TURN = 0.25


@dataclass(frozen=True, slots=True)
class RestartAt:
    """Start again.

    Attributes:
        at: not before this moment, unix seconds.
        afresh: not before all that was made for the replica is deleted.
    """

    at: float
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Run the last good revision in the place of this one."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Do not start again until a person says so."""


def not_ahead(replica: Replica, now: float) -> Replica:
    """Bring to now what a clock that was set back since wrote down, or it would be waited for until then.

    Written down in its turn, so that from then on time goes by.
    """
    return replica.model_copy(
        update={
            "crashes": tuple(min(at, now) for at in replica.crashes),
            "running_since": _not_after(replica.running_since, now),
            "ready_since": _not_after(replica.ready_since, now),
        }
    )


def _not_after(at: float | None, now: float) -> float | None:
    return None if at is None else min(at, now)


def recent(crashes: tuple[float, ...], recovery: Recovery, now: float) -> tuple[float, ...]:
    """Return the crashes that still count: those within the window, the newest of them.

    As many as tell any step of recovery from the next: a hundred restarts, one recreation.
    """
    return tuple(at for at in crashes if at + recovery.window > now)[-101:]  # as `lapse` reckons, to the bit


def lapse(crashes: tuple[float, ...], recovery: Recovery) -> float | None:
    """Return when the oldest of some crashes counts no more, unix seconds; None where there is none."""
    return crashes[0] + recovery.window if crashes else None


def after_crash(
    crashes: tuple[float, ...], recovery: Recovery, seed: str, *, fallback: bool = False
) -> RestartAt | TakeBack | Quarantine:
    """Decide what follows a replica's newest crash.

    Args:
        crashes: unix seconds of those that count, oldest first, the newest included.
        recovery: the manifest's policy.
        seed: what makes this replica's jitter its own.
        fallback: there is a good revision to go back to.
    """
    at = crashes[-1] + delay(len(crashes), recovery.backoff, seed)
    match _step(len(crashes), recovery, fallback=fallback):
        case Strategy.RESTART:
            return RestartAt(at)
        case Strategy.RECREATE:
            return RestartAt(at, afresh=True)
        case Strategy.ROLLBACK:
            return TakeBack()
        case Strategy.QUARANTINE:
            return Quarantine()


def _step(crashes: int, recovery: Recovery, *, fallback: bool) -> Strategy:
    """Return the step that answers the nth crash: ``restart`` answers several, ``recreate`` one.

    What no step answers is answered by the last that starts something.
    """
    answered = 0
    for step in recovery.strategy:
        match step:
            case Strategy.RESTART:
                answered += recovery.max_restarts
            case Strategy.RECREATE:
                answered += 1
            case Strategy.ROLLBACK if fallback:
                return step
            case Strategy.ROLLBACK:
                continue
            case Strategy.QUARANTINE:
                return step
        if crashes <= answered:
            return step
    return Strategy.RECREATE if Strategy.RECREATE in recovery.strategy else Strategy.RESTART


def turn(now: float, seed: str) -> float:
    """Return when one that is held back by the many others is looked at again: soon, not all at once."""
    digest = hashlib.sha256(f"{seed}/{now}".encode()).digest()
    return now + _TURN * (1 + int.from_bytes(digest[:4], "big") / 2**32)


def delay(crashes: int, backoff: Backoff, seed: str) -> float:
    """Return seconds to wait after the nth crash.

    None after the first: most crashes come alone, and waiting would only add to the outage. Then
    ``initial``, doubled each time up to ``max``, less up to a tenth so that a fault shared by many
    plugins does not bring them all back in the same instant. The tenth is computed from the seed,
    so a controller that died and came back computes the same moment.
    """
    if crashes <= 1:
        return 0.0
    exponent = min(crashes - 2, 40)
    full = min(backoff.initial * float(2**exponent), backoff.max)
    digest = hashlib.sha256(f"{seed}/{crashes}".encode()).digest()
    return full * (1 - _JITTER * int.from_bytes(digest[:4], "big") / 2**32)
