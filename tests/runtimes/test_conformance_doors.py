"""Doors: sockets of ours that an instance can open, and do nothing else with."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, SECONDS

from crucible.model.door import Door

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from harness import FakeHarness, ProcessHarness
    from harness_docker import DockerHarness

    from crucible.model.door import Doorway
    from crucible.model.workload import Workload

    Harness = FakeHarness | ProcessHarness
    Real = ProcessHarness | DockerHarness

CALLER = """\
import socket, sys, time
while True:
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect("/run/crucible/egress.sock")
            one.sendall(sys.argv[1].encode())
            words = one.makefile().readline().strip()
    except OSError:
        words = ""
    print("heard", words) if words else time.sleep(0.01)  # nobody serves it any more, or not yet
"""
VANDAL = """\
import os, socket
place = "/run/crucible"
os.symlink("/etc/passwd", "/tmp/link")
def attempt(name, function):
    try: function()
    except OSError as error: print(name, "failed", error.errno)
    else: print(name, "worked")
def bind():
    with socket.socket(socket.AF_UNIX) as one: one.bind(place + "/bus.sock")
attempt("remove", lambda: os.unlink(place + "/egress.sock"))
attempt("rename", lambda: os.rename(place + "/egress.sock", place + "/other.sock"))
attempt("bind", bind)
attempt("link", lambda: os.symlink("/etc/passwd", place + "/bus.sock"))
attempt("replace", lambda: os.rename("/tmp/link", place + "/egress.sock"))
attempt("write", lambda: open(place + "/file", "w"))
attempt("shut", lambda: os.chmod(place + "/egress.sock", 0))
attempt("take", lambda: os.chown(place + "/egress.sock", 1000, 1000))
print("sees", *sorted(os.listdir(place)))
"""


@pytest.fixture(params=["process", "docker"])
def real(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def stack() -> AsyncIterator[ExitStack]:
    with ExitStack() as found:
        yield found


async def accept(stack: ExitStack, listener: socket.socket) -> socket.socket:
    listener.setblocking(False)
    caller, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), SECONDS)
    return stack.enter_context(caller)


async def answer(caller: socket.socket, words: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    caller.setblocking(False)
    said = await asyncio.wait_for(loop.sock_recv(caller, 100), SECONDS)
    await loop.sock_sendall(caller, words + b"\n")
    caller.close()
    return said


def unix(listeners: tuple[socket.socket, ...], stack: ExitStack) -> socket.socket:
    """Return the Unix socket among a door's listeners."""
    for one in listeners:
        stack.enter_context(one)
    (found,) = (one for one in listeners if one.family == socket.AF_UNIX)
    return found


def own(harness: Harness | Real) -> tuple[Doorway, ...]:
    """Return the doors of instances themselves; a relay that stands for some has one too."""
    return tuple(way for way in harness.runtime.doorways() if way.place == str(FIRST))


async def door_of(real: Real, workload: Workload, stack: ExitStack) -> socket.socket:
    (doorway,) = (way for way in own(real) if way.plugin_uid == workload.plugin_uid)
    return unix(await real.runtime.listeners(doorway), stack)


async def test_an_instance_has_the_doors_of_its_workload_while_it_may_run(
    harness: Harness, stack: ExitStack
) -> None:
    plain, doors = harness.workload("stay", name="plain"), (Door.BUS, Door.EGRESS)
    workload = harness.workload("stay", name="q", doors=doors)
    assert workload.revision != harness.workload("stay", name="q").revision
    for each in (plain, workload):
        await harness.runtime.start(each, FIRST)
    found = own(harness)
    assert [(one.door, one.plugin, one.place) for one in found] == [(door, "q", str(FIRST)) for door in doors]
    assert set(found) <= set(harness.runtime.doorways(workload.plugin_uid))
    assert harness.runtime.doorways(plain.plugin_uid) == ()
    unix(await harness.runtime.listeners(found[0]), stack)
    await harness.runtime.kill(workload.plugin_uid, FIRST)
    assert harness.runtime.doorways() == ()
    assert await harness.runtime.listeners(found[0]) == ()
    for each in (plain, workload):
        await harness.runtime.remove(each.plugin_uid, FIRST)
    assert harness.leftovers() == []


async def test_who_comes_before_anyone_serves_waits_and_is_known(real: Real, stack: ExitStack) -> None:
    workload = real.script(CALLER, "caller", "knock", doors=(Door.EGRESS,))
    await real.runtime.start(workload, FIRST)
    (doorway,) = own(real)
    listener = unix(await real.runtime.listeners(doorway), stack)
    caller = await accept(stack, listener)
    _, uid, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    assert uid == doorway.peer
    assert uid != 0
    assert await answer(caller, b"welcome") == b"knock"
    await real.says(workload, b"heard welcome")


async def test_a_door_is_bound_anew_after_a_restart_of_the_controller(real: Real, stack: ExitStack) -> None:
    workload = real.script(CALLER, "caller", "again", doors=(Door.EGRESS,))
    await real.runtime.start(workload, FIRST)
    with ExitStack() as served:  # whoever serves it dies afterwards
        await answer(await accept(served, await door_of(real, workload, served)), b"one")
        await real.says(workload, b"heard one")
    await real.reopen()
    second = await door_of(real, workload, stack)
    await answer(await accept(stack, second), b"two")
    await real.says(workload, b"heard two")


async def test_a_plugin_cannot_change_what_is_behind_its_doors(real: Real) -> None:
    workload = real.script(VANDAL, "vandal", doors=(Door.EGRESS,))
    await real.run(workload)
    said = [line.decode() for line in await real.lines(workload)]
    assert said[-1] == "sees egress.sock"
    assert len(said) == 9
    assert all(" failed " in line for line in said[:-1]), said
