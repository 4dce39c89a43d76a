from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import virtualclock
from build import UID, plugin
from revisions import KeptRevisions

from crucible.control import operator
from crucible.control.kubeconfig import Endpoint
from crucible.control.operator import Loops, without_managed_fields
from crucible.control.secrets import MountedSecrets
from crucible.loop import supervise
from crucible.model.names import FINALIZER
from crucible.model.status import PluginStatus, SourceReport
from crucible.ports import Ports
from crucible.probes.prober import Prober
from crucible.runtimes.fake import FakeHost, FakeRuntime

if TYPE_CHECKING:
    from crucible.model.decision import Event
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity


class Outside:
    """Sources and a voice that always succeed, and remember who was let go."""

    def __init__(self) -> None:
        self.released: list[str] = []

    async def resolve(self, identity: Identity, spec: PluginSpec, known: SourceReport | None) -> SourceReport:
        return SourceReport(digest="sha256:1", resolved_for="inline 1")

    def sweep(self, wanted: Any) -> tuple[str, ...]:
        return ()

    async def report(self, identity: Identity, status: PluginStatus) -> None:
        return

    async def tell(self, identity: Identity, event: Event) -> None:
        return

    async def hold(self, identity: Identity) -> None:
        return

    async def release(self, identity: Identity) -> None:
        self.released.append(identity.uid)


class Scene:
    def __init__(self) -> None:
        self.host = FakeHost()
        self.runtime = FakeRuntime(self.host)
        self.outside = Outside()
        self.loops = Loops(self.ports())

    def ports(self) -> Ports:
        prober = Prober(self.runtime, time.time)
        return Ports(
            self.runtime,
            self.outside,
            self.outside,
            self.outside,
            prober,
            KeptRevisions(),
            time.time,
            MountedSecrets(),
        )

    async def open(self) -> None:
        await self.runtime.open(self.loops.ring)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while sum(found.alive for found in self.runtime.instances()) != count:
                await asyncio.sleep(0.001)


def seen(**meta: Any) -> dict[str, Any]:
    found = plugin()
    return {**found, "metadata": {**found["metadata"], "finalizers": [FINALIZER], **meta}}


async def test_every_plugin_seen_has_one_loop_however_often_it_is_seen() -> None:
    scene = Scene()
    await scene.open()
    for _ in range(3):
        scene.loops.see(seen())
    await scene.until(1)
    await scene.loops.close()
    assert scene.host.started == 1


async def test_a_status_that_comes_back_wakes_nobody_and_all_else_does() -> None:
    scene = Scene()
    await scene.open()
    scene.loops.see(seen())
    await scene.until(1)
    bell = scene.loops._bells[UID]
    first = {**seen(resourceVersion="11"), "status": {"phase": "Running"}}
    scene.loops.see(first)
    bell.clear()
    scene.loops.see(
        {**first, "status": {"phase": "Failed"}, "metadata": seen(resourceVersion="12")["metadata"]}
    )
    assert not bell.is_set()
    assert scene.loops.find(UID)["status"] == {"phase": "Failed"}  # type: ignore[index]
    for otherwise in (
        {**seen(resourceVersion="13", labels={"a": "b"}), "status": {"phase": "Running"}},
        {
            **seen(resourceVersion="14", labels={"a": "b"}),
            "status": {"phase": "Failed"},
            "spec": {"replicas": 2},
        },
    ):
        scene.loops.see(otherwise)
        assert bell.is_set()
        bell.clear()
    scene.loops.see(otherwise)  # listed anew
    assert bell.is_set()
    await scene.loops.close()


async def test_a_change_is_followed_where_there_is_a_loop_and_nowhere_else() -> None:
    scene = Scene()
    await scene.open()
    assert not scene.loops.follow(seen())
    assert scene.loops.objects() == []
    scene.loops.see(seen())
    await scene.until(1)
    newer = {**seen(resourceVersion="11"), "status": {"phase": "Running"}}
    assert scene.loops.follow(newer)
    assert scene.loops.find(UID) == newer
    await scene.loops.close()


async def test_what_comes_late_does_not_undo_what_is_known() -> None:
    scene = Scene()
    await scene.open()
    newer = {**seen(resourceVersion="11"), "status": {"phase": "Running"}}
    scene.loops.see(newer)
    await scene.until(1)
    scene.loops.see(seen(resourceVersion="9"))  # as numbers, not as words
    assert scene.loops.find(UID) == newer
    await scene.loops.close()


async def test_what_all_say_alike_of_their_controls_is_kept_once() -> None:
    scene = Scene()
    await scene.open()

    def told(uid: str, by: str) -> dict[str, Any]:
        return {**seen(uid=uid, name=uid), "status": {"phase": "Running", "enforcement": [{"by": by}]}}

    for uid, by in (("a", "seccomp"), ("b", "seccomp"), ("c", "nothing")):
        scene.loops.see(told(uid, by))
    kept = [each["status"]["enforcement"] for each in scene.loops.objects()]
    assert kept == [[{"by": "seccomp"}], [{"by": "seccomp"}], [{"by": "nothing"}]]
    assert kept[0] is kept[1]
    await scene.loops.close()


async def test_a_plugin_first_seen_while_it_is_deleted_is_cleared_away_and_released() -> None:
    first = Scene()
    await first.open()
    first.loops.see(seen())
    await first.until(1)
    await first.loops.close()
    first.loops = Loops(first.ports())
    await first.runtime.open(first.loops.ring)
    first.loops.see(seen(deletionTimestamp="2026-01-01T00:00:00Z"))
    await first.loops.gone.wait()
    assert first.outside.released == [UID]
    assert first.runtime.instances() == ()


async def test_a_plugin_that_vanished_is_cleared_away() -> None:
    for vanish in (lambda loops: loops.lose(UID), lambda loops: loops.compare([])):
        scene = Scene()
        await scene.open()
        scene.loops.see(seen())
        await scene.until(1)
        vanish(scene.loops)
        await scene.until(0)
        await scene.loops.gone.wait()


async def test_comparing_with_what_is_there_loses_nothing() -> None:
    scene = Scene()
    await scene.open()
    scene.loops.see(seen())
    await scene.until(1)
    scene.loops.compare([UID])
    scene.loops.lose("unknown")
    scene.loops.ring("unknown")
    await scene.loops.close()
    assert sum(found.alive for found in scene.runtime.instances()) == 1


async def test_closing_ends_the_loops_and_leaves_the_instances() -> None:
    scene = Scene()
    await scene.open()
    scene.loops.see(seen())
    await scene.until(1)
    await scene.loops.close()
    scene.loops.see(seen())
    assert scene.loops.gone.is_set()
    assert sum(found.alive for found in scene.runtime.instances()) == 1


def test_what_only_servers_read_is_not_kept() -> None:
    kept = without_managed_fields(seen(managedFields=[{"manager": "x"}]))
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["uid"] == UID


async def test_a_loop_that_fails_for_what_nobody_foresaw_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(operator, "_AGAIN", 0.001)
    scene = Scene()
    await scene.open()
    failures = iter([RuntimeError("its first turn fails")])

    async def fails_once(*args: Any) -> None:
        for failure in failures:
            raise failure
        await supervise(*args)

    monkeypatch.setattr("crucible.control.operator.supervise", fails_once)
    scene.loops.see(seen())
    await scene.until(1)
    await scene.loops.close()
    assert "its first turn fails" in caplog.text


class Kopf:
    """Tasks as kopf has them, the last of which drops cancellations; put in the place of kopf's own."""

    def __init__(self, drops: int) -> None:
        self._drops = drops
        self.tasks: list[asyncio.Task[None]] = []

    async def spawn_tasks(self, **_: Any) -> list[asyncio.Task[None]]:
        self.tasks = [asyncio.create_task(self._root(), name="multitasker")]
        await asyncio.sleep(0)
        return self.tasks

    async def _root(self) -> None:
        watcher = asyncio.create_task(self._watch(), name="watcher for plugins")
        self.watcher = watcher
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            watcher.cancel()
            await asyncio.wait({watcher})
            raise

    async def _watch(self) -> None:
        while asyncio.get_running_loop().time() < 100_000:  # else a test that fails would not end
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                self._drops -= 1
                if self._drops < 0:
                    raise


@pytest.mark.parametrize("drops", [0, 1, 2])
def test_a_cancellation_that_kopf_drops_is_said_again(drops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kopf = Kopf(drops)
    monkeypatch.setattr("kopf.spawn_tasks", kopf.spawn_tasks)
    begun: list[bool] = []

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1, stop.set)
        await operator.operate(
            Endpoint("http://127.0.0.1:1"),
            Scene().loops,
            ready=asyncio.Event(),
            stop=stop,
            begun=lambda: begun.append(True),
        )
        assert kopf.watcher.done()

    assert virtualclock.run(main()) < 1 + 5 * (drops + 1)
    assert begun


def test_kopf_that_does_not_end_is_an_error_and_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    kopf = Kopf(50)
    monkeypatch.setattr("kopf.spawn_tasks", kopf.spawn_tasks)

    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        try:
            await operator.operate(
                Endpoint("http://127.0.0.1:1"), Scene().loops, ready=asyncio.Event(), stop=stop
            )
        finally:
            while not kopf.watcher.done():
                kopf.watcher.cancel()
                await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match=r"kopf does not end: .*watcher for plugins"):
        virtualclock.run(main())


def test_the_loops_end_with_a_term_that_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kopf.spawn_tasks", Kopf(0).spawn_tasks)

    async def main() -> None:
        scene = Scene()
        await scene.open()
        working = asyncio.create_task(
            operator.operate(
                Endpoint("http://127.0.0.1:1"), scene.loops, ready=asyncio.Event(), stop=asyncio.Event()
            )
        )
        await asyncio.sleep(1)
        scene.loops.see(seen())
        working.cancel()
        await asyncio.wait({working})
        assert working.cancelled()
        assert not scene.loops.uids()

    virtualclock.run(main())
