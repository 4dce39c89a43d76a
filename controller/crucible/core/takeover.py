"""How a new revision takes over from the one before: the one place where the update strategies differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from crucible.model.instance import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.core.verdict import Policy
    from crucible.model.instance import Instance
    from crucible.model.manifest import PluginSpec
    from crucible.model.status import Replica


@dataclass(frozen=True, slots=True)
class Overlap:
    """Who may be alive beside the wanted instance of one replica.

    Attributes:
        incumbent: of another revision; it serves and stays until the wanted one is verified.
        may_start: the wanted one may be started although others are alive.
        due: unix seconds at which the wanted one is verified, if it goes on running.
    """

    incumbent: Instance | None = None
    may_start: bool = True
    due: float | None = None


@dataclass(frozen=True, slots=True)
class Turns:
    """Which replicas are replaced now; the others keep what serves.

    Attributes:
        beside: ordinals that may have two instances at once: the new one comes before the old one goes.
        instead: ordinals that may be without one: the old one goes before the new one comes.
        held_up: others wait until those that were replaced serve.
        due: unix seconds at which one of those is verified, if it goes on running.
    """

    beside: frozenset[int] = frozenset()
    instead: frozenset[int] = frozenset()
    held_up: bool = False
    due: float | None = None


def overlap_of(
    instances: tuple[Instance, ...],
    newcomer: Instance | None,
    since: float | None,
    policy: Policy,
) -> Overlap:
    """Decide who of the old may stay, and whether the new may come before they are gone.

    ``recreate``: none may, and it may not. ``rolling``, ``handover``: the one that serves may, until the new
    one is verified or its replica is the one to do without; those that stop are in nobody's way.

    Args:
        instances: all of one replica.
        newcomer: the one that is wanted, if it is alive.
        since: unix seconds since when the newcomer is ready; None: it is not.
        policy: how to update, and whether it is this replica's turn.
    """
    if not policy.update.overlaps:
        return Overlap(may_start=not any(instance.alive for instance in instances))
    incumbent = _incumbent(instances, newcomer)
    due = None if since is None else since + policy.update.verification
    if incumbent is None or (due is not None and policy.now >= due):
        return Overlap()
    if policy.instead and newcomer is None:
        return Overlap(may_start=False)
    return Overlap(incumbent, policy.beside, due)


def turns_of(
    instances: tuple[Instance, ...],
    known: Mapping[int, Replica],
    revision: str,
    spec: PluginSpec,
    now: float,
) -> Turns:
    """Return the replicas that are replaced now: as many at once as the manifest says.

    Those that are at it go on; others follow in order, those that are not ready first, as long as no more
    are left without one that serves than ``maxUnavailable`` says. A revision that fails is tried by one
    replica only.

    Args:
        instances: all of the Plugin, oldest first.
        known: what was last said of each replica.
        revision: the wanted one.
        spec: how many are wanted, and how they are updated.
        now: unix seconds.
    """
    found = [_stand(instances, known.get(ordinal), ordinal, revision) for ordinal in range(spec.replicas)]
    verification, most = spec.update.verification, spec.update.unavailable(spec.replicas)
    surging = [each for each in found if each.at is _At.BESIDE]
    failed = [each for each in found if each.at is _At.FAILED]
    absent = [each for each in found if each.at is _At.NEW and each.since + verification > now]
    waiting = sorted((each for each in found if each.at is _At.WAITING), key=lambda each: each.ready)
    held_up = bool(waiting and absent)
    due = min((each.since + verification for each in absent), default=math.inf)
    if failed:
        waiting = [] if surging else failed[:1]
    elif len(absent) > most or any(each.crashed for each in absent):
        waiting = []
    # What was begun beside the old one goes on so: the old one serves, and the new one may never come up.
    room = 1 if failed else max(spec.update.surge(spec.replicas) - len(surging), 0)
    instead = _done_without(waiting[room:], most - len(absent), most - sum(not each.ready for each in found))
    return Turns(
        frozenset(each.ordinal for each in (*surging, *waiting[:room])),
        frozenset(each.ordinal for each in instead),
        held_up,
        due if held_up and math.isfinite(due) else None,
    )


def _done_without(waiting: list[_Stand], gone: int, ready: int) -> list[_Stand]:
    """Return the replicas that may be without an instance for a while.

    Args:
        waiting: those that might.
        gone: how many more may be without any.
        ready: how many more may be without a ready one.
    """
    found: list[_Stand] = []
    for each in waiting:
        if len(found) < gone and (not each.ready or ready > 0):
            found.append(each)
            ready -= each.ready
    return found


class _At(Enum):
    """How far a replica is with an update."""

    NEW = auto()  # nothing of the old is left that serves
    WAITING = auto()
    BESIDE = auto()
    FAILED = auto()  # the old one serves, and the new one crashed


@dataclass(frozen=True, slots=True)
class _Stand:
    """Where one replica stands.

    Attributes:
        ordinal: which.
        at: how far it is.
        ready: what serves it is ready, as far as is known.
        crashed: an instance of the wanted revision ended by itself.
        since: unix seconds since when the new one is ready; infinite while it is not.
    """

    ordinal: int
    at: _At
    ready: bool
    crashed: bool
    since: float = math.inf


def _stand(instances: tuple[Instance, ...], said: Replica | None, ordinal: int, revision: str) -> _Stand:
    own = tuple(
        instance
        for instance in instances
        if instance.slot.ordinal == ordinal and (said is None or instance.slot.attempt != said.condemned)
    )
    newcomer = newest_of(own, revision)
    crashed = said is not None and said.revision == revision and bool(said.crashes)
    if _incumbent(own, newcomer) is not None:
        at = _At.BESIDE if newcomer is not None else _At.FAILED if crashed else _At.WAITING
        return _Stand(ordinal, at, said is None or said.ready, crashed)
    if newcomer is None or not _serves(newcomer) or said is None or said.name != newcomer.name:
        return _Stand(ordinal, _At.NEW, ready=False, crashed=crashed)
    since = math.inf if said.ready_since is None else said.ready_since
    return _Stand(ordinal, _At.NEW, said.ready_since is not None, crashed, since)


def newest_of(instances: tuple[Instance, ...], revision: str) -> Instance | None:
    """Return the newest instance that runs this revision and was not asked to stop."""
    fitting = [
        instance
        for instance in instances
        if instance.revision == revision and instance.state in {State.STARTING, State.RUNNING}
    ]
    return max(fitting, key=lambda instance: instance.slot.attempt, default=None)


def _incumbent(instances: tuple[Instance, ...], newcomer: Instance | None) -> Instance | None:
    """Return the oldest instance that serves, unless it runs what is wanted and the others came after it."""
    serving = [instance for instance in instances if _serves(instance)]
    oldest = min(serving, key=lambda instance: instance.slot.attempt, default=None)
    if oldest is None or (newcomer is not None and oldest.revision == newcomer.revision):
        return None
    return oldest


def _serves(instance: Instance) -> bool:
    return instance.state is State.RUNNING
