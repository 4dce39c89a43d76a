"""The Kubernetes runtime: instances are pods."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from crucible.errors import Conflict, CrucibleError, InvalidInput, NotFound, Unavailable, Unsupported
from crucible.model.instance import Exit, Instance, State
from crucible.model.workload import config_digest
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.compile import CONTAINER, pod
from crucible.runtimes.kubernetes.enforcement import capabilities
from crucible.runtimes.kubernetes.maps import Maps
from crucible.runtimes.kubernetes.metering import Metering
from crucible.runtimes.kubernetes.output import log_line
from crucible.runtimes.kubernetes.pods import Held, Pod, Pods
from crucible.runtimes.kubernetes.reflector import Reflector
from crucible.runtimes.kubernetes.refusals import problem_of, waits_for
from crucible.runtimes.kubernetes.upkeep import Upkeep, collection, pod_path
from crucible.runtimes.kubernetes.volumes import config_map

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from socket import socket

    from crucible.model.door import Doorway
    from crucible.model.enforcement import Capabilities
    from crucible.model.usage import Usage
    from crucible.model.workload import Slot, Workload
    from crucible.runtimes.base import Connected, ExecSession, LogLine
    from crucible.runtimes.kubernetes.cluster import Cluster
    from crucible.runtimes.kubernetes.settings import KubernetesSettings

log = logging.getLogger(__name__)


class KubernetesRuntime:
    """Keeps the contract of :class:`crucible.runtimes.base.Runtime` on a cluster, as far as one can.

    The cluster is the record: pods bear whose they are and what they run, and their names are the slots, so
    that no two starts can both win. What cannot be read back is how a pod ended that was deleted and vanished
    while no controller looked.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: KubernetesSettings,
        files_of: Callable[[str], Mapping[str, str]],
        now: Callable[[], float],
    ) -> None:
        """Run on a cluster.

        Args:
            cluster: its API server.
            settings: what is known of it.
            files_of: returns the inline files of a source by its digest; raises ``NotFound``.
            now: unix seconds.
        """
        self._cluster = cluster
        self._settings = settings
        self._files_of = files_of
        self._now = now
        self._metering = Metering(cluster, settings.namespaces, now)
        self._offer = (self._metering.lack, capabilities(settings, self._metering.lack))
        self._changed: Callable[[str], None] = lambda _: None
        self._pods = Pods(now, self._tell)
        self._maps = Maps(cluster)
        self._upkeep = Upkeep(cluster, self._pods, settings.namespaces, settings.ways)
        self._followed = {
            namespace: Reflector(
                cluster, collection("/api/v1", "pods", namespace), marks.SELECTOR, self._pods.told
            )
            for namespace in settings.namespaces or ("",)
        }
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def broken(self) -> str:
        """Which defect of ours ended something that has to go on; empty, as it should be."""
        return "; ".join(f"{task.get_name()} {_end_of(task)}" for task in self._tasks if task.done())

    @property
    def capabilities(self) -> Capabilities:
        """What pods of this cluster are held to; more may be had once it has a metrics API."""
        if self._offer[0] != self._metering.lack:
            self._offer = (self._metering.lack, capabilities(self._settings, self._metering.lack))
        return self._offer[1]

    @property
    def outage(self) -> str:
        """Why the cluster's pods are not known now; empty while they are."""
        return next((each.problem for each in self._followed.values() if each.problem), self.broken)

    async def open(self, changed: Callable[[str], None]) -> None:
        """Begin to follow pods; returns once those there are are known, or cannot be."""
        self._changed = changed
        await self._metering.look()
        works = {f"what follows {each.path}": each.run(self._tell_all) for each in self._followed.values()}
        works |= {f"what follows {each.path}": each.run(lambda: None) for each in self._upkeep.reflectors()}
        works |= {
            "the upkeep": self._upkeep.run(),
            "the mending of labels": self._upkeep.mend(),
            "the doubt about pods": self._upkeep.doubt(),
            "the look for metrics": self._metering.run(self._tell_all),
        }
        self._tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
        standing = asyncio.create_task(self.stand())
        listing = asyncio.create_task(self._listed())
        try:
            await asyncio.wait({standing, listing}, return_when=asyncio.FIRST_COMPLETED)
            if standing.done():
                standing.result()
        finally:
            standing.cancel()
            listing.cancel()

    async def _listed(self) -> None:
        for each in (*self._followed.values(), *self._upkeep.reflectors()):
            await each.listed.wait()

    async def stand(self) -> None:
        """Go on for as long as all does that has to; once something ended, nobody can rely on the rest.

        Raises:
            RuntimeError: a defect of ours ended something; says what.
        """
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        cause = next((task.exception() for task in self._tasks if task.done() and not task.cancelled()), None)
        raise RuntimeError(self.broken) from cause

    async def close(self) -> None:
        """Stop following."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, plugin_uid: str) -> None:
        self._upkeep.look(plugin_uid)
        self._changed(plugin_uid)

    def _tell_all(self) -> None:
        for plugin_uid in self._pods.plugins():
            self._changed(plugin_uid)

    def instances(self, plugin_uid: str | None = None) -> tuple[Instance, ...]:
        """Return what is known of a plugin's pods, or of all, oldest first."""
        return tuple(held.instance for held in self._pods.all(plugin_uid))

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        """Make a pod with all that it needs around it, or return the one that has this slot."""
        known = self._pods.find(workload.plugin_uid, slot)
        if known is not None:
            return known.instance
        try:
            await self._make(workload, slot)
        except CrucibleError as error:
            waiting = waits_for(error)
            if waiting is not None:
                raise waiting from error
            self._pods.refuse(_refused(workload, slot, problem_of(error), self._now()))
        found = self._pods.find(workload.plugin_uid, slot)
        if found is None:
            raise Unavailable(f"{workload.plugin}-{slot} was made and is gone again")
        return found.instance

    async def _make(self, workload: Workload, slot: Slot) -> None:
        owner = marks.owner_of_workload(workload)
        files = {} if workload.image else self._files(workload)
        config = config_map(workload, files)
        await self._maps.put_files(config, owner)
        if workload.live_config:
            await self._maps.put_config(owner, marks.pod_name(owner, slot), workload.config)
        await self._upkeep.surround(owner, workload.listen, {slot.ordinal}, workload.doors)
        body = pod(workload, slot, self._settings, config["metadata"]["name"], files)
        if marks.is_routed(self._pods.alive(owner.uid)):
            body["metadata"]["labels"][marks.REACHED] = "no"
        try:
            made = await self._cluster.create(collection("/api/v1", "pods", owner.namespace), body)
        except Conflict:
            made = await self._adopt(owner, slot)
        self._follower(owner.namespace).take(made)

    def _files(self, workload: Workload) -> Mapping[str, str]:
        try:
            return self._files_of(workload.source)
        except NotFound as error:
            raise Unavailable(f"{workload.plugin}: its files are not at hand: {error}") from error

    async def _adopt(self, owner: marks.Owner, slot: Slot) -> Pod:
        """Return the pod that has the name of a slot, if it is that slot's."""
        name = marks.pod_name(owner, slot)
        found = await self._cluster.get(pod_path(owner.namespace, name))
        labels = found["metadata"].get("labels") or {}
        if marks.owner_of(found) == owner and labels.get(marks.MANAGED_BY) == marks.MANAGER:
            return found
        raise Conflict(f"Pod {name} is there and belongs to someone else: delete or rename it")

    def _follower(self, namespace: str) -> Reflector:
        return self._followed.get(namespace) or self._followed[""]

    async def stop(self, plugin_uid: str, slot: Slot) -> None:
        """Delete a pod with its grace period."""
        held = self._pods.find(plugin_uid, slot)
        if held is not None and held.instance.state in _RUNS:
            await self._end(held, None)

    async def kill(self, plugin_uid: str, slot: Slot) -> None:
        """Delete a pod at once: the kubelet kills what runs, and a node that is lost is not waited for."""
        held = self._pods.find(plugin_uid, slot)
        if held is not None and held.instance.alive:
            await self._end(held, 0)

    async def remove(self, plugin_uid: str, slot: Slot) -> None:
        """Delete a pod and, with the last that needs them, its files and what stands around it."""
        held = self._pods.find(plugin_uid, slot)
        if held is None:
            return
        if held.pod is not None:
            with suppress(NotFound, Conflict):
                await self._cluster.end(_path(held.pod), held.pod["metadata"]["uid"], 0)
            self._pods.forget(held)
            self._follower(held.instance.namespace).drop(held.pod)
        else:
            self._pods.forget(held)
        await self._tidy(held)

    async def deliver(self, plugin_uid: str, slot: Slot, config: str, *, signal: bool) -> None:
        """Put a configuration into a pod's own ConfigMap, and note that at the pod.

        The kubelet brings it into the pod when it looks at it next, which the note makes it do.

        Raises:
            Unsupported: a signal was asked for; no manifest that asks for one comes this far.
        """
        if signal:
            raise Unsupported(f"{slot} of plugin {plugin_uid}: a pod cannot be signalled")
        held = self._pods.find(plugin_uid, slot)
        if held is None or held.pod is None or not held.instance.alive:
            return
        meta, owner = held.pod["metadata"], marks.owner_of(held.pod)
        if owner is None:
            return
        await self._maps.put_config(owner, meta["name"], config)
        body = {"metadata": {"uid": meta["uid"], "annotations": {marks.CONFIG: config_digest(config)}}}
        try:
            self._follower(owner.namespace).take(await self._cluster.patch(_path(held.pod), body))
        except (NotFound, Conflict):
            self._follower(owner.namespace).drop(held.pod)

    async def freeze(self, plugin_uid: str, slot: Slot) -> None:
        """Refuse: Kubernetes has no way to.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(f"{slot} of plugin {plugin_uid}: {self.capabilities.no_freezer}")

    async def thaw(self, plugin_uid: str, slot: Slot) -> None:
        """Do nothing: no pod is ever held still."""

    async def route(self, plugin_uid: str, slots: Sequence[Slot]) -> None:
        """Label pods, those that are reached first, and have the Service select by that."""
        held = [each for each in self._pods.all(plugin_uid) if each.pod is not None and each.instance.alive]
        for each in sorted(held, key=lambda one: one.instance.slot not in slots):
            await self._reach(each, "yes" if not slots or each.instance.slot in slots else "no")
        if held:
            one = held[0].instance
            owner = marks.Owner(one.namespace, one.plugin, plugin_uid)
            await self._upkeep.surround(owner, (), ())

    async def _reach(self, held: Held, word: str) -> None:
        """Say of a pod whether new connections come to it; one that is gone is no error."""
        if held.pod is None or (held.pod["metadata"].get("labels") or {}).get(marks.REACHED) == word:
            return
        body = {"metadata": {"uid": held.pod["metadata"]["uid"], "labels": {marks.REACHED: word}}}
        try:
            patched = await self._cluster.patch(_path(held.pod), body)
        except (NotFound, Conflict):
            self._follower(held.instance.namespace).drop(held.pod)
        else:
            self._follower(held.instance.namespace).take(patched)

    async def sweep(self) -> tuple[str, ...]:
        """Find nothing: all made for a Plugin has it as its owner, and the cluster's collector sees to it."""
        return ()

    async def _end(self, held: Held, grace: int | None) -> None:
        """Delete a pod; one that is gone is no error."""
        if held.pod is None:
            return
        self._pods.ask(held)  # before: its end may be heard of sooner than the answer
        follower = self._follower(held.instance.namespace)
        try:
            answer = await self._cluster.end(_path(held.pod), held.pod["metadata"]["uid"], grace)
        except (NotFound, Conflict):
            follower.drop(held.pod)
        except CrucibleError:
            self._pods.unask(held)
            raise
        else:
            if answer.get("kind") == "Pod" and "deletionTimestamp" in answer["metadata"]:
                follower.take(answer)

    async def _tidy(self, held: Held) -> None:
        """Delete what only this instance needed; what cannot be deleted now goes with the Plugin."""
        instance = held.instance
        owner = marks.Owner(instance.namespace, instance.plugin, instance.plugin_uid)
        left = [other.pod for other in self._pods.all(owner.uid) if other.pod is not None]
        try:
            name = _files_of(held.pod) if held.pod is not None else ""
            if name and name not in {_files_of(other) for other in left}:
                await self._maps.drop(owner, name)
            if instance.config:
                await self._maps.drop(owner, marks.config_name(instance.name))
            if not left:
                await self._upkeep.clear(owner)
        except CrucibleError as error:
            log.info("%s/%s: left for later: %s", owner.namespace, owner.plugin, error)

    def logs(self, plugin_uid: str, slot: Slot, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        """Yield a pod's output; of one that is gone, nothing.

        Raises:
            NotFound: no such instance.
        """
        held = self._pods.find(plugin_uid, slot)
        if held is None:
            raise NotFound(f"no instance {slot} of {plugin_uid}")
        return self._lines(held, tail, follow=follow)

    async def _lines(self, held: Held, tail: int | None, *, follow: bool) -> AsyncIterator[LogLine]:
        if held.pod is None:
            return
        params = {"container": CONTAINER, "timestamps": "true", "follow": "true" if follow else "false"}
        if tail is not None:
            params["tailLines"] = str(tail)
        try:
            async with self._cluster.lines(f"{_path(held.pod)}/log", params) as lines:
                async for line in lines:
                    yield log_line(line)
        except NotFound:
            return
        except InvalidInput as error:
            if "waiting to start" not in str(error):
                raise

    async def exec(
        self, plugin_uid: str, slot: Slot, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Refuse: whoever may do so runs commands in pods through the cluster itself."""
        del command, stdin, tty
        if self._pods.find(plugin_uid, slot) is None:
            raise NotFound(f"no instance {slot} of {plugin_uid}")
        _refuse_exec()

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return none: a pod is on a node, and what would serve its doors is not."""
        del plugin_uid
        return ()

    async def listeners(self, doorway: Doorway) -> tuple[socket, ...]:
        """Return none."""
        del doorway
        return ()

    @asynccontextmanager
    async def connect(self, plugin_uid: str, slot: Slot, port: int) -> AsyncIterator[Connected]:
        """Refuse: whoever may do so reaches pods through the cluster itself, and probes are the kubelet's."""
        del port
        if self._pods.find(plugin_uid, slot) is None:
            raise NotFound(f"no instance {slot} of {plugin_uid}")
        _refuse_connection()
        yield  # what makes this a generator

    async def usage(self, plugin_uid: str, slot: Slot) -> Usage | None:
        """Return the cores a pod used lately and the bytes it holds, as the cluster's metrics tell them.

        Raises:
            Unavailable: they do not tell of this pod, or not yet.
        """
        held = self._pods.find(plugin_uid, slot)
        if held is None or held.pod is None:
            return None
        return await self._metering.usage(held.instance.namespace, held.pod["metadata"]["name"])


_RUNS = frozenset({State.STARTING, State.RUNNING})


def _end_of(task: asyncio.Task[None]) -> str:
    """Return how a task ended that has to go on."""
    return "was cancelled" if task.cancelled() else f"ended: {task.exception()!r}"


def _refuse_exec() -> NoReturn:
    raise Unsupported("the operator has no right to run commands in pods: use kubectl exec, with your own")


def _refuse_connection() -> NoReturn:
    raise Unsupported("the operator has no way into pods: use kubectl port-forward, with your own rights")


def _path(found: Pod) -> str:
    return pod_path(found["metadata"]["namespace"], found["metadata"]["name"])


def _files_of(found: Pod) -> str:
    return str((found["metadata"].get("annotations") or {}).get(marks.FILES, ""))


def _refused(workload: Workload, slot: Slot, problem: str, now: float) -> Instance:
    owner = marks.owner_of_workload(workload)
    return Instance(
        plugin_uid=owner.uid,
        name=marks.pod_name(owner, slot),
        slot=slot,
        revision=workload.revision,
        state=State.EXITED,
        created_at=now,
        exit=Exit(at=now, problem=problem),
        namespace=owner.namespace,
        plugin=owner.plugin,
        source=workload.source,
    )
