"""The ConfigMaps of plugins: files, which never change, and the configuration of one pod, which may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crucible.errors import Conflict, NotFound
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.upkeep import collection
from crucible.runtimes.kubernetes.volumes import live_config_map

if TYPE_CHECKING:
    from crucible.runtimes.kubernetes.cluster import Cluster


class Maps:
    """Makes them, changes what may change, deletes them. Never touches one that is another's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def put_files(self, wanted: dict[str, Any], owner: marks.Owner) -> None:
        """Make one; one of that name has to be the same, for what it is called says what is in it.

        Raises:
            Conflict: something of that name belongs to someone else.
        """
        path, name = _path(owner), wanted["metadata"]["name"]
        try:
            await self._cluster.create(path, wanted)
        except Conflict:
            live = await self._own(owner, name)
            if live.get("data", {}) == wanted["data"] and live.get("immutable") is True:
                return
            await self._delete(live, f"{path}/{name}")
            await self._cluster.create(path, wanted)

    async def put_config(self, owner: marks.Owner, pod: str, config: str) -> None:
        """Make a pod's own, or put this configuration into it.

        Raises:
            Conflict: something of that name belongs to someone else.
        """
        wanted = live_config_map(owner, pod, config)
        path, name = _path(owner), wanted["metadata"]["name"]
        try:
            await self._cluster.create(path, wanted)
        except Conflict:
            live = await self._own(owner, name)
            body = {"metadata": {"uid": live["metadata"]["uid"]}, "data": wanted["data"]}
            await self._cluster.patch(f"{path}/{name}", body)

    async def drop(self, owner: marks.Owner, name: str) -> None:
        """Delete one; one that is gone, or somebody else's, is no error."""
        path = f"{_path(owner)}/{name}"
        try:
            live = await self._cluster.get(path)
        except NotFound:
            return
        if marks.owner_of(live) == owner:
            await self._delete(live, path)

    async def _own(self, owner: marks.Owner, name: str) -> dict[str, Any]:
        live = await self._cluster.get(f"{_path(owner)}/{name}")
        if marks.owner_of(live) != owner:
            raise Conflict(f"ConfigMap {name} is there and belongs to someone else: delete it")
        return live

    async def _delete(self, live: dict[str, Any], path: str) -> None:
        """Delete that very one, unless it is gone or another of that name has come."""
        try:
            await self._cluster.end(path, live["metadata"]["uid"])
        except (NotFound, Conflict):
            return


def _path(owner: marks.Owner) -> str:
    return collection("/api/v1", "configmaps", owner.namespace)
