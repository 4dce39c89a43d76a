"""Clearing away what nobody wants: instances whose Plugin is gone, snapshots that nothing runs from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from crucible.gathering import read_status

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from crucible.model.instance import Instance
    from crucible.ports import Ports

log = logging.getLogger(__name__)


async def sweep(plugins: Sequence[dict[str, Any]], ports: Ports) -> None:
    """Remove instances and snapshots that belong to none of these Plugins, and what is on no record at all.

    Args:
        plugins: every Plugin of the control plane, as it holds them now.
        ports: the outside.
    """
    for instance in orphans({plugin["metadata"]["uid"] for plugin in plugins}, ports.runtime.instances()):
        log.warning("%s belongs to no plugin any more: removed", instance.name)
        await ports.runtime.remove(instance.plugin_uid, instance.slot)
    for stray in await ports.runtime.sweep():
        log.warning("%s is on no record: removed", stray)
    ports.sources.sweep(wanted_sources(plugins) | running_sources(ports.runtime.instances()))


def orphans(uids: Collection[str], instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Return the instances whose Plugin is not there; ``uids`` are those of the Plugins that are."""
    return tuple(instance for instance in instances if instance.plugin_uid not in uids)


def wanted_sources(plugins: Sequence[dict[str, Any]]) -> frozenset[str]:
    """Return the digests that Plugins resolved to, or may go back to."""
    said = [read_status(plugin.get("status")) for plugin in plugins]
    return frozenset(
        [status.source.digest for status in said if status.source is not None]
        + [revision.source for status in said for revision in status.history]
    )


def running_sources(instances: Sequence[Instance]) -> frozenset[str]:
    """Return the digests that instances run from."""
    return frozenset(instance.source for instance in instances)
