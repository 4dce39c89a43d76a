from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from build import UID, plugin
from revisions import KeptRevisions

from crucible.control.secrets import MountedSecrets
from crucible.core.pauses import Retry
from crucible.errors import Conflict, CrucibleError, InvalidSource, Unavailable, Underway
from crucible.gathering import read_status
from crucible.loop import supervise
from crucible.model.instance import Exit, Instance, State
from crucible.model.status import Phase, PluginStatus, SourceReport
from crucible.model.workload import config_digest
from crucible.model.world import Reach
from crucible.ports import NoDoors, Ports
from crucible.probes.prober import Prober
from crucible.runtimes.fake import Behaviour, FakeHost, FakeRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from crucible.model.decision import Event
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.workload import Slot

DEADLINE = 30.0


class Sources:
    """Resolves every source, unless told not to."""

    def __init__(self) -> None:
        self.problem: CrucibleError | None = None

    async def resolve(self, identity: Identity, spec: PluginSpec, known: SourceReport | None) -> SourceReport:
        if self.problem:
            raise self.problem
        return SourceReport(digest="sha256:1", resolved_for=f"inline {identity.generation}")

    def sweep(self, wanted: Any) -> tuple[str, ...]:
        return ()


class Voice:
    """Keeps what was said; can fall silent."""

    def __init__(self) -> None:
        self.status = PluginStatus()
        self.reports = 0
        self.events: list[str] = []
        self.released = False
        self.held = False
        self.silent = False

    async def report(self, identity: Identity, status: PluginStatus) -> None:
        if self.silent:
            raise Unavailable("no answer")
        self.status = status
        self.reports += 1

    async def tell(self, identity: Identity, event: Event) -> None:
        self.events.append(event.reason)

    async def hold(self, identity: Identity) -> None:
        self.held = True

    async def release(self, identity: Identity) -> None:
        self.released = True


class Endpoints:
    """Answers as it was told."""

    def __init__(self) -> None:
        self.known = Reach(ok=True, message="https://x answers")
        self.asked = 0

    async def reach(self, url: str) -> Reach:
        self.asked += 1
        return self.known


class Doors(NoDoors):
    """Somebody is behind the bus's door, and says what it says to a new configuration."""

    def __init__(self, *says: str | CrucibleError) -> None:
        self.says = list(says)
        self.asked: list[str] = []

    async def configure(self, plugin_uid: str, slot: Slot, config: str) -> str:
        self.asked.append(config)
        said = self.says.pop(0)
        if isinstance(said, CrucibleError):
            raise said
        return said


class Thinking(Doors):
    """Whoever is asked to take a configuration thinks until it is told to take it."""

    def __init__(self) -> None:
        super().__init__()
        self.thought = asyncio.Event()

    async def configure(self, plugin_uid: str, slot: Slot, config: str) -> str:
        self.asked.append(config)
        await self.thought.wait()
        return ""


class Uncounted(Doors):
    """Nobody counts calls, and it is known that somebody asked."""

    async def open_calls(self, plugin_uid: str, slots: Sequence[Slot]) -> Mapping[int, int | None]:
        self.asked.append(plugin_uid)
        return await super().open_calls(plugin_uid, slots)


class Life:
    """One supervised Plugin over a host in memory."""

    def __init__(self, host: FakeHost, obj: dict[str, Any], voice: Voice, sources: Sources) -> None:
        self.host = host
        self.obj = obj
        self.voice = voice
        self.sources = sources
        self.endpoints = Endpoints()
        self.revisions = KeptRevisions()
        self.wake = asyncio.Event()
        self.stopped = False
        self.runtime = FakeRuntime(host)

    def change(self, **spec: Any) -> None:
        meta = {**self.obj["metadata"], "generation": self.obj["metadata"]["generation"] + 1}
        self.obj = {**self.obj, "metadata": meta, "spec": {**self.obj["spec"], **spec}}
        self.wake.set()

    def delete(self) -> None:
        meta = {**self.obj["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        self.obj = {**self.obj, "metadata": meta}
        self.wake.set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not holds():
                await asyncio.sleep(0.001)

    def alive(self) -> list[str]:
        return [found.name for found in self.runtime.instances() if found.alive]


@asynccontextmanager
async def living(
    host: FakeHost,
    voice: Voice | None = None,
    doors: Doors | None = None,
    status: PluginStatus | None = None,
    **spec: Any,
) -> AsyncIterator[Life]:
    life = Life(host, plugin(**spec), voice or Voice(), Sources())
    if status is not None:
        life.obj["status"] = status.model_dump(mode="json", by_alias=True)
    await life.runtime.open(lambda _: life.wake.set())
    ports = Ports(
        life.runtime,
        life.sources,
        life.voice,
        life.endpoints,
        Prober(life.runtime, host.now),
        life.revisions,
        host.now,
        MountedSecrets(),
        doors or NoDoors(),
    )
    task = asyncio.create_task(supervise(lambda: life.obj, ports, life.wake, lambda: life.stopped))
    try:
        yield life
    finally:
        life.stopped = True
        life.wake.set()
        async with asyncio.timeout(DEADLINE):
            await task
        await life.runtime.close()


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


async def test_a_plugin_comes_up_and_says_so(host: FakeHost) -> None:
    async with living(host, replicas=2) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        assert life.voice.status.ready_replicas == 2
        await life.until(lambda: "Running" in life.voice.events)
        assert life.voice.events == ["Started", "Started", "Starting", "Running"]


async def test_the_object_is_held_before_anything_runs(host: FakeHost) -> None:
    held: list[bool] = []
    voice = Voice()

    def behave(_: object) -> Behaviour:
        held.append(voice.held)
        return Behaviour()

    host.behave = behave
    async with living(host, voice) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
    assert held == [True]


async def test_nothing_is_said_twice_while_nothing_changes(host: FakeHost) -> None:
    async with living(host) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        said = life.voice.reports
        for _ in range(20):
            life.wake.set()
            await asyncio.sleep(0)
        assert life.voice.reports == said


async def test_a_crash_is_answered(host: FakeHost) -> None:
    async with living(host) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        (slot,) = [found.slot for found in life.runtime.instances()]
        host.crash(UID, slot, code=3)
        await life.until(lambda: life.voice.status.restarts == 1 and life.voice.status.ready_replicas == 1)
        assert life.alive() == ["echo-0-2"]
        last = life.voice.status.instances[0].last_exit
        assert last is not None
        assert last.code == 3


@pytest.mark.parametrize(
    ("command", "most", "told"),
    [
        (["exit", "0"], "30s", []),
        (["exit", "3"], "30s", ["PreStopFailed"]),
        (["nothing"], "30s", ["PreStopFailed"]),
        (["sleep"], "100ms", ["PreStopFailed"]),
    ],
)
async def test_the_hook_runs_before_the_instance_is_stopped_and_cannot_keep_it(
    host: FakeHost, command: list[str], most: str, told: list[str]
) -> None:
    hook = {"preStop": {"command": command, "timeout": most}}
    async with living(host, lifecycle=hook) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        (slot,) = [found.slot for found in life.runtime.instances()]
        cell = host.cell(UID, slot)
        life.change(suspend=True)
        await life.until(lambda: life.voice.status.phase is Phase.SUSPENDED)
        assert len(cell.sessions) == 1
        assert [reason for reason in life.voice.events if reason == "PreStopFailed"] == told


async def test_while_a_hook_takes_its_time_the_loop_goes_on(host: FakeHost) -> None:
    hook = {"preStop": {"command": ["sleep"], "timeout": "60s"}}
    async with living(host, lifecycle=hook, replicas=2) as life:
        await life.until(lambda: life.voice.status.ready_replicas == 2)
        going = next(found.slot for found in life.runtime.instances() if found.slot.ordinal == 1)
        life.change(replicas=1)
        await life.until(lambda: host.cell(UID, going).sessions)
        host.crash(UID, next(one.slot for one in life.runtime.instances() if one.slot.ordinal == 0), code=3)
        await life.until(lambda: life.voice.status.restarts == 1)
        assert host.cell(UID, going).instance.state is State.RUNNING
        (report,) = life.voice.status.hooks
        assert report.attempt == going.attempt
        assert len(host.cell(UID, going).sessions) == 1
        host.cell(UID, going).sessions[0].end(0)
        await life.until(lambda: len(life.alive()) == 1)
        assert "PreStopFailed" not in life.voice.events


async def test_a_successor_runs_a_hook_again_and_holds_to_when_it_has_to_be_over(host: FakeHost) -> None:
    hook = {"preStop": {"command": ["sleep"], "timeout": "60s"}}
    now = 1000.0
    host.now = lambda: now
    async with living(host, lifecycle=hook) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        (slot,) = [found.slot for found in life.runtime.instances()]
        life.change(suspend=True)
        await life.until(lambda: life.voice.status.hooks)
        said = life.voice.status
    cell = host.cell(UID, slot)
    assert cell.instance.alive, "a controller that ends stops nothing"
    now = 1030.0
    voice = Voice()
    voice.status = said
    async with living(host, voice, lifecycle=hook, suspend=True, status=said) as life:
        await life.until(lambda: len(cell.sessions) == 2)
        await life.until(lambda: life.voice.status.hooks == said.hooks)
        assert cell.instance.state is State.RUNNING
        now = 1060.0
        life.wake.set()
        await life.until(lambda: not cell.instance.alive)
        await life.until(lambda: "PreStopFailed" in life.voice.events)


async def test_whoever_thinks_about_a_configuration_holds_up_nothing(host: FakeHost) -> None:
    doors = Thinking()
    async with living(host, doors=doors, replicas=2, **ON_BUS) as life:
        await life.until(lambda: life.voice.status.ready_replicas == 2)
        life.change(config={"a": 1})
        await life.until(lambda: len(doors.asked) == 2)
        host.crash(UID, next(one.slot for one in life.runtime.instances() if one.slot.ordinal == 0), code=3)
        await life.until(lambda: life.voice.status.restarts == 1)
        life.wake.set()
        doors.thought.set()
        await life.until(lambda: "Configured" in life.voice.events)
        wanted = config_digest('{"a": 1}')
        await life.until(lambda: all(one.config == wanted for one in life.runtime.instances() if one.alive))
        assert len(doors.asked) == 2, "it was asked again while it thought"


ON_BUS: dict[str, Any] = {"configDelivery": "bus", "capabilities": {"bus": {}}}


async def test_a_configuration_is_taken_on_the_bus_once_somebody_is_there(host: FakeHost) -> None:
    doors = Doors(Unavailable("it has not connected to the bus"), "")
    async with living(host, doors=doors, **ON_BUS) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        life.change(config={"a": 1})
        await life.until(lambda: "Configured" in life.voice.events)
        assert doors.asked == ['{"a": 1}', '{"a": 1}']
        assert life.alive() == ["echo-0-1"]
        (found,) = life.runtime.instances()
        assert found.config == config_digest('{"a": 1}')


async def test_one_that_does_not_take_its_configuration_is_replaced(host: FakeHost) -> None:
    doors = Doors("NoSuchMethod: it has no method $config")
    async with living(host, doors=doors, **ON_BUS) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        life.change(config={"a": 1})
        await life.until(lambda: life.alive() == ["echo-0-2"])
        assert "ConfigNotTaken" in life.voice.events
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        assert life.voice.status.instances[0].crashes == ()
        assert len(doors.asked) == 1


async def test_a_program_that_cannot_start_backs_off_and_ends_in_quarantine() -> None:
    host = FakeHost(behave=lambda _: Behaviour(problem="main.py: no such file"))
    backoff = {"initial": "10ms", "max": "10ms"}
    async with living(host, recovery={"maxRestarts": 2, "backoff": backoff}) as life:
        await life.until(lambda: life.voice.status.phase is Phase.QUARANTINED)
        assert host.started == 3
        assert "main.py: no such file" in life.voice.status.conditions[0].message


async def test_a_change_replaces_what_runs_and_deletion_leaves_nothing(host: FakeHost) -> None:
    async with living(host) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        life.change(config={"a": 1})
        await life.until(lambda: life.alive() == ["echo-0-2"])
        life.delete()
        await life.until(lambda: life.voice.released)
        assert life.runtime.instances() == ()


async def test_an_instance_that_ignores_sigterm_is_killed_when_its_grace_is_over() -> None:
    host = FakeHost(behave=lambda _: Behaviour(obeys=False))
    async with living(host, stopGrace="20ms") as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        life.delete()
        await life.until(lambda: life.voice.released)


async def test_a_runtime_that_does_not_answer_is_asked_again(host: FakeHost) -> None:
    host.up = False
    life_host = host
    async with living_unopened(life_host) as life:
        await asyncio.sleep(0)
        host.up = True
        await life.until(lambda: life.alive() == ["echo-0-1"])


@asynccontextmanager
async def living_unopened(host: FakeHost) -> AsyncIterator[Life]:
    """Begin with a runtime that is down."""
    host.up = True
    async with living(host, suspend=True) as life:
        await life.until(lambda: life.voice.status.phase is Phase.SUSPENDED)
        host.up = False
        life.change(suspend=False)
        yield life


def test_a_pause_doubles_once_it_was_waited_out_and_not_for_every_wake_up_before() -> None:
    retry = Retry().after_failure(100.0)
    assert retry.pause(100.0) == 0.5
    for moment in (100.1, 100.2, 100.3):
        retry = retry.after_failure(moment)
    assert retry.pause(100.3) == pytest.approx(0.2)
    retry = retry.after_failure(100.5)
    assert retry.pause(100.5) == 1.0
    assert retry.pause(50.0) == 1.0, "a clock that was put back does not make it longer"
    for _ in range(10):
        retry = retry.after_failure(retry.due)
    assert retry.pause(retry.due - 30.0) == 30.0


async def test_a_clock_that_is_put_back_meanwhile_puts_off_nothing() -> None:
    ahead = [7200.0]
    host = FakeHost(lambda _: Behaviour(obeys=False), lambda: time.time() + ahead[0])
    voice = Voice()
    async with living(host, voice, stopGrace="50ms") as life:
        await life.until(lambda: life.alive() == ["echo-0-1"])
        say = voice.report

        async def report(identity: Identity, status: PluginStatus) -> None:
            ahead[0] = 0.0  # after it was decided, and before it is known how long to wait
            await say(identity, status)

        voice.report = report  # type: ignore[method-assign]
        life.delete()
        await life.until(lambda: voice.released)
    assert ahead == [0.0]


async def test_a_host_without_threads_is_told_in_a_line(
    host: FakeHost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, faults = Sources.resolve, iter([RuntimeError("can't start new thread")])

    async def refused(self: Sources, *asked: Any) -> SourceReport:
        for fault in faults:
            raise fault
        return await resolve(self, *asked)

    monkeypatch.setattr(Sources, "resolve", refused)
    async with living(host) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
    (told,) = [record for record in caplog.records if "can't start new thread" in record.message]
    assert told.exc_info is None


async def test_a_silent_control_plane_does_not_hold_up_recovery(host: FakeHost) -> None:
    async with living(host) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        life.voice.silent = True
        (slot,) = [found.slot for found in life.runtime.instances()]
        host.crash(UID, slot, code=1)
        await life.until(lambda: life.alive() == ["echo-0-2"])
        life.voice.silent = False
        await life.until(lambda: life.voice.status.restarts == 1)
        assert host.started == 2


async def test_a_missing_source_is_a_reason_not_a_fault(host: FakeHost) -> None:
    async with living(host, suspend=True) as life:
        await life.until(lambda: life.voice.status.phase is Phase.SUSPENDED)
        life.sources.problem = InvalidSource("path /x cannot be opened")
        life.change(suspend=False)
        await life.until(lambda: "path /x cannot be opened" in life.voice.status.conditions[0].message)
        assert host.started == 0


async def test_a_successor_adopts_and_counts_what_happened_while_nobody_watched(host: FakeHost) -> None:
    async with living(host) as first:
        await first.until(lambda: first.voice.status.phase is Phase.RUNNING)
        said = first.voice.status
    (found,) = first.runtime.instances()
    host.end(UID, found.slot, Exit(at=time.time(), code=7))
    voice = Voice()
    async with living(host, voice) as second:
        second.obj["status"] = said.model_dump(mode="json", by_alias=True)
        await second.until(lambda: voice.status.ready_replicas == 1)
        assert second.alive() == ["echo-0-2"]
        assert voice.status.instances[0].crashes != ()
    assert host.started == 2


async def test_a_running_instance_is_adopted_untouched(host: FakeHost) -> None:
    async with living(host) as first:
        await first.until(lambda: first.voice.status.phase is Phase.RUNNING)
    async with living(host, Voice()) as second:
        await second.until(lambda: second.voice.status.phase is Phase.RUNNING)
        assert [(found.name, found.state) for found in second.runtime.instances()] == [
            ("echo-0-1", State.RUNNING)
        ]
    assert host.started == 1


@pytest.mark.parametrize("stored", [None, {}, {"phase": "Nonsense"}, {"instances": "x"}, [], {"unknown": 1}])
def test_any_stored_status_can_be_read(stored: Any) -> None:
    assert read_status(stored).attempts == 0


def test_what_is_written_reads_back_the_same() -> None:
    status = PluginStatus(observed_generation=3, phase=Phase.RUNNING, attempts=4)
    assert read_status(status.model_dump(mode="json", by_alias=True)) == status


async def test_a_source_on_its_way_is_said_and_waited_for_without_a_retry(host: FakeHost) -> None:
    async with living(host) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        life.sources.problem = Underway("pulling x: 40 %")
        life.change(version="2.0.0")
        await life.until(lambda: "Pulling" in life.voice.events)
        assert {entry.message for entry in life.voice.status.conditions} == {"pulling x: 40 %"}
        assert life.alive()
        life.sources.problem = None
        life.wake.set()
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)


async def test_a_runtime_that_fails_a_verb_is_said_at_once_and_tried_again(host: FakeHost) -> None:
    async with living(host, suspend=True) as life:
        await life.until(lambda: life.voice.status.phase is Phase.SUSPENDED)
        life.runtime.start = never  # type: ignore[method-assign]
        life.change(suspend=False)
        await life.until(lambda: "RuntimeUnavailable" in life.voice.events)
        assert "no space left" in life.voice.status.conditions[0].message
        del life.runtime.start  # type: ignore[method-assign]
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)


async def never(*_: object) -> Instance:
    raise Unavailable("no space left: free some")


async def test_a_name_that_someone_else_has_is_said(host: FakeHost) -> None:
    async def taken(*_: object) -> Instance:
        raise Conflict("a container that is not ours is named x: rename or remove it")

    async with living(host, suspend=True) as life:
        await life.until(lambda: life.voice.status.phase is Phase.SUSPENDED)
        life.runtime.start = taken  # type: ignore[method-assign]
        life.change(suspend=False)
        await life.until(lambda: "is not ours" in life.voice.status.conditions[0].message)


async def test_an_endpoint_of_someone_else_is_looked_at_and_nothing_is_started(host: FakeHost) -> None:
    service = {"type": "service", "source": {"url": "https://x"}, "entrypoint": []}
    async with living(host, **service) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        assert (life.voice.status.ready_replicas, host.started) == (1, 0)
        host.up = False
        life.endpoints.known = Reach(ok=False, message="https://x answers with status 503")
        life.wake.set()
        await life.until(lambda: life.voice.status.ready_replicas == 0)
        assert life.voice.events == ["Reachable", "Unreachable"]
        life.change(suspend=True)
        await life.until(lambda: life.voice.status.phase is Phase.SUSPENDED)


async def test_where_nobody_counts_calls_a_drain_lasts_for_the_whole_of_its_time(host: FakeHost) -> None:
    now = 1000.0
    host.now = lambda: now
    doors = Uncounted()
    bus = {"lifecycle": {"drain": "10s"}, "capabilities": {"bus": {}}}
    async with living(host, doors=doors, **bus) as life:
        await life.until(lambda: life.voice.status.phase is Phase.RUNNING)
        life.change(suspend=True)
        await life.until(lambda: life.voice.status.draining)
        now = 1009.0
        doors.asked.clear()
        for turn in (1, 2):  # the second begins when the first is over
            life.wake.set()
            await life.until(lambda turn=turn: len(doors.asked) >= turn)
        assert life.alive() == ["echo-0-1"]
        now = 1010.0
        life.wake.set()
        await life.until(lambda: life.alive() == [])
