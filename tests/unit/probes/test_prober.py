"""Asking instances: what counts as an answer, how little is read, and when the loop is rung."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import UID, plugin, world
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.errors import Unavailable
from crucible.model.decision import Start
from crucible.model.health import Answer, Check, Watch
from crucible.model.usage import Usage
from crucible.model.workload import Slot
from crucible.probes import prober
from crucible.probes.asking import Asked, Subject, ask
from crucible.probes.http import status_of
from crucible.probes.prober import Prober, in_step
from crucible.probes.turns import AT_ONCE, OF_ONE, Turns
from crucible.runtimes.base import Connected
from crucible.runtimes.fake import Behaviour, FakeHost, FakeRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from crucible.model.probe import Probe

SLOT = Slot(0, 1)
OK = b"HTTP/1.1 200 OK\r\n\r\n"


def probe(**fields: Any) -> Probe:
    spec = admit(plugin(health={"ready": fields}))
    assert spec.health.ready is not None
    return spec.health.ready


async def running(behaviour: Behaviour) -> FakeRuntime:
    runtime = FakeRuntime(FakeHost(lambda _: behaviour))
    (start,) = decide(world()).actions
    assert isinstance(start, Start)
    await runtime.start(start.workload, SLOT)
    return runtime


async def answer(behaviour: Behaviour, **fields: Any) -> Answer | None:
    runtime = await running(behaviour)
    return (await ask(probe(**fields), Subject(runtime, UID, SLOT))).answer


@pytest.mark.parametrize(
    ("said", "ok", "message"),
    [
        (OK, True, ""),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True, ""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", True, ""),
        (b"HTTP/1.1 503 Busy\r\n\r\n", False, "status 503"),
        (b"HTTP/1.1 404\r\n\r\n", False, "status 404"),
        (b"", False, "no answer before the end"),
        (b"SSH-2.0-OpenSSH\r\n", False, "the answer is no HTTP"),
        (b"HTTP/1.1 20", False, "the answer is no HTTP"),
        (b"x" * 100_000, False, "the answer is no HTTP"),
    ],
)
async def test_only_a_good_status_is_well(said: bytes, message: str, *, ok: bool) -> None:
    found = await answer(Behaviour(listens={8080: said}), http={"port": 8080}, timeout="10s")
    assert found is not None
    assert (found.ok, found.message) == (ok, message)


async def test_a_fault_nobody_foresaw_is_told_and_the_probe_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prober, "_RETRY", 0.0)
    faults = iter([ZeroDivisionError(), ZeroDivisionError()])

    async def asks(asked: Probe, subject: Subject) -> Asked:
        for fault in faults:
            raise fault
        return await ask(asked, subject)

    monkeypatch.setattr(prober, "ask", asks)
    runtime = await running(Behaviour(listens={8080: OK}))
    watcher = Prober(runtime, time.time)
    news = asyncio.Event()
    watch = Watch(SLOT, Check.READY, probe(http={"port": 8080}, interval="100ms"), time.time())
    watcher.attend(UID, [watch], news.set)
    await asyncio.wait_for(news.wait(), 30)
    assert watcher.streaks(UID)[watch.key].ok
    assert caplog.text.count("ZeroDivisionError") == 2
    await watcher.close()


async def test_one_that_says_nothing_is_given_up() -> None:
    found = await answer(Behaviour(listens={8080: None}), http={"port": 8080}, timeout="50ms")
    assert found is not None
    assert (found.ok, found.message) == (False, "no answer within 0.05 s")


async def test_a_port_nobody_listens_on_is_not_well() -> None:
    for kind in ("http", "tcp"):
        found = await answer(Behaviour(), **{kind: {"port": 8080}})
        assert found is not None
        assert (found.ok, found.message) == (False, "connection refused")


async def test_an_accepted_connection_is_well() -> None:
    found = await answer(Behaviour(listens={8080: None}), tcp={"port": 8080})
    assert found is not None
    assert found.ok


@pytest.mark.parametrize(
    ("command", "ok", "message"),
    [
        (["exit", "0"], True, ""),
        (["exit", "3"], False, "status 3"),
        (["nothing"], False, "status 127: nothing: not found"),
        (["sleep"], False, "no answer within 0.05 s"),
    ],
)
async def test_a_command_says_by_its_status(command: list[str], message: str, *, ok: bool) -> None:
    found = await answer(Behaviour(), exec={"command": command}, timeout="50ms")
    assert found is not None
    assert (found.ok, found.message) == (ok, message)


async def test_a_runtime_that_does_not_answer_says_nothing_of_the_plugin() -> None:
    runtime = await running(Behaviour(listens={8080: OK}))
    runtime.host.up = False
    assert await ask(probe(http={"port": 8080}), Subject(runtime, UID, SLOT)) == Asked(None)
    runtime.host.up = True
    runtime.host.crash(UID, SLOT, code=1)
    assert await ask(probe(http={"port": 8080}), Subject(runtime, UID, SLOT)) == Asked(None)
    assert await ask(probe(tcp={"port": 8080}), Subject(runtime, "other", SLOT)) == Asked(None)


BEFORE = Usage(at=100.0, cpu=1.0, memory=0, memory_peak=None, pids=1, throttled=0.0)
NOW = Usage(at=110.0, cpu=6.0, memory=50 << 20, memory_peak=None, pids=7, throttled=0.0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"resource": {"memory": "50Mi", "cpu": "500m", "pids": 7}}, ""),
        ({"resource": {"memory": "49Mi", "pids": 7}}, "memory 50Mi > 49Mi"),
        ({"resource": {"cpu": "499m", "pids": 6}}, "cpu 500m > 499m, pids 7 > 6"),
        ({"custom": {"expression": "usage.cpu < 0.6 && usage.pids == 7 && age > 9.0 && probes.live"}}, ""),
        ({"custom": {"expression": "usage.memory < 10"}}, "the expression does not hold"),
        ({"custom": {"expression": "probes.startup"}}, "the expression cannot be evaluated: "),
        ({"custom": {"expression": "[1][-1] == 1"}}, "the expression cannot be evaluated: "),
        ({"custom": {"expression": "age"}}, "the expression is 10.0, neither true nor false"),
    ],
)
async def test_what_it_uses_is_judged(asked: dict[str, Any], message: str) -> None:
    runtime = await running(Behaviour())
    runtime.host.usage = NOW
    subject = Subject(runtime, UID, SLOT, since=100.0, before=BEFORE, others={"live": True})
    found = await ask(probe(**asked), subject)
    assert found.usage == NOW
    assert found.answer is not None
    assert found.answer.ok is not bool(message)
    assert found.answer.message.startswith(message)


async def test_without_an_earlier_sample_nothing_is_judged_and_without_any_it_is_not_well() -> None:
    runtime = await running(Behaviour())
    subject = Subject(runtime, UID, SLOT)
    unknown = await ask(probe(resource={"pids": 1}), subject)
    assert unknown.answer is not None
    assert not unknown.answer.ok
    runtime.host.usage = NOW
    assert await ask(probe(resource={"pids": 1}), subject) == Asked(None, NOW)


class Relaying(FakeRuntime):
    """A runtime whose connections are accepted by something in between."""

    refuses = True

    @asynccontextmanager
    async def connect(self, plugin_uid: str, slot: Slot, port: int) -> AsyncIterator[Connected]:
        del plugin_uid, slot, port
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            if self.refuses:
                theirs.close()
            yield Connected(ours, relayed=True)


async def test_what_a_relay_accepts_counts_only_if_it_lasts() -> None:
    relaying = Relaying(FakeHost())
    for refuses in (True, False):
        relaying.refuses = refuses
        found = (await ask(probe(tcp={"port": 8080}, timeout="10s"), Subject(relaying, UID, SLOT))).answer
        assert found is not None
        assert found.ok is not refuses


@given(st.binary(max_size=200))
def test_any_bytes_are_a_status_or_none(head: bytes) -> None:
    found = status_of(head)
    assert found is None or 100 <= found <= 599


def watch(*, settled: bool = False, **fields: Any) -> Watch:
    return Watch(SLOT, Check.READY, probe(**fields), time.time(), settled=settled)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


async def test_the_loop_is_rung_when_something_changed_and_not_otherwise() -> None:
    runtime = await running(Behaviour(listens={8080: OK}))
    asked: list[int] = []
    rung: list[bool] = []
    counting = Counting(runtime.host, asked)
    prober = Prober(counting, time.time)
    prober.attend(UID, [watch(http={"port": 8080}, interval="100ms")], lambda: rung.append(True))
    await until(lambda: len(asked) >= 3)
    assert len(rung) == 1
    assert prober.streaks(UID)[1, Check.READY].ok
    await prober.close()


class Counting(FakeRuntime):
    """Counts the connections made to it."""

    def __init__(self, host: FakeHost, asked: list[int]) -> None:
        super().__init__(host)
        self.asked = asked

    @asynccontextmanager
    async def connect(self, plugin_uid: str, slot: Slot, port: int) -> AsyncIterator[Connected]:
        self.asked.append(port)
        async with super().connect(plugin_uid, slot, port) as door:
            yield door


async def test_a_clock_that_was_put_back_does_not_put_off_the_first_asking() -> None:
    runtime = await running(Behaviour(listens={8080: OK}))
    prober = Prober(runtime, lambda: time.time() - 7200)
    prober.attend(UID, [watch(http={"port": 8080})], lambda: None)
    await until(lambda: prober.streaks(UID))
    await prober.close()


async def test_what_is_not_watched_any_more_is_asked_no_more_and_forgotten() -> None:
    runtime = await running(Behaviour(listens={8080: OK}))
    prober = Prober(runtime, time.time)
    prober.attend(UID, [watch(http={"port": 8080}, interval="100ms")], lambda: None)
    await until(lambda: prober.streaks(UID))
    prober.attend(UID, [], lambda: None)
    assert prober.streaks(UID) == {}
    watching = [task for task in asyncio.all_tasks() if "Prober._watch" in repr(task)]
    assert all(task.cancelling() for task in watching)


async def test_another_probe_begins_anew() -> None:
    runtime = await running(Behaviour(listens={8080: OK}))
    prober = Prober(runtime, time.time)
    prober.attend(UID, [watch(http={"port": 8080})], lambda: None)
    await until(lambda: prober.streaks(UID))
    prober.attend(UID, [watch(tcp={"port": 1})], lambda: None)
    assert prober.streaks(UID) == {}
    await until(lambda: prober.streaks(UID))
    assert not prober.streaks(UID)[1, Check.READY].ok
    await prober.close()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("", "are you there?"), Answer(ok=True)),
        (("", "what?"), Answer(ok=False, message="the answer is not what was asked")),
        (
            ("Unavailable", "it has not connected to the bus"),
            Answer(ok=False, message="it has not connected to the bus"),
        ),
        (("DeadlineExceeded", ""), Answer(ok=False, message="DeadlineExceeded")),
        (Unavailable("the broker does not run"), None),
    ],
)
async def test_a_ping_is_asked_of_the_instance_over_the_bus(
    said: tuple[str, str] | Unavailable, expected: Answer | None
) -> None:
    heard = []

    async def call(key: str, method: str, payload: str, seconds: float) -> tuple[str, str]:
        heard.append((key, method, payload, seconds))
        if isinstance(said, Unavailable):
            raise said
        return said

    runtime = FakeRuntime(FakeHost(lambda _: Behaviour()))
    asked = await ask(probe(ping={}), Subject(runtime, UID, SLOT, call=call))
    assert asked.answer == expected
    assert heard == [(f"{UID}/{SLOT}/bus", "$ping", "are you there?", 1.0)]


@given(st.floats(0, 1e9), st.floats(0, 3600))
def test_pauses_that_are_not_urgent_end_together_and_never_early(now: float, pause: float) -> None:
    found = in_step(now, pause)
    assert found >= pause - 1e-6
    assert found < pause + 0.0501
    if pause >= 0.5:
        assert abs((now + found) / 0.05 - round((now + found) / 0.05)) < 1e-3
    else:
        assert found == pause


async def test_a_plugin_whose_probes_hang_holds_up_no_other() -> None:
    """All askings of one with a hundred replicas that accept and say nothing, for as long as a probe may."""
    runtime = await running(Behaviour(listens={8080: None}))
    (start,) = decide(world()).actions
    assert isinstance(start, Start)
    slots = [Slot(0, attempt) for attempt in range(1, 101)]
    for slot in slots:
        await runtime.start(start.workload, slot)
    runtime.host.behave = lambda _: Behaviour(listens={8080: OK})
    await runtime.start(replace(start.workload, plugin_uid="uid-other"), SLOT)
    asked: list[int] = []
    counting = Counting(runtime.host, asked)
    prober = Prober(counting, time.time)
    hangs = watch(http={"port": 8080}, timeout="60s", interval="100ms")
    prober.attend(UID, [replace(hangs, slot=slot) for slot in slots], lambda: None)
    await until(lambda: len(asked) >= OF_ONE)
    prober.attend("uid-other", [watch(http={"port": 8080})], lambda: None)
    await until(lambda: prober.streaks("uid-other"))
    assert prober.streaks("uid-other")[1, Check.READY].ok
    assert len(asked) <= OF_ONE + 1
    await prober.close()


async def test_a_start_of_everything_takes_its_turn() -> None:
    turns, gate, inside = Turns(), asyncio.Event(), []

    async def asks(number: int) -> None:
        async with turns.turn(f"uid-{number}"):
            inside.append(number)
            await gate.wait()

    tasks = [asyncio.create_task(asks(number)) for number in range(AT_ONCE * 2)]
    await until(lambda: len(inside) >= AT_ONCE)
    first = len(inside)
    await until(lambda: len(inside) == 2 * AT_ONCE)  # what takes longer than a moment makes room
    gate.set()
    await asyncio.gather(*tasks)
    assert first == AT_ONCE
