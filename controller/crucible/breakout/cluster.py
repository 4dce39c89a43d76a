"""Runs the suite in pods of a cluster, and judges what they said and how they ended."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crucible.breakout import expected, pods
from crucible.breakout.examination import Examination, held_of
from crucible.breakout.pods import FREE, HELD, Run
from crucible.breakout.profile import judged
from crucible.breakout.trial import FIRST, MIB, forbidden_calls
from crucible.breakout.verdict import Check, listen
from crucible.control.cluster import ClusterClient, find_endpoint
from crucible.errors import CrucibleError, NotFound, Unavailable
from crucible.model.enforcement import Control, Finding
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.compile import CONTAINER
from crucible.runtimes.kubernetes.enforcement import capabilities
from crucible.runtimes.kubernetes.nodes import give_user_namespaces
from crucible.runtimes.kubernetes.reading import instance_of
from crucible.runtimes.kubernetes.surroundings import path_of
from crucible.runtimes.kubernetes.upkeep import collection, pod_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from pathlib import Path

    from crucible.model.instance import Instance
    from crucible.model.workload import Workload
    from crucible.runtimes.kubernetes.settings import KubernetesSettings

PORT: Final = 8080
STARTS: Final = 180.0
"""Seconds for a pod to begin: nodes pull images."""
SUITE: Final = 300.0
EVICTED: Final = 240.0
"""Seconds for a kubelet to end a pod that fills its node's disk: it looks every ten, some every sixty."""
_LOOK: Final = 0.5
_SUITE_CPU: Final = 300
_SHARE: Final = 200
_SHARE_MOST: Final = 0.35
"""Of a processor, where 0.2 is the limit: quotas are held over tenths of a second."""
MACHINES: Final = ("x86_64", "aarch64")


@dataclass(frozen=True, slots=True)
class Place:
    """Where to examine, and as what.

    Attributes:
        kubeconfig: leads to the cluster; None: as every client finds it.
        namespace: for the pods; empty: the kubeconfig's.
        settings: what the operator is told of the cluster.
        user_namespaces: ``on``, ``off``, or ``auto``: where every node has them.
    """

    kubeconfig: Path | None
    namespace: str
    settings: KubernetesSettings
    user_namespaces: str = "auto"


async def examine_cluster(place: Place, say: Callable[[str], None], *, tried: bool) -> Examination:
    """Examine the pods of a cluster; what is made for that is removed again.

    Args:
        place: which.
        say: told what is going on.
        tried: run the suite too.
    """
    try:
        endpoint = find_endpoint(place.kubeconfig)
        async with ClusterClient(partial(find_endpoint, place.kubeconfig)) as client:
            version = await client.get("/version")
            given = await give_user_namespaces(client, place.user_namespaces)
            # As if somebody had vouched for it: whether that is so is what is tried.
            settings = replace(place.settings, user_namespaces=given, network_policies=True)
            namespace = place.namespace or endpoint.namespace
            about = f"Kubernetes {version.get('gitVersion', '?')} at {endpoint.server}, namespace {namespace}"
            found = (Finding("cluster", ok=True, detail=about),)
            if not tried:
                return Examination(expected.POD, found, held_of(capabilities(settings), ()))
            async with _run(client, namespace) as run:
                checks, more = await Trial(client, run, settings, say).run()
            return Examination(expected.POD, (*found, *more), held_of(capabilities(settings), checks))
    except CrucibleError as error:
        return Examination(expected.POD, (Finding("cluster", ok=False, detail=str(error), fix=str(error)),))


@asynccontextmanager
async def _run(client: ClusterClient, namespace: str) -> AsyncIterator[Run]:
    """Make the ConfigMap that owns everything, and delete it and the pods at the end, however that comes."""
    run = Run(namespace, f"crucible-doctor-{secrets.token_hex(4)}")
    path = collection("/api/v1", "configmaps", namespace)
    answer = await client.create(path, pods.root(run))
    run = replace(run, uid=str(answer["metadata"]["uid"]))
    try:
        yield run
    finally:
        selector = {"labelSelector": f"{pods.RUN}={run.name}"}
        with suppress(CrucibleError):
            for each in (await client.get(collection("/api/v1", "pods", namespace), selector))["items"]:
                with suppress(CrucibleError):
                    await client.end(
                        pod_path(namespace, each["metadata"]["name"]), each["metadata"]["uid"], 0
                    )
        with suppress(CrucibleError):
            await client.end(f"{path}/{run.name}", run.uid)


class Trial:
    """The pods of one examination."""

    def __init__(
        self, client: ClusterClient, run: Run, settings: KubernetesSettings, say: Callable[[str], None]
    ) -> None:
        """Try what these settings make of plugins.

        Args:
            client: of the cluster.
            run: whose everything is.
            settings: what the operator is told of the cluster.
            say: told what is going on.
        """
        self._client = client
        self._run = run
        self._settings = settings
        self._say = say

    async def run(self) -> tuple[tuple[Check, ...], tuple[Finding, ...]]:
        """Try everything; return the checks, and what there is to say besides.

        Raises:
            Unavailable: a pod does not begin, or the suite's did not come to its end.
            CrucibleError: the cluster refuses something.
        """
        policy = pods.policy(self._run)
        await self._client.create(path_of(policy), policy)
        self._say("kubernetes: starting a pod that may be reached, and one that reaches for it")
        bait = await self._begin("bait", FREE, pods.plugin("bait.py"))
        address = await self._until(bait, _address, STARTS, "has no address")
        neighbours = {"a pod of the cluster": [address, PORT]}
        self._say("kubernetes: trying every way out, and more than it may of everything")
        checks = await _together(
            self._visit(address), self._suite(neighbours), self._memory(), self._share(), self._disk()
        )
        visitors = [line for line in await self._lines(bait) if line.startswith(b"came ")]
        checks.append(
            Check(Control.NETWORK, "only who may came to the pod", len(visitors) <= 1, f"came: {visitors}")
        )
        return judged(checks, ours=bool(self._settings.seccomp))

    async def _begin(self, name: str, part: str, asked: Workload) -> str:
        """Make a pod; return its name."""
        config, pod = pods.made(self._run, name, part, asked, self._settings)
        await self._client.create(collection("/api/v1", "configmaps", self._run.namespace), config)
        await self._client.create(collection("/api/v1", "pods", self._run.namespace), pod)
        return str(pod["metadata"]["name"])

    async def _visit(self, address: str) -> tuple[Check, ...]:
        """Reach the pod that may be reached: where nobody can, that nobody could means nothing."""
        config = json.dumps({"bait": [address, PORT]})
        name = await self._begin("visitor", FREE, pods.plugin("visitor.py", config))
        ended = await self._ended(name, SUITE)
        lines = await self._lines(name)
        reached = any(line == b"reached" for line in lines)
        said = (lines[-1].decode(errors="replace") if lines else "it said nothing")[:300]
        name = "the right thing beside: a pod that nothing holds reaches another"
        return (Check(Control.NETWORK, name, reached, f"{said}; {ended.exit}" if not reached else said),)

    async def _suite(self, neighbours: dict[str, Any]) -> tuple[Check, ...]:
        ours = bool(self._settings.seccomp)
        config = {
            "pod": True,
            "untraced": not ours,
            "calls": forbidden_calls(*MACHINES),
            "neighbours": neighbours,
            "hostFiles": ["/root/.ssh/id_rsa", "/var/lib/kubelet/config.yaml", "/etc/kubernetes/admin.conf"],
        }
        asked = pods.plugin("main.py", json.dumps(config), limits=replace(pods.LIMITS, cpu=_SUITE_CPU))
        name = await self._begin("suite", HELD, asked)
        await self._running(name)
        told: list[bytes] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(SUITE):
                while not any(line.startswith(b'{"summary"') for line in told):
                    await asyncio.sleep(_LOOK)
                    told = await self._lines(name)
                    instance = await self._instance(name)
                    if not instance.alive:
                        told = await self._lines(name)
                        break
        heard = listen(line for line in told if line)
        if not heard.complete:
            last = b" / ".join(told[-4:]).decode(errors="replace")[-500:] or "nothing"
            instance = await self._instance(name)
            how = instance.exit or instance.state
            raise Unavailable(f"the suite's pod did not come to its end ({how}); it last said: {last}")
        return (*heard.checks, *expected.from_inside(heard.readings, asked, expected.POD))

    async def _memory(self) -> tuple[Check, ...]:
        asked = pods.plugin("memory.py", limits=replace(pods.LIMITS, memory=48 * MIB))
        name = await self._begin("memory", HELD, asked)
        ended, told = await self._ended(name, SUITE), await self._lines(name)
        held = ended.exit is not None and (ended.exit.oom or any(b"MemoryError" in line for line in told))
        return _pair(Control.MEMORY, "take memory without end", told, held=held, detail=str(ended.exit))

    async def _share(self) -> tuple[Check, ...]:
        asked = pods.plugin("share.py", limits=replace(pods.LIMITS, cpu=_SHARE))
        name = await self._begin("share", HELD, asked)
        await self._ended(name, SUITE)
        told = await self._lines(name)
        words = [line.split()[1] for line in told if line.startswith(b"share ")]
        share = float(words[0]) if words else 0.0
        detail = f"took {share:.2f} of a processor, where {_SHARE / 1000:.2f} was the limit"
        held = 0.0 < share <= _SHARE_MOST
        return _pair(Control.CPU, "take processor time without end", told, held=held, detail=detail)

    async def _disk(self) -> tuple[Check, ...]:
        name = await self._begin("disk", HELD, pods.plugin("disk.py"))
        try:
            ended = await self._ended(name, EVICTED)
        except Unavailable as error:
            told = await self._lines(name)
            return _pair(Control.DISK, "keep more than its disk", told, held=False, detail=str(error))
        how = ended.exit
        held = how is not None and how.lost and "evicted" in how.problem.lower()
        # Output of a pod that was evicted may be gone with it: that it got so far is what evicted it.
        return _pair(Control.DISK, "keep more than its disk", [b"allowed"], held=held, detail=str(how))

    async def _lines(self, name: str) -> list[bytes]:
        """Return what a pod has printed so far; nothing where that cannot be read now."""
        path = f"{pod_path(self._run.namespace, name)}/log"
        try:
            async with self._client.lines(path, {"container": CONTAINER}) as lines:
                return [line async for line in lines]
        except CrucibleError:
            return []

    async def _instance(self, name: str) -> Instance:
        pod = await self._client.get(pod_path(self._run.namespace, name))
        return instance_of(pod, marks.Owner(self._run.namespace, name, self._run.uid), FIRST)

    async def _running(self, name: str) -> None:
        await self._until(name, lambda pod, _: "running" if _begun(pod) else "", STARTS, "does not begin")

    async def _ended(self, name: str, seconds: float) -> Instance:
        await self._until(name, lambda _, one: "" if one.alive else "ended", seconds, "does not end")
        return await self._instance(name)

    async def _until(
        self, name: str, said: Callable[[dict[str, Any], Instance], str], seconds: float, problem: str
    ) -> str:
        """Wait until something can be said of a pod, and return it.

        Raises:
            Unavailable: it cannot, in time; says what keeps the pod from it.
        """
        notices: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    pod = await self._client.get(pod_path(self._run.namespace, name))
                    one = instance_of(pod, marks.Owner(self._run.namespace, name, self._run.uid), FIRST)
                    notices = one.notices
                    if found := said(pod, one):
                        return found
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            why = "; ".join(notices) or "nothing keeps it"
            raise Unavailable(f"pod {name} {problem} within {seconds:g} s: {why}") from None
        except NotFound:
            raise Unavailable(f"pod {name} was deleted by someone else") from None


async def _together(*parts: Coroutine[Any, Any, tuple[Check, ...]]) -> list[Check]:
    """Do everything at once; what one raises ends the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return [check for found in await asyncio.gather(*tasks) for check in found]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _address(pod: dict[str, Any], one: Instance) -> str:
    if not one.alive:
        raise Unavailable(f"pod {one.name} ended: {one.exit}")
    return str((pod.get("status") or {}).get("podIP") or "") if _begun(pod) else ""


def _begun(pod: dict[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Running", "Succeeded", "Failed"}


def _pair(
    control: Control, name: str, told: Sequence[bytes], *, held: bool, detail: str
) -> tuple[Check, ...]:
    """Return the attempt, and that it got as far as every plugin may."""
    said = told[0].decode(errors="replace")[:300] if told else "it said nothing"
    return (
        Check(control, name, held, detail),
        Check(control, f"the right thing beside: {name}", list(told[:1]) == [b"allowed"], said),
    )
