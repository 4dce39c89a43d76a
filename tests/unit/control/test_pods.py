"""Instances as pods: their output by time, and commands in them."""

from __future__ import annotations

import pytest

from crucible.control.apiserver import LogOptions
from crucible.control.pods import RuntimePods
from crucible.errors import Conflict, NotFound
from crucible.model.workload import Limits, Slot, Workload
from crucible.runtimes.fake import FakeHost, FakeRuntime

SLOT = Slot(0, 1)
WORKLOAD = Workload(
    *("default", "echo", "uid-echo", "python", ("main.py",), (), "{}", "sha256:0"),
    limits=Limits(cpu=500, memory=1, pids=32, disk=1, open_files=64),
    isolation="process",
    grace=5.0,
    restart="",
)
EARLY, LATE = 1_700_000_000.25, 1_700_000_060.5


@pytest.fixture
async def pods() -> RuntimePods:
    """An instance that said ``early``, and ``late`` a minute after."""
    clock = [EARLY]
    host = FakeHost(now=lambda: clock[0])
    runtime = FakeRuntime(host)
    await runtime.start(WORKLOAD, SLOT)
    host.say("uid-echo", SLOT, b"early")
    clock[0] = LATE
    host.say("uid-echo", SLOT, b"late", b"later")
    return RuntimePods(runtime, lambda: LATE + 10)


async def read(pods: RuntimePods, options: LogOptions) -> list[bytes]:
    return [chunk async for chunk in pods.logs("default", "echo-0-1", options)]


async def test_only_what_is_young_enough(pods: RuntimePods) -> None:
    assert len(await read(pods, LogOptions())) == 3
    assert await read(pods, LogOptions(since=30.0)) == [b"late\n", b"later\n"]
    assert await read(pods, LogOptions(since_time=LATE)) == [b"late\n", b"later\n"]
    assert await read(pods, LogOptions(since_time=LATE + 1)) == []
    assert len(await read(pods, LogOptions(since=3600.0))) == 3


async def test_the_tail_is_taken_before_what_is_too_old(pods: RuntimePods) -> None:
    assert await read(pods, LogOptions(since=30.0, tail=1)) == [b"later\n"]
    assert await read(pods, LogOptions(since=5.0, tail=1)) == []


async def test_times_are_written_as_the_kubelet_writes_them(pods: RuntimePods) -> None:
    assert await read(pods, LogOptions(timestamps=True, tail=2)) == [
        b"2023-11-14T22:14:20.500000000Z late\n",
        b"2023-11-14T22:14:20.500000000Z later\n",
    ]


async def test_commands_go_to_the_instance_of_that_name(pods: RuntimePods) -> None:
    session = await pods.exec("default", "echo-0-1", ("echo", "hi"), stdin=False, tty=False)
    assert [said async for said in session.output()] == [(1, b"hi\n")]
    with pytest.raises(NotFound):
        await pods.exec("other", "echo-0-1", ("echo",), stdin=False, tty=False)


async def test_a_command_in_an_ended_instance_is_refused() -> None:
    runtime = FakeRuntime(FakeHost())
    await runtime.start(WORKLOAD, SLOT)
    await runtime.kill("uid-echo", SLOT)
    with pytest.raises(Conflict):
        await RuntimePods(runtime).exec("default", "echo-0-1", ("echo",), stdin=False, tty=False)
    assert await RuntimePods(runtime).metrics("", "") == []
