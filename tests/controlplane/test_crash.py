"""SIGKILL under write load: nothing acknowledged is lost, watches resume, revisions never go back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from probe import PLUGINS, Probe, plugin

from conftest import Child, spawn

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 100 if os.environ.get("CRUCIBLE_LONG") else 8
WRITERS = 8


class Ledger:
    """What the server acknowledged: the newest body of each object, or None once deleted.

    Attributes:
        asked: what was asked for each object and not answered: it may have been done or not.
        writes: every revision that was acknowledged.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[int, int] | None] = {}
        self.asked: dict[str, str] = {}
        self.writes: set[int] = set()
        self.newest = 0

    def note(self, name: str, body: dict[str, Any]) -> None:
        revision = int(body["metadata"]["resourceVersion"])
        self.objects[name] = (revision, body["spec"]["replicas"])
        self.writes.add(revision)
        self.newest = max(self.newest, revision)


async def write(probe: Probe, ledger: Ledger, names: list[str], dice: random.Random) -> None:
    """Create, change and delete one's own objects until the server dies."""
    try:
        while True:
            name = dice.choice(names)
            known = ledger.objects.get(name)
            if known is None:
                ledger.asked[name] = "create"
                reply = await probe.post(PLUGINS, plugin(name, replicas=dice.randint(0, 5)))
            elif dice.random() < 0.2:
                ledger.asked[name] = "delete"
                reply = await probe.delete(f"{PLUGINS}/{name}")
                assert reply.code == 200, reply.brief
                ledger.objects[name] = None
                del ledger.asked[name]
                continue
            else:
                ledger.asked[name] = "patch"
                reply = await probe.patch(f"{PLUGINS}/{name}", {"spec": {"replicas": dice.randint(0, 5)}})
            assert reply.code in {200, 201}, reply.brief
            ledger.note(name, reply.body)
            del ledger.asked[name]
    except (aiohttp.ClientError, TimeoutError, OSError):
        return


async def follow(probe: Probe, since: int, found: list[tuple[int, str, str]]) -> None:
    """Note every event after ``since`` until the server dies."""
    try:
        async with probe.watch(f"{PLUGINS}?watch=1&resourceVersion={since}") as watch:
            while True:
                event = await watch.next()
                meta = event["object"]["metadata"]
                found.append((int(meta["resourceVersion"]), event["type"], meta["name"]))
    except (aiohttp.ClientError, EOFError, TimeoutError, ValueError, OSError):
        return


async def live_until_killed(child: Child, ledger: Ledger, events: list[Any], dice: random.Random) -> None:
    async with child.probe() as probe:
        since = events[-1][0] if events else (await probe.get(PLUGINS)).revision
        watching = asyncio.create_task(follow(probe, since, events))
        writers = [
            asyncio.create_task(
                write(probe, ledger, [f"w{at}-{n}" for n in range(3)], random.Random(dice.random()))
            )
            for at in range(WRITERS)
        ]
        target = ledger.newest + dice.randint(20, 120) if ledger.newest else since + 20
        async with asyncio.timeout(30):
            while ledger.newest < target and not all(task.done() for task in writers):
                await asyncio.sleep(0.005)
        assert ledger.newest >= target, "nobody wrote"
        await child.end(signal.SIGKILL)
        await asyncio.gather(*writers, watching)


async def check(child: Child, ledger: Ledger) -> None:
    """Hold what a new server shows against what the one before acknowledged."""
    async with child.probe() as probe:
        found = await probe.get(PLUGINS)
        assert found.revision >= ledger.newest
        present = {item["metadata"]["name"]: item for item in found.body["items"]}
        for name, known in ledger.objects.items():
            item, asked = present.get(name), ledger.asked.get(name)
            if known is None or item is None:
                assert known is None or asked == "delete", f"{name} was acknowledged and is gone"
                assert item is None or asked == "create", f"{name} was deleted and is back"
                continue
            revision, replicas = int(item["metadata"]["resourceVersion"]), item["spec"]["replicas"]
            assert (revision, replicas) == known or (asked == "patch" and revision > known[0]), name
        for name, item in present.items():
            ledger.note(name, item)
        ledger.asked.clear()
        ledger.objects = {name: ledger.objects[name] if name in present else None for name in ledger.objects}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_kills_under_load_lose_nothing(state: Path) -> None:
    dice, ledger = random.Random(7), Ledger()
    events: list[tuple[int, str, str]] = []
    for _ in range(KILLS):
        child = await spawn(state)
        await check(child, ledger)
        await live_until_killed(child, ledger, events, dice)
    child = await spawn(state)
    await check(child, ledger)
    async with child.probe() as probe:  # whoever watched through all of it catches up with the last writes
        watching = asyncio.create_task(follow(probe, events[-1][0], events))
        async with asyncio.timeout(30):
            while events[-1][0] < ledger.newest:
                await asyncio.sleep(0.005)
        await child.end()
        await watching
    revisions = [revision for revision, _, _ in events]
    assert revisions == sorted(set(revisions)), "an event came twice or out of order"
    first = revisions[0]
    missed = {revision for revision in ledger.writes if revision >= first} - set(revisions)
    assert not missed, "a write was acknowledged and no watcher saw it"
    alive: dict[str, bool] = {}
    for _, kind, name in events:
        assert (kind == "ADDED") == (not alive.get(name, False)), f"a gap before {kind} {name}"
        alive[name] = kind != "DELETED"


async def test_a_torn_write_ahead_log_loses_only_what_was_never_acknowledged(state: Path) -> None:
    child = await spawn(state)
    async with child.probe() as probe:
        for at in range(20):
            assert (await probe.post(PLUGINS, plugin(f"p{at:02}"))).code == 201
    await child.end(signal.SIGKILL)
    wal = state / "control.db-wal"
    with wal.open("ab") as file:
        file.write(os.urandom(3000))
    child = await spawn(state)
    async with child.probe() as probe:
        assert len((await probe.get(PLUGINS)).body["items"]) == 20
    await child.end()
