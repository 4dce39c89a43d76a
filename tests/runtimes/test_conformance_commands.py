"""The contract of ``runtimes/base.py`` on commands in instances and on what those use."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from harness import FIRST, LIMITS

from crucible.errors import Conflict, NotFound
from crucible.model.instance import State
from crucible.runtimes.base import NOT_THERE

if TYPE_CHECKING:
    from harness import FakeHarness, ProcessHarness

    from crucible.model.workload import Workload

    Harness = FakeHarness | ProcessHarness


async def test_a_command_says_its_part_and_how_it_ended(harness: Harness) -> None:
    workload = await staying(harness)
    assert await harness.enter(workload, *harness.command("echo", "a", "b")) == (0, b"a b\n", b"")
    code, out, _ = await harness.enter(workload, *harness.command("exit", "3"))
    assert (code, out) == (3, b"")
    assert harness.instance(workload).state is State.RUNNING


async def test_a_command_reads_what_it_is_sent_and_nothing_otherwise(harness: Harness) -> None:
    workload = await staying(harness)
    typed = b"typed\n" * 1000
    assert await harness.enter(workload, *harness.command("cat"), stdin=typed) == (0, typed, b"")
    assert await harness.enter(workload, *harness.command("cat")) == (0, b"", b"")


async def test_a_command_that_is_not_there_is_an_exit_code_with_words(harness: Harness) -> None:
    workload = await staying(harness)
    code, out, err = await harness.enter(workload, "no-such-command", "x")
    assert (code, out) == (NOT_THERE, b"")
    assert b"no-such-command" in err


async def test_commands_run_beside_each_other(harness: Harness) -> None:
    workload = await staying(harness)
    runs = (harness.enter(workload, *harness.command("echo", str(number))) for number in range(4))
    assert [out for _, out, _ in await asyncio.gather(*runs)] == [b"%d\n" % number for number in range(4)]


async def test_a_command_has_a_terminal_of_the_size_it_is_told(harness: Harness) -> None:
    workload = await staying(harness)
    session = await harness.runtime.exec(
        workload.plugin_uid, FIRST, harness.command("size"), stdin=True, tty=True
    )
    await session.resize(33, 77)
    said = b"".join([chunk async for _, chunk in session.output()])
    assert said.split() == [b"33", b"77"]
    assert await session.wait() == 0
    await session.close()


async def test_closing_ends_a_command_and_nothing_else(harness: Harness) -> None:
    workload = await staying(harness)
    session = await harness.runtime.exec(
        workload.plugin_uid, FIRST, harness.command("sleep"), stdin=False, tty=False
    )
    await session.close()
    await session.close()
    assert await session.wait() == 128 + signal.SIGKILL
    assert harness.instance(workload).state is State.RUNNING


async def test_a_command_goes_with_its_instance(harness: Harness) -> None:
    workload = await staying(harness)
    session = await harness.runtime.exec(
        workload.plugin_uid, FIRST, harness.command("sleep"), stdin=False, tty=False
    )
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    assert [said async for said in session.output()] == []
    assert await session.wait() == 128 + signal.SIGKILL
    await session.close()
    assert harness.leftovers() == []


async def test_a_command_needs_an_instance_that_runs(harness: Harness) -> None:
    workload = harness.workload("exit:0")
    with pytest.raises(NotFound):
        await harness.enter(workload, *harness.command("echo"))
    await harness.run(workload)
    with pytest.raises(Conflict):
        await harness.enter(workload, *harness.command("echo"))


async def test_the_next_controller_runs_commands_in_what_it_adopted(harness: Harness) -> None:
    workload = await staying(harness)
    await harness.reopen()
    assert await harness.enter(workload, *harness.command("echo", "still")) == (0, b"still\n", b"")


async def test_usage_is_of_what_runs(harness: Harness) -> None:
    workload = await staying(harness)
    used = await harness.runtime.usage(workload.plugin_uid, FIRST)
    if used is not None:
        again = await harness.runtime.usage(workload.plugin_uid, FIRST)
        assert again is not None
        assert again.cpu >= used.cpu > 0
        assert again.at >= used.at
        assert 0 < used.memory <= LIMITS.memory
        assert used.memory_peak is None or used.memory_peak > 0
        assert 0 < used.pids <= LIMITS.pids
    await harness.runtime.kill(workload.plugin_uid, FIRST)
    assert await harness.runtime.usage(workload.plugin_uid, FIRST) is None
    assert await harness.runtime.usage("uid-none", FIRST) is None


async def staying(harness: Harness) -> Workload:
    """Start an instance that stays, and wait until it runs."""
    workload = harness.workload("stay")
    await harness.runtime.start(workload, FIRST)
    await harness.says(workload, b"staying")
    await harness.until(workload, lambda one: one.state is State.RUNNING)
    return workload
