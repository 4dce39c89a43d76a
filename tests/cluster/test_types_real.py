"""JavaScript, Rune and WebAssembly on two brokers of a real cluster, which are then replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from brokers import Brokers
from charted import ROOT
from ground import WEAK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

EXAMPLES = {"javascript": "speller", "rune": "summarizer", "wasm": "last-note"}
PINGED = {"ready": {"ping": {}, "interval": "1s"}}  # it has to be on the bus to be ready
METHODS = ["speller.unknown", "summarizer.summary", "last-note.keep"]
ASK = """
import json, threading
from crucible_plugin import BusError, Plugin

plugin, said = Plugin(), {"heard": {}, "answers": {}}

def call(round, name, payload):
    try:
        answer = plugin.call(name, payload, timeout=60)
    except BusError as error:
        answer = str(error)
    said["answers"][name] = [round, answer]
    print(json.dumps(said) + "\\n", end="", flush=True)  # one write: others print too

@plugin.subscribe("*.*")
def heard(message):
    said["heard"][message.subject] = message.caller
    print(json.dumps(said) + "\\n", end="", flush=True)  # one write: others print too

@plugin.on_config
def changed(config):
    for name, payload in config["calls"].items():
        threading.Thread(target=call, args=(config["round"], name, payload), daemon=True).start()

plugin.run()
"""


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    async with Brokers(tmp_path) as place:
        await place.install()
        yield place


def example(kind: str, name: str) -> dict[str, Any]:
    """Return the spec of an example, with its files in it."""
    folder = ROOT / "plugin-images" / kind / "example-bus"
    manifests = yaml.safe_load_all((folder / "plugin.yaml").read_text())
    spec = next(dict(each["spec"]) for each in manifests if each["metadata"]["name"] == name)
    files = {path.name: path.read_text() for path in (folder / spec["source"]["path"]).iterdir()}
    small = {"cpu": "100m", "memory": "96Mi"}
    return {**spec, "source": {"inline": files}, "sandbox": WEAK, "resources": small, "health": PINGED}


async def asked(brokers: Brokers, number: int, text: str) -> dict[str, Any]:
    """Have every example called with a text; return what they answered, by method."""
    calls = {name: {"text": text} for name in METHODS}
    await brokers.change("ask", config={"round": number, "calls": calls})
    (pod,) = await brokers.running("ask")

    async def answered() -> dict[str, Any] | None:
        said = (await brokers.line(pod["metadata"]["name"]) or {}).get("answers", {})
        answers = {name: answer for name, (when, answer) in said.items() if when == number}
        return answers if set(answers) == set(METHODS) else None

    return dict(await brokers.until(answered, lambda: "not all of them answer"))


async def heard(brokers: Brokers) -> bool:
    """Whether the one that asks has heard what the others publish, and from whom."""
    (pod,) = await brokers.running("ask")
    said = await brokers.line(pod["metadata"]["name"]) or {}
    return bool(said.get("heard") == {"summaries.made": "summarizer", "notes.kept": "last-note"})


async def test_every_sdk_serves_calls_and_keeps_its_store_and_comes_to_another_broker_by_itself(
    brokers: Brokers,
) -> None:
    await brokers.apply(
        "ask",
        source={"inline": {"main.py": ASK}},
        capabilities={"bus": {"call": METHODS, "subscribe": ["*.*"]}},
        configDelivery="bus",
        health=PINGED,
    )
    for kind, name in EXAMPLES.items():
        await brokers.apply(name, **example(kind, name))
    for name in ("ask", *EXAMPLES.values()):
        await brokers.until_ready(name)
    first = "to be or knot"
    assert await asked(brokers, 1, first) == {
        "speller.unknown": ["knot"],
        "summarizer.summary": {"first": first, "sentences": 1, "total": 1},
        "last-note.keep": None,
    }
    await brokers.until(lambda: heard(brokers), lambda: "what they publish is not heard")
    before = await brokers.uids("ask", *EXAMPLES.values())
    await brokers.replace()
    assert await asked(brokers, 2, "to be") == {
        "speller.unknown": [],
        "summarizer.summary": {"first": "to be", "sentences": 1, "total": 2},
        "last-note.keep": {"text": first},
    }
    assert await brokers.uids("ask", *EXAMPLES.values()) == before
