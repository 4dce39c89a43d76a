"""Everything a decision may look at, gathered before it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crucible.model.neighbour import Around

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.errors import Violation
    from crucible.model.enforcement import Capabilities
    from crucible.model.health import Check, Streak
    from crucible.model.instance import Instance
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.revision import Revision
    from crucible.model.secret import SecretSeen
    from crucible.model.status import PluginStatus, SourceReport


@dataclass(frozen=True, slots=True)
class Waiting:
    """The source is on its way: how far it is, for people."""

    message: str


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether an endpoint that someone else runs answers, and why not."""

    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Hooked:
    """How far the hook of an instance is that is to be stopped.

    Attributes:
        over: it has ended.
        problem: why it did not do its part; empty where it did, or goes on.
    """

    over: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class World:
    """One Plugin and what surrounds it, at one moment.

    Attributes:
        now: unix seconds.
        identity: who the Plugin is.
        spec: what it asks for; the violations instead when it asks for what cannot be.
        source: what its source was resolved to; why it is not, when it is not yet or cannot be.
        capabilities: what the runtime holds plugins to.
        reach: of the endpoint, for a Plugin that is one; None for every other.
        outage: why the runtime does not answer now; empty while it does.
        streaks: the newest answers to each probe that is being asked, by attempt and check.
        secrets: what is known of the Secrets that it names.
        around: the other Plugins that it needs, and those that need it.
        recalled: revisions that are, or may be, to run in the place of the wanted one, by their revision.
        started_lately: instances of all Plugins that were started within the last second.
        open_calls: calls on the bus that instances have which are given no new ones, by attempt; None: not
            known yet.
        hooks: how far hooks are that this controller runs, by attempt.
        notices: what whoever is behind its doors has to say of it, for people.
        lacks: who is behind its doors as a rule and is not now, and why.
        instances: all the runtime has for this Plugin, oldest first.
        status: what was last said of it.
    """

    now: float
    identity: Identity
    spec: PluginSpec | tuple[Violation, ...]
    source: SourceReport | Violation | Waiting
    capabilities: Capabilities
    instances: tuple[Instance, ...]
    status: PluginStatus
    reach: Reach | None = None
    outage: str = ""
    streaks: Mapping[tuple[int, Check], Streak] = field(default_factory=dict)
    around: Around = field(default_factory=Around)
    recalled: Mapping[str, Revision] = field(default_factory=dict)
    started_lately: int = 0
    secrets: tuple[SecretSeen, ...] = ()
    open_calls: Mapping[int, int | None] = field(default_factory=dict)
    hooks: Mapping[int, Hooked] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
