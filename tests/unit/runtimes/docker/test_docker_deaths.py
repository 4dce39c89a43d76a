from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from crucible.runtimes.docker import deaths as module
from crucible.runtimes.docker.deaths import Death, Deaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE = "a" * 64
KILLED = 9
"""The wait status of a program that SIGKILL ended."""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


class OneGroup:
    """The group of one container, whose first process is a pipe: it ends when the other end is closed."""

    def __init__(self, *, oom: bool | None = False) -> None:
        self.asked = 0
        self._oom = oom
        self._first, self._life = os.pipe()

    def first(self, container: str) -> int | None:
        assert container == ONE
        self.asked += 1
        return os.dup(self._first)

    def over_memory(self, container: str) -> bool | None:
        assert container == ONE
        return self._oom

    def end(self) -> None:
        os.close(self._life)
        self._life = -1

    def close(self) -> None:
        os.close(self._first)
        if self._life >= 0:
            self.end()


class Told:
    def __init__(self, group: object) -> None:
        self.deaths = Deaths(group, lambda container, death: self.ends.append((container, death)))  # type: ignore[arg-type]
        self.ends: list[tuple[str, Death]] = []


@pytest.fixture
def group() -> Iterator[OneGroup]:
    made = OneGroup()
    yield made
    made.close()


def kernel_says(monkeypatch: pytest.MonkeyPatch, *words: int | None) -> list[int | None]:
    """Have the kernel answer so: once as the watch begins, then after the end, the last for ever."""
    left = [None, *words]

    def answer(_: int) -> int | None:
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(module, "_status", answer)
    return left


@pytest.mark.skipif(
    tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 15),
    reason="before Linux 6.15 the kernel tells only parents how a process ended",
)
@pytest.mark.parametrize(
    ("ending", "code"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
async def test_the_kernel_tells_how_a_process_ended(ending: str, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", f"input()\n{ending}"], stdin=subprocess.PIPE)

    class Real(OneGroup):
        def first(self, container: str) -> int | None:
            return os.pidfd_open(process.pid)

    group = Real()
    told = Told(group)
    told.deaths.watch(ONE)
    process.communicate(b"\n")
    await until(lambda: bool(told.ends))
    assert told.ends == [(ONE, Death(code, oom=False))]
    group.close()


@pytest.mark.parametrize("oom", [True, False])
async def test_a_kill_is_told_with_the_kernels_reason(monkeypatch: pytest.MonkeyPatch, oom: bool) -> None:
    kernel_says(monkeypatch, None, None, KILLED)  # its parent takes note a little later
    group = OneGroup(oom=oom)
    told = Told(group)
    told.deaths.watch(ONE)
    group.end()
    await until(lambda: bool(told.ends))
    assert told.ends == [(ONE, Death(137, oom))]
    group.close()


@pytest.mark.parametrize(
    ("status", "oom"),
    [
        pytest.param(KILLED, None, id="a kill whose reason cannot be read"),
        pytest.param(137 << 8, None, id="a kill below the init process whose reason cannot be read"),
        pytest.param(126 << 8, False, id="a program that cannot be executed"),
        pytest.param(127 << 8, False, id="a program that is not there"),
        pytest.param(None, False, id="no word of the kernel"),
    ],
)
async def test_what_is_not_told_in_full_is_left_to_the_engine(
    monkeypatch: pytest.MonkeyPatch, status: int | None, oom: bool | None
) -> None:
    kernel_says(monkeypatch, status)
    group = OneGroup(oom=oom)
    told = Told(group)
    told.deaths.watch(ONE)
    group.end()
    await until(lambda: not told.deaths._watched)
    assert told.ends == []
    group.close()


async def test_a_container_that_is_forgotten_is_not_told_of(
    monkeypatch: pytest.MonkeyPatch, group: OneGroup
) -> None:
    kernel_says(monkeypatch, None, 0)
    told = Told(group)
    told.deaths.watch(ONE)
    told.deaths.forget(ONE)
    group.end()
    told.deaths.watch(ONE)
    await until(lambda: bool(told.ends))
    assert (group.asked, told.ends) == (2, [(ONE, Death(0, oom=False))])


async def test_a_kernel_that_does_not_know_the_question_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, group: OneGroup
) -> None:
    def refuse(_: int) -> int | None:
        raise OSError

    monkeypatch.setattr(module, "_status", refuse)
    told = Told(group)
    for _ in range(3):
        told.deaths.watch(ONE)
    assert (group.asked, told.deaths._watched) == (1, {})
