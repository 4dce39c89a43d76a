"""The contract of ``runtimes/base.py`` on connections to an instance's ports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import FIRST, SECONDS

from crucible.errors import Conflict, NotFound

if TYPE_CHECKING:
    from harness import FakeHarness, ProcessHarness

    from crucible.model.workload import Slot, Workload

    Harness = FakeHarness | ProcessHarness

PORT = 8080


async def fetch(harness: Harness, workload: Workload, slot: Slot = FIRST) -> bytes:
    """Ask an instance's port, and read its answer to the end."""
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(SECONDS),
        harness.runtime.connect(workload.plugin_uid, slot, PORT) as door,
    ):
        await loop.sock_sendall(door.socket, b"GET / HTTP/1.0\r\n\r\n")
        said = b""
        while chunk := await loop.sock_recv(door.socket, 4096):
            said += chunk
        return said


async def serving(harness: Harness, name: str = "p") -> Workload:
    workload = harness.workload(f"listen:{PORT}", "stay", name=name)
    await harness.runtime.start(workload, FIRST)
    await harness.says(workload, b"staying")
    return workload


async def test_a_port_of_the_instance_answers_again_and_again(harness: Harness) -> None:
    workload = await serving(harness)
    for _ in range(5):
        assert (await fetch(harness, workload)).endswith(b"here")


async def test_several_may_be_connected_at_once(harness: Harness) -> None:
    workload = await serving(harness)
    answers = await asyncio.gather(*(fetch(harness, workload) for _ in range(5)))
    assert [answer[-4:] for answer in answers] == [b"here"] * 5


async def test_the_same_port_of_another_instance_is_another_port(harness: Harness) -> None:
    await serving(harness)
    other = harness.workload("stay", name="other")
    await harness.runtime.start(other, FIRST)
    await harness.says(other, b"staying")
    with pytest.raises(ConnectionRefusedError):
        await fetch(harness, other)
    with pytest.raises(ConnectionRefusedError):
        await fetch(harness, other)  # by a socket that was refused once


async def test_one_that_ended_and_one_that_never_was_cannot_be_connected_to(harness: Harness) -> None:
    workload = await serving(harness)
    await harness.runtime.kill(workload.plugin_uid, FIRST)
    await harness.until(workload, lambda one: not one.alive)
    with pytest.raises(Conflict):
        await fetch(harness, workload)
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    with pytest.raises(NotFound):
        await fetch(harness, workload)


async def test_whoever_is_cancelled_leaves_nothing_open(harness: Harness) -> None:
    workload = await serving(harness)
    await fetch(harness, workload)

    async def hang() -> None:
        async with harness.runtime.connect(workload.plugin_uid, FIRST, PORT):
            connected.set()
            await asyncio.Event().wait()

    connected = asyncio.Event()

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        connected.clear()
        task = asyncio.create_task(hang())
        async with asyncio.timeout(SECONDS):
            await connected.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert (await fetch(harness, workload)).endswith(b"here")


async def test_a_removed_instance_leaves_no_socket_behind(harness: Harness) -> None:
    workload = await serving(harness)
    before = len(list(Path("/proc/self/fd").iterdir()))
    await fetch(harness, workload)
    await harness.runtime.remove(workload.plugin_uid, FIRST)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
