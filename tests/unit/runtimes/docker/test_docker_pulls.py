"""Pulls: one however many want it, so many at once, again after a while that grows."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from crucible.errors import InvalidSource, Unavailable, Underway
from crucible.runtimes.docker.pulls import MOST, Pulls
from crucible.runtimes.docker.settings import DockerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 30.0
NAME = "localhost/x:1"


class Registry:
    """An engine whose pulls wait until they may go on, and end as they are told."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []
        self.answer: dict[str, Any] = {"status": "Pull complete"}

    def another(self) -> Registry:
        return self

    def pull(self, reference: str, **_: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(reference)
        assert self.go.wait(SECONDS)
        yield self.answer

    def close(self) -> None:
        """Nothing is open."""


class Scene:
    def __init__(self, place: Path) -> None:
        self.registry = Registry()
        self.rung: list[str] = []
        settings = DockerSettings(place, "here", retry=100.0)
        self.pulls = Pulls(self.registry, settings, self.rung.append)  # type: ignore[arg-type]

    def said(self, name: str = NAME, plugin: str = "uid-a") -> str:
        """Ask, and return what is said; empty when it is there."""
        try:
            self.pulls.ask(name, plugin)
        except (Underway, InvalidSource, Unavailable) as problem:
            return str(problem)
        return ""

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                await asyncio.sleep(0.002)

    async def fail(self) -> float:
        """Have a pull fail; return after how many seconds it is tried again."""
        before = len(self.registry.asked)
        assert "pulling" in self.said()
        await self.until(lambda: len(self.registry.asked) > before and NAME not in self.pulls._running)
        return self.pulls._failed[NAME].again_at - time.monotonic()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    found = Scene(tmp_path)
    yield found
    found.registry.go.set()


async def test_a_pull_that_fails_is_tried_again_after_a_while_that_doubles_up_to_five_minutes(
    scene: Scene,
) -> None:
    scene.registry.go.set()
    scene.registry.answer = {"error": "manifest unknown"}
    pauses = []
    for _ in range(4):
        pauses.append(await scene.fail())
        count = len(scene.registry.asked)
        assert "does not exist in its registry" in scene.said()
        assert "does not exist in its registry" in scene.said(plugin="uid-b")
        assert len(scene.registry.asked) == count, "nobody is asked before the time"
        failure = scene.pulls._failed[NAME]
        assert failure.waiting == {"uid-a", "uid-b"}
        scene.pulls._failed[NAME] = replace(failure, again_at=0.0)
    for pause, wanted in zip(pauses, (100, 200, 300, 300), strict=True):
        assert wanted - SECONDS < pause <= wanted
    scene.registry.answer = {"status": "Pull complete"}
    assert "pulling" in scene.said()
    await scene.until(lambda: NAME not in scene.pulls._running)
    assert NAME not in scene.pulls._failed, "it begins anew with the next that fails"


async def test_whoever_waits_is_rung_when_it_is_tried_again(scene: Scene) -> None:
    scene.registry.go.set()
    scene.registry.answer = {"error": "manifest unknown"}
    scene.pulls._settings = replace(scene.pulls._settings, retry=0.02)
    assert "pulling" in scene.said()
    await scene.until(lambda: scene.rung.count("uid-a") >= 2)


async def test_one_pull_is_for_all_who_want_it_and_good_once_for_each(scene: Scene) -> None:
    for plugin in ("uid-a", "uid-b"):
        assert "pulling" in scene.said(plugin=plugin)
    scene.registry.go.set()
    await scene.until(lambda: {"uid-a", "uid-b"} <= set(scene.rung))
    assert (scene.said(plugin="uid-a"), scene.said(plugin="uid-b")) == ("", "")
    assert scene.registry.asked == [NAME]
    assert "pulling" in scene.said(), "who asks again wants to know what is there by then"


async def test_so_many_pull_at_once_and_the_next_when_one_is_done(scene: Scene) -> None:
    names = [f"localhost/x:{number}" for number in range(MOST)]
    for name in names:
        assert "pulling" in scene.said(name)
    assert f"waits for {MOST} other pulls" in scene.said("localhost/more:1", "uid-late")
    await scene.until(lambda: set(scene.registry.asked) == set(names))
    scene.registry.go.set()
    await scene.until(lambda: "uid-late" in scene.rung)
    assert "waits for" not in scene.said("localhost/more:1", "uid-late")
