"""How a new revision takes over from the one before: the one place where the update strategies differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.model.instance import State
from crucible.model.manifest import UpdateStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.core.verdict import Policy
    from crucible.model.instance import Instance
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


def overlap_of(
    instances: tuple[Instance, ...],
    newcomer: Instance | None,
    since: float | None,
    policy: Policy,
) -> Overlap:
    """Decide who of the old may stay, and whether the new may come before they are gone.

    ``recreate``: none may, and it may not. ``rolling``: the one that serves may, until the new one is
    verified; those that stop are in nobody's way.

    Args:
        instances: all of one replica.
        newcomer: the one that is wanted, if it is alive.
        since: unix seconds since when the newcomer is ready; None: it is not.
        policy: how to update, and whether it is this replica's turn.
    """
    if policy.update.strategy is not UpdateStrategy.ROLLING:
        return Overlap(may_start=not any(instance.alive for instance in instances))
    incumbent = _incumbent(instances, newcomer)
    due = None if since is None else since + policy.update.verification
    if incumbent is None or (due is not None and policy.now >= due):
        return Overlap()
    return Overlap(incumbent, policy.turn, due)


def turn_of(
    instances: tuple[Instance, ...], known: Mapping[int, Replica], revision: str, replicas: int
) -> int | None:
    """Return the ordinal of the one replica that may have two instances at once, or None.

    The one that has, or whose new instance failed and is tried again; else the first that is left to
    update, as long as every other one serves. A revision that fails is thus tried by one replica only.

    Args:
        instances: all of the Plugin, oldest first.
        known: what was last said of each replica.
        revision: the wanted one.
        replicas: how many are wanted.
    """
    waiting: list[int] = []
    surging: list[int] = []
    failed: list[int] = []
    unwell = False
    for ordinal in range(replicas):
        said = known.get(ordinal)
        condemned = said.condemned if said is not None else 0
        own = tuple(
            instance
            for instance in instances
            if instance.slot.ordinal == ordinal and instance.slot.attempt != condemned
        )
        newcomer = newest_of(own, revision)
        if _incumbent(own, newcomer) is None:
            unready = (
                said is not None and newcomer is not None and not said.ready and said.name == newcomer.name
            )
            unwell |= newcomer is None or not _serves(newcomer) or unready
            continue
        waiting.append(ordinal)
        if newcomer is not None:
            surging.append(ordinal)
        elif said is not None and said.revision == revision and said.crashes:
            failed.append(ordinal)
    return next(iter(surging or failed or ([] if unwell else waiting)), None)


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
