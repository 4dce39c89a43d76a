"""The pods of this runtime's plugins as instances: those that are there, and those that are no more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from crucible.model.instance import Exit, Instance, State
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.reading import instance_of, listens

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.model.workload import Slot

Pod = dict[str, Any]
_WANTED: Final = frozenset({marks.REACHED, marks.CONFIG})
"""What follows from what is wanted, and is put right by whoever wants it."""
_DELETED: Final = "its pod was deleted by someone else than the controller"


@dataclass(frozen=True, slots=True)
class Held:
    """One instance and the pod that it is; None for one that has no pod any more, or never had."""

    instance: Instance
    pod: Pod | None = None


class Pods:
    """Every instance, by its plugin. Fed by whoever follows the cluster's pods.

    A pod vanishes once it has ended after a deletion, and so does all it could tell. What was known of it
    stays here until somebody removes the instance.

    Attributes:
        doubts: pods that vanished without having been deleted: perhaps only their labels did.
        bare: pods whose labels are not what they should be.
    """

    def __init__(self, now: Callable[[], float], changed: Callable[[str], None]) -> None:
        self.doubts: asyncio.Queue[Pod] = asyncio.Queue()
        self.bare: asyncio.Queue[Pod] = asyncio.Queue()
        self._now = now
        self._changed = changed
        self._held: dict[str, dict[Slot, Held]] = {}
        self._asked: dict[str, float] = {}
        self._removed: set[str] = set()

    def all(self, plugin_uid: str | None = None) -> list[Held]:
        """Return the instances of one plugin, or of all, oldest first."""
        if plugin_uid is None:
            found = [held for slots in self._held.values() for held in slots.values()]
        else:
            found = list(self._held.get(plugin_uid, {}).values())
        return sorted(found, key=lambda held: (held.instance.created_at, held.instance.slot.attempt))

    def find(self, plugin_uid: str, slot: Slot) -> Held | None:
        """Return one instance."""
        return self._held.get(plugin_uid, {}).get(slot)

    def plugins(self) -> list[str]:
        """Return the uid of every plugin that has an instance."""
        return list(self._held)

    def alive(self, plugin_uid: str) -> list[Pod]:
        """Return the pods of a plugin that may still run code."""
        return [held.pod for held in self.all(plugin_uid) if held.pod is not None and held.instance.alive]

    def told(self, before: Pod | None, after: Pod | None) -> None:
        """Take in that a pod came, changed or went."""
        pod = after or before
        if pod is None:
            return
        owner, slot = marks.owner_of(pod), marks.slot_of(pod)
        if owner is None or slot is None:
            return
        uid = pod["metadata"]["uid"]
        if after is None:
            self._lose(pod, owner, slot)
        elif uid not in self._removed:
            known = self.find(owner.uid, slot)
            kept = _labelled_as(known.pod if known else None, after)
            self._take(kept, owner, slot)
            if not _well_labelled(after, owner, slot):
                self.bare.put_nowait(kept)

    def _take(self, pod: Pod, owner: marks.Owner, slot: Slot) -> None:
        instance = instance_of(pod, owner, slot)
        asked = self._asked.get(pod["metadata"]["uid"])
        if asked is not None and instance.stopping_at is None:
            state = State.STOPPING if instance.alive else State.EXITED
            instance = replace(instance, state=state, stopping_at=asked)
        self._put(Held(instance, pod))

    def _lose(self, pod: Pod, owner: marks.Owner, slot: Slot) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._removed:
            self._removed.discard(uid)
            self._asked.pop(uid, None)
        elif "deletionTimestamp" in pod["metadata"] or uid in self._asked:
            self.bury(pod, owner, slot)
        else:
            self.doubts.put_nowait(pod)

    def bury(self, pod: Pod, owner: marks.Owner, slot: Slot) -> None:
        """Keep what is known of a pod that is no more."""
        known = self.find(owner.uid, slot)
        if known is None or known.pod is None or known.pod["metadata"]["uid"] != pod["metadata"]["uid"]:
            return
        instance = known.instance
        if instance.exit is None:
            end = Exit(at=self._now(), problem=_DELETED, lost=True)
            if instance.stopping_at is not None:
                end = Exit(at=self._now(), problem="its pod is gone", lost=True)
            instance = replace(instance, state=State.EXITED, exit=end, notices=(), endpoints=())
        self._asked.pop(pod["metadata"]["uid"], None)
        self._put(Held(instance))

    def refuse(self, instance: Instance) -> None:
        """Keep an instance that never had a pod: its end says why."""
        self._put(Held(instance))

    def ask(self, held: Held) -> None:
        """Note that an instance is asked to end."""
        if held.pod is not None and held.instance.stopping_at is None:
            self._asked[held.pod["metadata"]["uid"]] = self._now()
            if held.instance.alive:
                stopping = replace(held.instance, state=State.STOPPING, stopping_at=self._now())
                self._keep(Held(stopping, held.pod))

    def unask(self, held: Held) -> None:
        """Note that an instance could not be asked to end after all."""
        if held.pod is not None and held.instance.stopping_at is None:
            self._asked.pop(held.pod["metadata"]["uid"], None)
            now = self.find(held.instance.plugin_uid, held.instance.slot)
            if now is not None and now.pod is not None:
                self._keep(Held(instance_of(now.pod, *_identity(now)), now.pod))

    def forget(self, held: Held) -> None:
        """Drop an instance; what the cluster still tells of its pod counts no more."""
        instance = held.instance
        slots = self._held.get(instance.plugin_uid, {})
        slots.pop(instance.slot, None)
        if not slots:
            self._held.pop(instance.plugin_uid, None)
        if held.pod is not None:
            self._removed.add(held.pod["metadata"]["uid"])
        self._changed(instance.plugin_uid)

    def _put(self, held: Held) -> None:
        before = self._keep(held)
        if before is None or before.instance != held.instance:
            self._changed(held.instance.plugin_uid)

    def _keep(self, held: Held) -> Held | None:
        """Keep an instance and return what was kept of it; tells nobody.

        Whoever asks an instance to end knows of it, and one who is woken by what failed would try for ever.
        """
        slots = self._held.setdefault(held.instance.plugin_uid, {})
        before = slots.get(held.instance.slot)
        slots[held.instance.slot] = held
        return before


def _identity(held: Held) -> tuple[marks.Owner, Slot]:
    instance = held.instance
    return marks.Owner(instance.namespace, instance.plugin, instance.plugin_uid), instance.slot


def ports_of(pods: list[Pod]) -> tuple[int, ...]:
    """Return the ports on which any of these pods may listen."""
    return tuple(sorted({port for pod in pods for port in listens(pod)}))


def ordinals_of(pods: list[Pod]) -> set[int]:
    """Return which replicas these pods are."""
    return {slot.ordinal for slot in map(marks.slot_of, pods) if slot is not None}


def _well_labelled(pod: Pod, owner: marks.Owner, slot: Slot) -> bool:
    labels = pod["metadata"].get("labels") or {}
    doors = marks.doors_of(pod)
    should = marks.pod_labels(owner, slot.ordinal, labels.get(marks.REVISION, ""), doors)
    return (
        bool(labels.get(marks.REVISION))
        and should.items() <= labels.items()
        and all(door in doors or label not in labels for door, label in marks.DOOR_LABELS.items())
    )


def _labelled_as(before: Pod | None, after: Pod) -> Pod:
    """Return a pod with our labels and annotations as they were: nobody else may change what it is."""
    if before is None or before["metadata"]["uid"] != after["metadata"]["uid"]:
        return after
    meta = {**after["metadata"]}
    for field in ("labels", "annotations"):
        ours = {
            key: value
            for key, value in (before["metadata"].get(field) or {}).items()
            if key.startswith(marks.OURS) and key not in _WANTED
        }
        meta[field] = {**(meta.get(field) or {}), **ours}
    return {**after, "metadata": meta}
