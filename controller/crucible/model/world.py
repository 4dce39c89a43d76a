"""Everything a decision may look at, gathered before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crucible.errors import Violation
    from crucible.model.enforcement import Capabilities
    from crucible.model.instance import Instance
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.status import PluginStatus, SourceReport


@dataclass(frozen=True, slots=True)
class World:
    """One Plugin and what surrounds it, at one moment.

    Attributes:
        now: unix seconds.
        identity: who the Plugin is.
        spec: what it asks for; the violations instead when it asks for what cannot be.
        source: what its source was resolved to; the violation instead when it could not be.
        capabilities: what the runtime holds plugins to.
        outage: why the runtime does not answer now; empty while it does.
        instances: all the runtime has for this Plugin, oldest first.
        status: what was last said of it.
    """

    now: float
    identity: Identity
    spec: PluginSpec | tuple[Violation, ...]
    source: SourceReport | Violation
    capabilities: Capabilities
    instances: tuple[Instance, ...]
    status: PluginStatus
    outage: str = ""
