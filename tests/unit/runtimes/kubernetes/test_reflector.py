"""A copy of a collection, told of changes by a watch and by answers, whichever comes first."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from crucible.runtimes.kubernetes.reflector import Reflector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

DEADLINE = 30.0


def found(version: int, name: str = "p-0-1", **meta: Any) -> dict[str, Any]:
    identity = {"namespace": "default", "name": name, "uid": f"u-{name}", "resourceVersion": str(version)}
    return {"metadata": {**identity, **meta}}


GOING: dict[str, Any] = {"deletionTimestamp": "2026-01-31T09:30:00Z", "deletionGracePeriodSeconds": 0}
KNOWN = found(5)
MARKED = found(7, **GOING)


class Server:
    """Lists one object, and then tells what it is given to tell."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def get(self, *_: Any) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": "5"}, "items": [found(5)]}

    @asynccontextmanager
    async def watch(self, _: str, params: Mapping[str, str]) -> AsyncIterator[Any]:
        assert params["resourceVersion"] == "5"
        yield self._told()

    async def _told(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self.events.get()
            self.events.task_done()

    async def tell(self, *events: tuple[str, dict[str, Any]]) -> None:
        """Tell of changes; returns once they have been taken in."""
        for kind, each in events:
            self.events.put_nowait({"type": kind, "object": each})
        async with asyncio.timeout(DEADLINE):
            await self.events.join()


@pytest.fixture
async def followed() -> AsyncIterator[tuple[Server, Reflector, list[Any]]]:
    server, heard = Server(), list[Any]()
    cluster: Any = server
    reflector = Reflector(cluster, "/api/v1/pods", "a=b", lambda before, after: heard.append((before, after)))
    running = asyncio.create_task(reflector.run(lambda: None))
    async with asyncio.timeout(DEADLINE):
        await reflector.listed.wait()
    heard.clear()
    yield server, reflector, heard
    running.cancel()


async def test_an_answer_that_comes_after_the_end_was_told_brings_nothing_back(
    followed: tuple[Server, Reflector, list[Any]],
) -> None:
    """A pod that is deleted with no grace is gone for the watch before the deletion is answered."""
    server, reflector, heard = followed
    await server.tell(("MODIFIED", MARKED), ("DELETED", found(8, **GOING)))
    assert reflector.find("default", "p-0-1") is None
    count = len(heard)
    reflector.take(MARKED)
    reflector.take(found(8, **GOING))
    assert reflector.find("default", "p-0-1") is None
    assert len(heard) == count


async def test_an_answer_that_comes_first_is_taken_and_the_watch_tells_of_its_end(
    followed: tuple[Server, Reflector, list[Any]],
) -> None:
    server, reflector, _ = followed
    reflector.take(found(7, **GOING))
    assert reflector.find("default", "p-0-1") == MARKED
    await server.tell(("MODIFIED", found(7, **GOING)), ("DELETED", found(8, **GOING)))
    assert reflector.find("default", "p-0-1") is None


async def test_what_was_just_made_is_known_at_once_and_what_is_known_can_be_renewed(
    followed: tuple[Server, Reflector, list[Any]],
) -> None:
    server, reflector, _ = followed
    reflector.take(found(6, "p-0-2"))
    assert reflector.find("default", "p-0-2") == found(6, "p-0-2")
    await server.tell(("ADDED", found(6, "p-0-2")), ("BOOKMARK", {"metadata": {"resourceVersion": "9"}}))
    reflector.take(found(8, "p-0-2"))
    kept = reflector.find("default", "p-0-2")
    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == "8"
