"""Reads everything a decision looks at: the Plugin itself, and what surrounds it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from crucible.core.admission import admit
from crucible.errors import InvalidManifest, InvalidSource, Unavailable, Underway, Violation
from crucible.model.asked import read_rollback
from crucible.model.manifest import PluginSpec
from crucible.model.plugin import read_identity
from crucible.model.revision import revision_name
from crucible.model.status import PluginStatus
from crucible.model.workload import Slot
from crucible.model.world import Reach, Waiting, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.neighbour import Around
    from crucible.model.plugin import Identity
    from crucible.model.revision import Revision
    from crucible.model.secret import SecretSeen
    from crucible.model.status import SourceReport
    from crucible.ports import Endpoints, Ports, Secrets, Sources

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Read:
    """A Plugin object and what was read of it; read again only when another object comes in.

    Attributes:
        plugin: the object as the control plane holds it.
        identity: who it is.
        spec: what it asks for, or why that cannot be.
    """

    plugin: Mapping[str, Any]
    identity: Identity
    spec: PluginSpec | tuple[Violation, ...]


def read_plugin(plugin: Mapping[str, Any], before: Read | None = None) -> Read:
    """Read and check a Plugin object; what it says of itself is not checked again where it says the same.

    Every status that is written brings the object back, so that half of all objects say nothing new.
    """
    if before is not None and _says_the_same(plugin, before.plugin):
        return Read(plugin, read_identity(plugin), before.spec)
    try:
        return Read(plugin, read_identity(plugin), admit(plugin))
    except InvalidManifest as error:
        return Read(plugin, read_identity(plugin), error.violations)


def _says_the_same(plugin: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    meta, others = plugin["metadata"], other["metadata"]
    return plugin.get("spec") == other.get("spec") and all(
        meta.get(key) == others.get(key) for key in ("name", "labels", "annotations")
    )


async def _recall(read: Read, status: PluginStatus, ports: Ports) -> dict[str, Revision]:
    """Read the revisions that are, or may be, to run in the place of the wanted one."""
    asked = read_rollback(read.identity.rollback).target
    decided = status.rollback.revision if status.rollback is not None else ""
    known = {each.revision for each in status.history}
    found: dict[str, Revision] = {}
    for wanted in sorted({asked, decided} & known):
        name = revision_name(read.identity.name, wanted)
        revision = await ports.revisions.recall(read.identity, name)
        if revision is not None:
            found[wanted] = await _with_source(read, revision, ports)
    return found


async def _with_source(read: Read, revision: Revision, ports: Ports) -> Revision:
    """Make sure of the files that stand in the manifest itself; a folder's are kept with the revision."""
    if revision.spec.source.inline is None:
        return revision
    return replace(
        revision, source=await ports.sources.resolve(read.identity, revision.spec, revision.source)
    )


async def gather(read: Read, said: PluginStatus | None, ports: Ports, around: Around) -> World:
    """Read everything a decision looks at.

    Args:
        read: the Plugin as last seen.
        said: the status this controller reported last; it may be newer than the object's.
        ports: the outside.
        around: the Plugins that it needs and that need it.
    """
    status = said or read_status(read.plugin.get("status"))
    source = await _resolve(read, status, ports.sources)
    return World(
        now=ports.now(),
        identity=read.identity,
        spec=read.spec,
        source=source,
        capabilities=ports.runtime.capabilities,
        instances=ports.runtime.instances(read.identity.uid),
        status=status,
        reach=await _look(read, ports.endpoints),
        outage=ports.runtime.outage,
        streaks=dict(ports.prober.streaks(read.identity.uid)),
        secrets=_look_at_secrets(read, ports.secrets),
        around=around,
        recalled=await _recall(read, status, ports),
        started_lately=_started_lately(read, ports),
        open_calls=await _open_calls(read, status, ports),
        hooks=ports.aside.hooks(read.identity.uid),
        notices=ports.doors.notices(read.identity.uid),
        lacks=ports.doors.lacks(read.identity.uid),
    )


async def _open_calls(read: Read, status: PluginStatus, ports: Ports) -> Mapping[int, int | None]:
    slots = [Slot(each.ordinal, each.attempt) for each in status.draining]
    return await ports.doors.open_calls(read.identity.uid, slots) if slots else {}


def _started_lately(read: Read, ports: Ports) -> int:
    """Count the starts of the last second, of whatever plugin, for one that may be started after an end."""
    if all(instance.alive for instance in ports.runtime.instances(read.identity.uid)):
        return 0
    since = ports.now() - 1
    return sum(instance.created_at > since for instance in ports.runtime.instances())


async def _resolve(read: Read, status: PluginStatus, sources: Sources) -> SourceReport | Violation | Waiting:
    if not isinstance(read.spec, PluginSpec) or read.identity.deleting:
        return Violation("spec.source", "is not looked at: the plugin is refused or being deleted")
    try:
        return await sources.resolve(read.identity, read.spec, status.source)
    except Underway as error:
        return Waiting(str(error))
    except (InvalidSource, Unavailable) as error:
        return Violation("spec.source", str(error))


async def _look(read: Read, endpoints: Endpoints) -> Reach | None:
    if not isinstance(read.spec, PluginSpec) or read.identity.deleting or read.spec.source.url is None:
        return None
    return Reach(ok=False, message="") if read.spec.suspend else await endpoints.reach(read.spec.source.url)


def _look_at_secrets(read: Read, secrets: Secrets) -> tuple[SecretSeen, ...]:
    if not isinstance(read.spec, PluginSpec) or not read.spec.capabilities.secrets:
        return ()
    return secrets.look(read.identity.namespace, read.spec.capabilities.secrets)


def read_status(status: object) -> PluginStatus:
    """Read what was said before; a status that cannot be read counts as nothing said."""
    try:
        return PluginStatus.model_validate(status or {})
    except ValidationError as error:
        log.warning("the stored status cannot be read and is written anew: %s", error)
        return PluginStatus()
