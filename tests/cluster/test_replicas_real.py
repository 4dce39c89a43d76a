"""Two brokers and the chart's NATS on a real cluster: calls between them, and kill -9 of each under load."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from brokers import Brokers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

SPLIT = """
import threading, time
from crucible_plugin import BusError, Plugin

plugin, seen = Plugin(), set()
plugin.unready("follows nothing yet")

@plugin.method()
def words(request):
    time.sleep(0.05)  # so that some are open at any time
    return request.payload

@plugin.method()
def missing(request):
    return [each for each in request.payload if each not in seen]

def follow():
    while not plugin.wait(seconds=0.2):
        try:
            plugin.events.take("notes.*", timeout=1)
            break
        except BusError as error:
            print(error, flush=True)
    plugin.ready()
    for event in plugin.events.follow("notes.*"):
        seen.add(event.payload)

with plugin:
    threading.Thread(target=follow, daemon=True).start()
    while not plugin.wait(seconds=1):
        pass
"""
ASK = """
import collections, json, threading, time
from crucible_plugin import BusError, Plugin

LIMIT = 20
plugin, settling = Plugin(), threading.Event()
good, bad, slowest = collections.Counter(), collections.Counter(), 0.0
put, kept = [], {}

@plugin.on_config
def changed(config):
    if config.get("settle"):
        settling.set()

def tried(what, work):
    global slowest
    began = time.monotonic()
    try:
        work()
    except BusError as error:
        bad[f"{what}: {error.code}"] += 1
        time.sleep(0.05)
        return False
    finally:
        slowest = max(slowest, time.monotonic() - began)
    good[what] += 1
    return True

def call():
    while not settling.is_set():
        tried("call", lambda: plugin.call("split.words", "to be", timeout=LIMIT))

def write():
    number = 0
    while not settling.is_set():
        number += 1
        key = f"key-{number % 20}"
        if tried("event", lambda: plugin.events.put("notes.saved", number, ident=str(number))):
            put.append(number)
        if tried("store", lambda: plugin.store.put(key, number)):
            kept[key] = number

def say(**more):
    print(json.dumps({"good": good, "bad": bad, "slowest": slowest, **more}), flush=True)

with plugin:
    threads = [threading.Thread(target=work) for work in (call, call, call, call, write)]
    for each in threads:
        each.start()
    while not settling.is_set() and not plugin.wait(seconds=0.5):
        say(alive=all(each.is_alive() for each in threads))
    for each in threads:
        each.join()
    while not plugin.wait(seconds=0.5):
        try:
            missing = plugin.call("split.missing", put, timeout=LIMIT)
            stale = [key for key, number in kept.items() if plugin.store.get(key) < number]
        except BusError as error:
            say(last=str(error))
        else:
            say(missing=missing, stale=stale, put=len(put), kept=len(kept))
"""
REACH = """
import json, os, socket, time
from crucible_plugin import Plugin

def reached(host, port):
    try:
        socket.create_connection((host, port), 8).close()
    except OSError as error:
        return f"failed: {error}"
    return "reached"

plugin = Plugin()
while True:  # for a network takes its time to hear of a pod
    found = {name: reached(*where) for name, where in plugin.config["where"].items()}
    print(json.dumps(found), flush=True)
    time.sleep(1)
"""
_DOOR = "its door for people"
GRANTED = {"call": ["split.words", "split.missing"], "publish": ["notes.*"]}


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    async with Brokers(tmp_path) as place:
        await place.install()
        yield place


class Load:
    """A plugin that calls, puts events and stores without an end, and one elsewhere that is called."""

    resources: ClassVar[dict[str, str]] = {"cpu": "200m", "memory": "64Mi"}

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers

    async def begin(self) -> None:
        """Start both, and have them on two brokers."""
        bus, store = {"subscribe": ["notes.*"]}, {"size": "64Ki", "onDelete": "remove"}
        await self._apply("split", SPLIT, {"bus": bus})
        await self._apply("ask", ASK, {"bus": GRANTED, "store": store})
        await self.brokers.part_ways("split", "ask")

    async def _apply(self, name: str, program: str, capabilities: dict[str, Any]) -> None:
        source = {"inline": {"main.py": program}}
        more = {"resources": self.resources, "configDelivery": "bus"}
        await self.brokers.apply(name, source=source, capabilities=capabilities, **more)
        await self.brokers.until_ready(name)

    async def said(self) -> dict[str, Any]:
        """Return the last that the caller said of itself."""
        (pod,) = await self.brokers.running("ask")
        return await self.brokers.line(pod["metadata"]["name"]) or {}

    async def until_more(self) -> None:
        """Wait until calls, events and stores have all succeeded again."""
        before = (await self.said()).get("good", {})

        async def more() -> bool:
            now = await self.said()
            assert now.get("alive", True), f"a thread ended by what is no BusError: {now}"
            good = now.get("good", {})
            return all(good.get(what, 0) > before.get(what, 0) + 3 for what in ("call", "event", "store"))

        await self.brokers.until(more, lambda: f"nothing succeeds any more since {before}")

    async def settled(self) -> dict[str, Any]:
        """Let it stop, and wait until nothing that was promised is missing; return what it found."""
        await self.brokers.change("ask", config={"settle": True})
        last: dict[str, Any] = {}

        async def whole() -> bool:
            last.update(await self.said())
            return last.get("missing") == [] and last.get("stale") == []

        await self.brokers.until(whole, lambda: f"something is lost: {json.dumps(last)[:2000]}")
        return last


async def test_brokers_and_nats_are_killed_under_load_and_nothing_that_was_promised_is_lost(
    brokers: Brokers,
) -> None:
    load = Load(brokers)
    await load.begin()
    await load.until_more()
    for plugin in ("split", "ask"):  # the one that has the called plugin, then the one that has the caller
        broker = await brokers.broker_of(plugin)
        await brokers.kill("bus", broker)
        await load.until_more()
        await brokers.until_joined()
    await brokers.kill("nats", "crucible-bus-nats-0")
    await brokers.until_joined()
    await load.until_more()
    # Another pod takes over the volume, and brokers are replaced one by one.
    await brokers.move("crucible-bus-nats-0")
    await brokers.until_joined()
    await load.until_more()
    await brokers.replace()
    await load.until_more()
    (ask,), (split,) = await asyncio.gather(brokers.running("ask"), brokers.running("split"))
    found = await load.settled()
    assert found["put"] > 0, found
    assert found["kept"] > 0, found
    assert {each.partition(": ")[2] for each in found["bad"]} <= {"Unavailable"}, found
    assert found["slowest"] < 20 + 5, f"something ended after its deadline: {found}"  # LIMIT, and a busy node
    same = await asyncio.gather(brokers.running("ask"), brokers.running("split"))
    assert [pod["metadata"]["uid"] for (pod,) in same] == [pod["metadata"]["uid"] for pod in (ask, split)]


async def test_certificates_are_renewed_while_nobodys_connection_ends(brokers: Brokers) -> None:
    load = Load(brokers)
    await load.begin()
    await load.until_more()
    before = await brokers.connections()
    shown = await brokers.shown()
    await brokers.certify()

    async def others() -> bool:
        now = await brokers.shown()
        return all(now[name] != shown[name] for name in shown)

    await brokers.until(others, lambda: "the nodes do not put the new certificates there")
    await brokers.until(brokers.nats_was_told)
    await load.until_more()
    after = await brokers.connections()
    assert {name: before[name] - after[name] for name in before} == {name: set() for name in before}
    # Whoever comes now is shown the new ones: a plugin, and a broker at NATS.
    broker = await brokers.broker_of("ask")
    await brokers.kill("bus", broker)
    await brokers.until_joined()
    await load.until_more()
    found = await load.settled()
    assert {each.partition(": ")[2] for each in found["bad"]} <= {"Unavailable"}, found


async def test_none_but_brokers_reach_nats_and_nobody_in_the_network_the_door_for_people_outside(
    brokers: Brokers,
) -> None:
    (nats,), (broker, *_) = await brokers.parts("nats"), await brokers.parts("bus")
    there, bus = nats["status"]["podIP"], broker["status"]["podIP"]
    service = await brokers.client.get(brokers.within("services", "crucible-bus-nats"))
    where = {
        "nats": (service["spec"]["clusterIP"], 4222),
        "its pod": (there, 4222),
        "its monitoring": (there, 8222),
        "broker": (bus, 3129),
        _DOOR: (bus, 3130),
        "its figures": (bus, 9090),
    }
    source = {"inline": {"main.py": REACH}}
    await brokers.apply("reach", source=source, capabilities={"bus": {}}, config={"where": where})
    await brokers.until_ready("reach")
    (pod,) = await brokers.running("reach")
    names = (pod["metadata"]["name"], await brokers.pose(pod, labelled=False))
    last: dict[str, Any] = {}

    async def reach(name: str, wanted: set[str]) -> bool:
        last.update(await brokers.tried(name))
        return {place for place, how in last.items() if how == "reached"} == wanted

    try:
        await brokers.until(lambda: reach(names[1], {"its figures"}))
    except AssertionError as error:
        if {place for place, how in last.items() if how == "reached"} == set(where) - {_DOOR}:
            pytest.skip(f"this cluster's network enforces no NetworkPolicy: {last}")
        raise AssertionError(f"a stranger: {last}") from error
    await brokers.until(lambda: reach(names[0], {"broker"}), lambda: f"a plugin: {last}")
