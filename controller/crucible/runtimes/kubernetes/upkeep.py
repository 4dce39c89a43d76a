"""Keeps what stands around pods, and the labels that tie it to them, as it should be, whoever changes it."""

from __future__ import annotations

import asyncio
import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from crucible.errors import Conflict, CrucibleError, NotFound
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.cluster import JSON_PATCH
from crucible.runtimes.kubernetes.pods import ordinals_of, ports_of
from crucible.runtimes.kubernetes.reflector import Reflector
from crucible.runtimes.kubernetes.surroundings import (
    BUDGET,
    PLACES,
    POLICY,
    SERVICE,
    path_of,
    repair,
    surroundings,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from crucible.model.door import Door
    from crucible.runtimes.kubernetes.cluster import Cluster
    from crucible.runtimes.kubernetes.pods import Pod, Pods
    from crucible.runtimes.kubernetes.settings import DoorService

log = logging.getLogger(__name__)

_INTERVAL: Final = 60.0
"""Seconds between two looks at everything, should a change have gone unnoticed."""
_RETRY: Final = 1.0


class Upkeep:
    """Makes the surroundings of plugins, and repairs them."""

    def __init__(
        self,
        cluster: Cluster,
        pods: Pods,
        namespaces: Collection[str],
        ways: Mapping[Door, DoorService] = MappingProxyType({}),
    ) -> None:
        """Look after the pods of these namespaces; none: of all."""
        self._cluster = cluster
        self._pods = pods
        self._ways = ways
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._followed = {
            (kind, namespace): Reflector(
                cluster, collection(*PLACES[kind], namespace), marks.SELECTOR, self._told
            )
            for kind in PLACES
            for namespace in namespaces or ("",)
        }

    def reflectors(self) -> Iterable[Reflector]:
        """Return what has to be run for the upkeep to see changes."""
        return self._followed.values()

    def look(self, plugin_uid: str) -> None:
        """Have a look at one plugin's surroundings soon."""
        self._dirty.add(plugin_uid)
        self._wake.set()

    def _told(self, before: Pod | None, after: Pod | None) -> None:
        found = after or before
        uid = (found or {}).get("metadata", {}).get("labels", {}).get(marks.PLUGIN_UID)
        owner = marks.owner_of(found) if found else None
        for each in {uid, owner.uid if owner else None} - {None}:
            self.look(str(each))

    async def surround(
        self,
        owner: marks.Owner,
        ports: Collection[int],
        ordinals: Collection[int],
        doors: Collection[Door] = (),
    ) -> None:
        """Make sure that all stands around a plugin that its pods need.

        Args:
            owner: the plugin.
            ports: on which it may listen, beside those of its pods.
            ordinals: replicas that are about to come.
            doors: what it may reach, beside what those of its pods may that were made to.

        Raises:
            Conflict: something of that name belongs to someone else.
        """
        alive = self._pods.alive(owner.uid)
        wanted = surroundings(
            owner,
            {*ports, *ports_of(alive)},
            several=len({*ordinals, *ordinals_of(alive)}) > 1,
            ways=[
                way
                for door, way in self._ways.items()
                if door in doors or any(door in marks.doors_of(each) for each in alive)
            ],
            routed=marks.is_routed(alive),
        )
        for each in wanted:
            await self._ensure(each, owner)

    async def _ensure(self, wanted: dict[str, Any], owner: marks.Owner) -> None:
        meta, path = wanted["metadata"], path_of(wanted)
        follower = self._follower(wanted["kind"], meta["namespace"])
        live = follower.find(meta["namespace"], meta["name"])
        if live is None:
            try:
                follower.take(await self._cluster.create(path, wanted))
            except Conflict:
                live = await self._cluster.get(f"{path}/{meta['name']}")
            else:
                return
        if not _belongs(live, owner):
            raise Conflict(
                f"{wanted['kind']} {meta['name']} is there and belongs to someone else: delete or rename it, "
                "or rename the plugin"
            )
        patch = repair(live, wanted)
        if patch:
            log.info("%s %s/%s: put back", wanted["kind"], meta["namespace"], meta["name"])
            follower.take(await self._cluster.patch(f"{path}/{meta['name']}", patch, JSON_PATCH))

    def _follower(self, kind: str, namespace: str) -> Reflector:
        return self._followed.get((kind, namespace)) or self._followed[kind, ""]

    async def clear(self, owner: marks.Owner) -> None:
        """Delete what stands around a plugin that has no pods any more."""
        for kind, name in (
            (SERVICE, marks.service_name(owner)),
            (BUDGET, marks.rules_name(owner)),
            (POLICY, marks.rules_name(owner)),
        ):
            live = self._follower(kind, owner.namespace).find(owner.namespace, name)
            if live is not None and _belongs(live, owner):
                await self.delete(live, f"{collection(*PLACES[kind], owner.namespace)}/{name}")
                self._follower(kind, owner.namespace).drop(live)

    async def delete(self, live: dict[str, Any], path: str) -> None:
        """Delete one object, unless it is gone or another of that name has come."""
        try:
            await self._cluster.end(path, live["metadata"]["uid"])
        except (NotFound, Conflict):
            return

    async def run(self) -> None:
        """Repair whatever somebody changed, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_INTERVAL):
                    await self._wake.wait()
            except TimeoutError:
                self._dirty.update(self._pods.plugins())
            self._wake.clear()
            while self._dirty:
                await self._repair(self._dirty.pop())

    async def _repair(self, plugin_uid: str) -> None:
        pods = self._pods.alive(plugin_uid)
        owner = marks.owner_of(pods[0]) if pods else None
        if owner is None:
            return
        try:
            await self.surround(owner, (), ())
            if len(ordinals_of(pods)) == 1:
                await self._drop(BUDGET, marks.rules_name(owner), owner)
            if not ports_of(pods):
                await self._drop(SERVICE, marks.service_name(owner), owner)
        except Conflict as error:
            log.warning("%s/%s: %s", owner.namespace, owner.plugin, error)
        except CrucibleError as error:
            log.warning("%s/%s: not put back yet: %s", owner.namespace, owner.plugin, error)
            asyncio.get_running_loop().call_later(_RETRY, self.look, plugin_uid)

    async def _drop(self, kind: str, name: str, owner: marks.Owner) -> None:
        live = self._follower(kind, owner.namespace).find(owner.namespace, name)
        if live is not None and _belongs(live, owner):
            await self.delete(live, f"{collection(*PLACES[kind], owner.namespace)}/{name}")

    async def mend(self) -> None:
        """Give pods back the labels that somebody took, until cancelled: they tie rules to them."""
        while True:
            pod = await self._pods.bare.get()
            await self._relabel(pod)

    async def doubt(self) -> None:
        """Find out what became of pods that are no longer selected, until cancelled."""
        while True:
            pod = await self._pods.doubts.get()
            meta = pod["metadata"]
            try:
                live = await self._cluster.get(pod_path(meta["namespace"], meta["name"]))
                gone = live["metadata"]["uid"] != meta["uid"]
            except NotFound:
                gone = True
            except CrucibleError:
                asyncio.get_running_loop().call_later(_RETRY, self._pods.doubts.put_nowait, pod)
                continue
            owner, slot = marks.owner_of(pod), marks.slot_of(pod)
            if not gone:
                await self._relabel(pod)
            elif owner is not None and slot is not None:
                self._pods.bury(pod, owner, slot)

    async def _relabel(self, pod: Pod) -> None:
        owner, slot, meta = marks.owner_of(pod), marks.slot_of(pod), pod["metadata"]
        if owner is None or slot is None:
            return
        revision = (meta.get("labels") or {}).get(marks.REVISION) or "unknown"
        labels = marks.pod_labels(owner, slot.ordinal, revision, marks.doors_of(pod))
        body = {
            "metadata": {
                "uid": meta["uid"],
                "labels": {**dict.fromkeys(marks.DOOR_LABELS.values()), **labels},
            }
        }
        try:
            await self._cluster.patch(pod_path(meta["namespace"], meta["name"]), body)
            log.warning("%s/%s: labels put back that someone changed", meta["namespace"], meta["name"])
        except (NotFound, Conflict):
            self._pods.bury(pod, owner, slot)
        except CrucibleError:
            asyncio.get_running_loop().call_later(_RETRY, self._pods.bare.put_nowait, pod)


def _belongs(live: dict[str, Any], owner: marks.Owner) -> bool:
    """Whether an object is a Plugin's: its owner says so, or its label where someone took the owner away."""
    found = marks.owner_of(live)
    if found is not None:
        return found.uid == owner.uid
    return (live["metadata"].get("labels") or {}).get(marks.PLUGIN_UID) == owner.uid


def collection(root: str, plural: str, namespace: str) -> str:
    """Return the path of a collection in one namespace, or in all."""
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def pod_path(namespace: str, name: str) -> str:
    """Return the path of a pod."""
    return f"{collection('/api/v1', 'pods', namespace)}/{name}"
