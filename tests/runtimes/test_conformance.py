"""The contract of ``runtimes/base.py``, held by every runtime."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from harness import FIRST, LIMITS, MIB, SECONDS, wait_for

from crucible.errors import Conflict, NotFound
from crucible.model.enforcement import Control, Level
from crucible.model.instance import State
from crucible.model.workload import Slot, config_digest

if TYPE_CHECKING:
    from harness import FakeHarness, ProcessHarness

    Harness = FakeHarness | ProcessHarness


def holds_sum(harness: Harness) -> bool:
    """Tell whether memory is held for an instance as a whole."""
    levels = {entry.control: entry.level for entry in harness.runtime.capabilities.controls}
    return levels[Control.MEMORY] is Level.ENFORCED


@pytest.fixture
def freezing(harness: Harness) -> Harness:
    """A runtime that can hold instances still here."""
    if harness.runtime.capabilities.no_freezer:
        pytest.skip(harness.runtime.capabilities.no_freezer)
    return harness


async def test_a_started_instance_comes_to_run(harness: Harness) -> None:
    workload = harness.workload("stay")
    started = await harness.runtime.start(workload, FIRST)
    assert started.plugin_uid == workload.plugin_uid
    assert started.slot == FIRST
    assert started.revision == workload.revision
    assert started.alive
    running = await harness.until(workload, lambda one: one.state is State.RUNNING)
    assert running.created_at == started.created_at
    assert harness.runtime.instances() == (running,)
    assert harness.runtime.instances("uid-other") == ()


async def test_starting_twice_is_starting_once(harness: Harness) -> None:
    workload = harness.workload("stay")
    first, second = await asyncio.gather(
        harness.runtime.start(workload, FIRST), harness.runtime.start(workload, FIRST)
    )
    assert first.created_at == second.created_at
    running = await harness.until(workload, lambda one: one.state is State.RUNNING)
    assert await harness.runtime.start(workload, FIRST) == running
    assert len(harness.runtime.instances()) == 1


async def test_a_sweep_leaves_what_is_on_record(harness: Harness) -> None:
    workload, ended = harness.workload("stay"), harness.workload("exit:3", name="ended")
    await harness.runtime.start(workload, FIRST)
    await harness.until(workload, lambda one: one.state is State.RUNNING)
    await harness.runtime.start(ended, FIRST)
    await harness.until(ended, lambda one: not one.alive)
    assert await harness.runtime.sweep() == ()
    assert harness.instance(workload).alive
    assert not harness.instance(ended).alive


async def test_slots_are_apart(harness: Harness) -> None:
    workload = harness.workload("stay")
    await asyncio.gather(*(harness.runtime.start(workload, Slot(ordinal, 1)) for ordinal in range(3)))
    assert [
        one.slot.ordinal for one in sorted(harness.runtime.instances(), key=lambda one: one.slot.ordinal)
    ] == [*range(3)]
    await harness.runtime.remove(workload.plugin_uid, Slot(1, 1))
    assert {one.slot.ordinal for one in harness.runtime.instances(workload.plugin_uid)} == {0, 2}


async def test_stop_ends_a_plugin_that_obeys(harness: Harness) -> None:
    workload = harness.workload("stay")
    await harness.runtime.start(workload, FIRST)
    await harness.says(workload, b"staying")
    await harness.runtime.stop(workload.plugin_uid, FIRST)
    await harness.runtime.stop(workload.plugin_uid, FIRST)
    ended = await harness.until(workload, lambda one: not one.alive)
    assert ended.stopping_at is not None
    assert ended.exit is not None
    assert (ended.exit.signal, ended.exit.code, ended.exit.oom) == (signal.SIGTERM, None, False)


async def test_a_plugin_that_ignores_stop_goes_with_kill(harness: Harness) -> None:
    workload = harness.workload("deaf", "stay")
    await harness.runtime.start(workload, FIRST)
    await harness.says(workload, b"staying")
    await harness.runtime.stop(workload.plugin_uid, FIRST)
    assert harness.instance(workload).state is State.STOPPING
    await harness.runtime.kill(workload.plugin_uid, FIRST)
    ended = harness.instance(workload)
    assert ended.exit is not None
    assert ended.exit.signal == signal.SIGKILL
    await harness.runtime.kill(workload.plugin_uid, FIRST)
    assert harness.instance(workload) == ended


@pytest.mark.parametrize("code", [0, 3, 100])
async def test_exit_status_is_kept(harness: Harness, code: int) -> None:
    ended = await harness.run(harness.workload(f"exit:{code}"))
    assert ended.exit is not None
    assert (ended.exit.code, ended.exit.signal, ended.exit.problem) == (code, None, "")
    assert ended.exit.reason == ("Completed" if code == 0 else "Crashed")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
async def test_a_signal_that_ended_it_is_named(harness: Harness, number: signal.Signals) -> None:
    ended = await harness.run(harness.workload(f"die:{int(number)}"))
    assert ended.exit is not None
    assert (ended.exit.signal, ended.exit.code, ended.exit.oom) == (number, None, False)


async def test_going_over_memory_is_told_from_other_ends(harness: Harness) -> None:
    if not holds_sum(harness):
        pytest.skip("memory is held per process here, which a program sees as a failed allocation")
    workload = harness.workload("say:before", "eat")
    await harness.run(workload)
    # The word that it was for memory may come after that of the end.
    ended = await harness.until(workload, lambda one: one.exit is not None and one.exit.oom)
    assert ended.exit is not None
    assert ended.exit.reason == "OOMKilled"
    assert await harness.lines(workload) == [b"before"]


async def test_a_type_that_cannot_run_is_an_ended_instance_with_the_reason(harness: Harness) -> None:
    ended = await harness.run(harness.workload(type="nonsense"))
    assert ended.exit is not None
    assert ended.exit.problem


async def test_an_ended_instance_stays_with_its_output_until_removed(harness: Harness) -> None:
    workload = harness.workload("say:one", "say:two", "exit:1")
    await harness.run(workload)
    await harness.reopen()
    assert harness.instance(workload).exit is not None
    assert await harness.lines(workload) == [b"one", b"two"]
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    assert harness.runtime.instances() == ()
    with pytest.raises(NotFound):
        await harness.lines(workload)


async def test_an_instance_finds_nothing_of_the_one_before(harness: Harness) -> None:
    places = ("/tmp/mark", "/dev/shm/mark")
    workload = harness.workload(*(f"leave:{place}" for place in places), "exit:1")
    await harness.run(workload)
    assert await harness.lines(workload) == [b"new", b"new"]
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    await harness.run(workload)
    assert await harness.lines(workload) == [b"new", b"new"]


async def test_a_new_configuration_is_read_without_a_restart(harness: Harness) -> None:
    workload = harness.workload("reread", "stay", delivery="signal", config='{"a":1}')
    await harness.runtime.start(workload, FIRST)
    await harness.says(workload, b"staying")
    assert (await harness.lines(workload))[:2] == [b"read-only config.json", b'{"a":1}']
    before = harness.instance(workload)
    assert before.config == config_digest('{"a":1}')
    await harness.runtime.deliver(workload.plugin_uid, FIRST, '{"a":2}', signal=True)
    await harness.says(workload, b'{"a":2}')
    await harness.reopen()
    await harness.runtime.deliver(workload.plugin_uid, FIRST, '{"a":3}', signal=True)
    await harness.says(workload, b'{"a":3}')
    await harness.reopen()
    after = harness.instance(workload)
    assert (after.pid, after.state, after.revision) == (before.pid, State.RUNNING, before.revision)
    assert after.config == config_digest('{"a":3}')
    assert replace(workload, config='{"a":3}').revision == workload.revision


async def test_a_new_configuration_is_in_its_place_without_a_word(harness: Harness) -> None:
    workload = harness.workload("notice", "stay", delivery="file", config='{"a":1}')
    await harness.runtime.start(workload, FIRST)
    await harness.says(workload, b"looking")
    await harness.runtime.deliver(workload.plugin_uid, FIRST, '{"a":2}', signal=False)
    await harness.says(workload, b'{"a":2}')
    assert harness.instance(workload).alive
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    await harness.runtime.deliver(workload.plugin_uid, FIRST, '{"a":3}', signal=True)
    assert harness.leftovers() == []


async def test_what_is_frozen_does_nothing_until_it_is_thawed(freezing: Harness) -> None:
    workload = freezing.workload("count")
    await freezing.runtime.start(workload, FIRST)
    await freezing.until(workload, lambda one: one.state is State.RUNNING)
    await freezing.counts(workload)
    for _ in range(2):
        await freezing.runtime.freeze(workload.plugin_uid, FIRST)
    assert freezing.instance(workload).frozen
    assert await freezing.is_still(workload)
    with pytest.raises(Conflict, match="frozen"):
        await freezing.runtime.exec(
            workload.plugin_uid, FIRST, freezing.command("echo"), stdin=False, tty=False
        )
    await freezing.reopen()
    found = freezing.instance(workload)
    assert (found.frozen, found.state) == (True, State.RUNNING)
    assert await freezing.is_still(workload)
    for _ in range(2):
        await freezing.runtime.thaw(workload.plugin_uid, FIRST)
    assert not freezing.instance(workload).frozen
    await freezing.counts(workload)


@pytest.mark.parametrize("how", ["stop", "kill", "remove"])
async def test_what_is_frozen_ends_as_anything_else(freezing: Harness, how: str) -> None:
    workload = freezing.workload("stay")
    await freezing.runtime.start(workload, FIRST)
    await freezing.says(workload, b"staying")
    await freezing.runtime.freeze(workload.plugin_uid, FIRST)
    if how == "stop":
        await freezing.runtime.stop(workload.plugin_uid, FIRST)
        ended = await freezing.until(workload, lambda one: not one.alive)
        assert ended.exit is not None
        assert ended.exit.signal == signal.SIGTERM
    if how == "kill":
        await freezing.runtime.kill(workload.plugin_uid, FIRST)
        assert not freezing.instance(workload).frozen
    await freezing.runtime.remove(workload.plugin_uid, FIRST)
    assert freezing.leftovers() == []


async def test_verbs_on_what_is_not_there_do_nothing(harness: Harness) -> None:
    await harness.runtime.stop("uid-none", FIRST)
    await harness.runtime.kill("uid-none", FIRST)
    await harness.runtime.remove("uid-none", FIRST)
    await harness.runtime.freeze("uid-none", FIRST)
    await harness.runtime.thaw("uid-none", FIRST)


async def test_the_last_lines_can_be_had_alone(harness: Harness) -> None:
    workload = harness.workload(*(f"say:{number}" for number in range(20)), "exit:0")
    await harness.run(workload)
    assert await harness.lines(workload, tail=2) == [b"18", b"19"]
    assert await harness.lines(workload, tail=0) == []
    assert len(await harness.lines(workload, tail=100)) == 20


async def test_following_yields_what_comes_and_ends_with_the_instance(harness: Harness) -> None:
    workload = harness.workload("say:early", "stay")
    await harness.runtime.start(workload, FIRST)
    seen: list[bytes] = []

    async def follow() -> None:
        async for line in harness.runtime.logs(workload.plugin_uid, FIRST, tail=None, follow=True):
            seen.append(line.text)  # noqa: PERF401 - looked at while it grows

    task = asyncio.create_task(follow())
    await wait_for(lambda: seen == [b"early", b"staying"])
    assert not task.done()
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    await asyncio.wait_for(task, SECONDS)


async def test_changes_are_told(harness: Harness) -> None:
    workload = harness.workload("stay")
    await harness.runtime.start(workload, FIRST)
    await harness.until(workload, lambda one: one.state is State.RUNNING)
    harness.heard.clear()
    await harness.runtime.stop(workload.plugin_uid, FIRST)
    await wait_for(lambda: workload.plugin_uid in harness.heard)


async def test_every_instance_that_comes_up_is_told_of_however_soon_it_did(harness: Harness) -> None:
    for number in range(5):
        workload = harness.workload("stay", name=f"p{number}")
        await harness.runtime.start(workload, FIRST)
        await harness.until(workload, lambda one: one.state is State.RUNNING)
        await wait_for(lambda uid=workload.plugin_uid: uid in harness.heard)


async def test_the_next_controller_adopts_what_runs(harness: Harness) -> None:
    workload = harness.workload("say:before", "stay")
    await harness.runtime.start(workload, FIRST)
    await harness.says(workload, b"staying")
    before = await harness.until(workload, lambda one: one.state is State.RUNNING)
    await harness.reopen()
    assert harness.instance(workload) == before
    assert await harness.runtime.start(workload, FIRST) == before
    assert await harness.lines(workload) == [b"before", b"staying"]
    await harness.runtime.stop(workload.plugin_uid, FIRST)
    ended = await harness.until(workload, lambda one: not one.alive)
    assert ended.exit is not None
    assert ended.exit.signal == signal.SIGTERM


async def test_another_control_plane_is_left_alone(harness: Harness) -> None:
    workload = harness.workload("stay")
    stranger = await harness.stranger()
    await stranger.start(workload, FIRST)
    await harness.reopen()
    assert harness.runtime.instances() == ()
    await harness.runtime.kill(workload.plugin_uid, FIRST)
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    await harness.runtime.start(workload, FIRST)
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    (theirs,) = stranger.instances()
    assert theirs.alive
    if theirs.pid is not None and not hasattr(harness, "host"):
        with contextlib.suppress(PermissionError):
            os.kill(theirs.pid, 0)
    await stranger.remove(workload.plugin_uid, FIRST)


async def test_removing_leaves_nothing(harness: Harness) -> None:
    for number, words in enumerate((("stay",), ("exit:1",), ("deaf", "stay"))):
        await harness.runtime.start(harness.workload(*words, name=f"p{number}"), FIRST)
    for number in range(3):
        await harness.runtime.remove(f"uid-p{number}", FIRST)
    assert harness.leftovers() == []


async def test_removing_what_is_just_starting_leaves_nothing(harness: Harness) -> None:
    workload = harness.workload("stay")
    for attempt in range(1, 6):
        start = asyncio.create_task(harness.runtime.start(workload, Slot(0, attempt)))
        await asyncio.sleep(0.001 * attempt)
        await harness.runtime.remove(workload.plugin_uid, Slot(0, attempt))
        await start
        await harness.runtime.remove(workload.plugin_uid, Slot(0, attempt))
    assert harness.runtime.instances() == ()
    assert harness.leftovers() == []


async def test_many_at_once(harness: Harness) -> None:
    limits = LIMITS.__class__(LIMITS.cpu, 32 * MIB, LIMITS.pids, LIMITS.disk, LIMITS.open_files)
    workloads = [harness.workload("stay", name=f"m{number}", limits=limits) for number in range(30)]
    await asyncio.gather(*(harness.runtime.start(workload, FIRST) for workload in workloads))
    for workload in workloads:
        await harness.until(workload, lambda one: one.state is State.RUNNING)
    await asyncio.gather(*(harness.runtime.remove(workload.plugin_uid, FIRST) for workload in workloads))
    assert harness.leftovers() == []


async def test_output_has_the_times_at_which_it_came(harness: Harness) -> None:
    workload = harness.workload("say:one", "say:two", "exit:0")
    before = time.time()
    await harness.run(workload)
    found = harness.runtime.logs(workload.plugin_uid, FIRST, tail=None, follow=False)
    times = [line.at async for line in found]
    assert len(times) == 2
    assert before - 0.001 <= times[0] <= times[1] <= time.time() + 0.001
