"""The operator's line on a real cluster: its pod, the network between, and brokers that go and come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from brokers import BROKERS, Brokers
from ground import condition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

KEPT = """
import json, time
from crucible_plugin import Plugin

plugin = Plugin()

@plugin.on_config
def changed(config):
    print(json.dumps(config), flush=True)

@plugin.method()
def slow(request):
    print(json.dumps({"open": True}), flush=True)
    time.sleep(25)
    return "done"

plugin.run()
"""
ASK = """
import json, threading
from crucible_plugin import BusError, Plugin

plugin, said = Plugin(), {"heard": [], "answers": []}

def say():
    print(json.dumps(said) + "\\n", end="", flush=True)  # one write: others print too

def call(name):
    try:
        said["answers"].append(plugin.call(name, timeout=200))
    except BusError as error:
        said["answers"].append(error.code)
    say()

@plugin.subscribe("crucible.events.>")
def heard(message):
    said["heard"].append([message.subject, message.payload["type"], message.caller])
    say()

@plugin.on_config
def changed(config):
    threading.Thread(target=call, args=(config["call"],), daemon=True).start()

plugin.run()
"""
COUNT = """
import json, os, time
from crucible_plugin import Plugin

plugin = Plugin()
release = json.load(open(os.environ["CRUCIBLE_CONFIG"]))["release"]

@plugin.method()
def count(request):
    time.sleep(1)
    return release

plugin.run()
"""
CALLS = """
import collections, json, threading
from crucible_plugin import BusError, Plugin

plugin, said = Plugin(), collections.Counter()

def call():
    while True:
        try:
            said[f"release {plugin.call('count.count', timeout=60)}"] += 1
        except BusError as error:
            said[str(error)] += 1

with plugin:
    for _ in range(4):
        threading.Thread(target=call, daemon=True).start()
    while not plugin.wait(seconds=0.5):
        print(json.dumps(said) + "\\n", end="", flush=True)  # one write: others print too
"""
PINGED: dict[str, Any] = {
    "ready": {"ping": {}, "interval": "1s", "failures": 3},
    "live": {"ping": {}, "interval": "1s", "failures": 3},
}


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    async with Brokers(tmp_path) as place:
        await place.install()
        yield place


async def printed(brokers: Brokers, name: str) -> dict[str, Any]:
    """Return the last object that a plugin's one pod printed; empty before the first."""
    (pod,) = await brokers.running(name)
    return await brokers.line(pod["metadata"]["name"]) or {}


async def test_probes_configurations_events_and_draining_go_to_whichever_broker_has_the_plugin(
    brokers: Brokers,
) -> None:
    kept: dict[str, Any] = {
        "source": {"inline": {"main.py": KEPT}},
        "capabilities": {"bus": {}},
        "configDelivery": "bus",
        "config": {"a": 1},
    }
    ask: dict[str, Any] = {
        "source": {"inline": {"main.py": ASK}},
        "capabilities": {"bus": {"call": ["kept.slow"], "subscribe": ["crucible.events.>"]}},
        "configDelivery": "bus",
    }
    await brokers.apply("kept", **kept, health=PINGED, lifecycle={"drain": "1h"})
    await brokers.apply("ask", **ask, health=PINGED)
    await brokers.until_ready("kept")
    await brokers.until_ready("ask")
    await brokers.part_ways("kept", "ask")
    both = await brokers.uids("kept", "ask")
    # A configuration, to the pod there is.
    await brokers.change("kept", config={"a": 2})

    async def taken() -> bool:
        return await printed(brokers, "kept") == {"a": 2}

    await brokers.until(taken, lambda: "the configuration does not come")
    await brokers.until_ready("kept")
    # What is refused there shows here.
    await brokers.change("ask", config={"call": "kept.other"})
    await brokers.until_condition("ask", "Degraded", "Limited", "call kept.other")
    # What the operator records is heard there.
    await brokers.apply("third", capabilities={"bus": {}})
    await brokers.until_ready("third")
    started = ["crucible.events.third.Started", "dev.crucible.plugin.Started", "$controller"]

    async def heard() -> bool:
        return started in (await printed(brokers, "ask")).get("heard", [])

    await brokers.until(heard, lambda: "no event of the operator's is heard")
    # Who is stopped ends the call it has.
    await brokers.change("ask", config={"call": "kept.slow"})

    async def called() -> bool:
        return await printed(brokers, "kept") == {"open": True}

    await brokers.until(called, lambda: "kept is not called")
    assert await brokers.uids("kept", "ask") == both, "a pod was started anew"
    await brokers.change("kept", suspend=True)

    async def draining() -> bool:
        return bool((await brokers.plugin("kept"))["status"].get("draining"))

    await brokers.until(draining, lambda: "kept does not drain")
    assert await brokers.uids("kept", "ask") == both

    async def answered() -> bool:
        return (await printed(brokers, "ask"))["answers"] == ["NotPermitted", "done"]

    await brokers.until(answered, lambda: "its call was not ended")

    async def gone() -> bool:
        return not await brokers.pods("kept")

    await brokers.until(gone, lambda: "kept goes on after its last call")


async def test_no_plugin_is_blamed_for_brokers_that_are_away_nor_for_an_operator_that_was_killed(
    brokers: Brokers,
) -> None:
    pinged: dict[str, Any] = {
        "source": {"inline": {"main.py": "from crucible_plugin import Plugin\nPlugin().run()\n"}},
        "capabilities": {"bus": {}},
        "health": PINGED,
    }
    for name in ("one", "two"):
        await brokers.apply(name, **pinged)
    for name in ("one", "two"):
        await brokers.until_ready(name)
    same = await brokers.uids("one", "two")
    # A broker is killed where it stands; then there is none; then there are others.
    await brokers.kill("bus", await brokers.broker_of("one"))
    await brokers.until_joined()
    await brokers.broker_of("one")
    await brokers.scale(0)
    await brokers.until_condition("one", "Degraded", "CompanionFailed")
    await brokers.until_condition("two", "Degraded", "CompanionFailed")
    await brokers.scale(BROKERS)
    await brokers.until_joined()

    async def well() -> bool:
        found = [await brokers.plugin(name) for name in ("one", "two")]
        return all(
            condition(each, "Degraded").get("reason") != "CompanionFailed"
            and condition(each, "Ready")["status"] == "True"
            for each in found
        )

    await brokers.until(well, lambda: "with other brokers plugins are not well again")
    # Who leads is killed; then its pod is replaced, and its standby leads, which is older than the next.
    for name, end in (("three", brokers.kill_operator), ("four", brokers.replace_operator)):
        await end(await brokers.leader())
        await brokers.apply(name, **pinged)
        await brokers.until_ready(name)
        await brokers.until(well, lambda: "with another operator plugins are not well")
    assert await brokers.uids("one", "two") == same, "a plugin was restarted for what was not its fault"


async def test_a_handover_refuses_no_call_and_ends_the_old_instance_with_its_last_one(
    brokers: Brokers,
) -> None:
    count: dict[str, Any] = {
        "source": {"inline": {"main.py": COUNT}},
        "capabilities": {"bus": {}},
        "health": {"ready": {"ping": {}, "interval": "1s"}},
        "update": {"strategy": "handover", "verify": "2s"},
        "lifecycle": {"drain": "1h"},  # which it does not need: its calls are counted
        "config": {"release": 1},
    }
    await brokers.apply("count", **count)
    await brokers.until_ready("count")
    capabilities = {"bus": {"call": ["count.count"]}}
    await brokers.apply("calls", source={"inline": {"main.py": CALLS}}, capabilities=capabilities)
    await brokers.until_ready("calls")
    for release in (1, 2, 3):
        await brokers.change("count", config={"release": release})

        async def answers(name: str = f"release {release}") -> bool:
            return (await printed(brokers, "calls")).get(name, 0) > 10

        await brokers.until(answers, lambda: "the last release does not answer")
        await brokers.until_ready("count")

        async def alone() -> bool:
            return len(await brokers.pods("count")) == 1

        await brokers.until(alone, lambda: "the old instance goes on without a call")
    assert set(await printed(brokers, "calls")) == {"release 1", "release 2", "release 3"}
