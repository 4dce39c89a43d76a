"""A container that listens, updated by handover under load: no connection is refused, no answer is lost."""

from __future__ import annotations

import subprocess
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from crucible.manager import PluginManager
from crucible.settings import Places
from crucible.teardown import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine import Engine

# Answers each in a thread of its own, after the time that it is asked to take.
SERVES = """\
import socket, threading, time
def answer(link):
    with link:
        time.sleep(float(link.recv(99)))
        link.sendall(b"%s")
with socket.create_server(("", 8080), backlog=128) as server:
    while True: threading.Thread(target=answer, args=(server.accept()[0],)).start()
"""
# Asks without a pause, some shortly and one for long, until its stdin ends.
ASKS = """\
import os, socket, sys, threading
def ask(name, seconds):
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60) as link:
                link.sendall(seconds)
                answer = link.recv(99).decode() or "nothing"
        except OSError as error: answer = repr(error)
        os.write(1, f"{name} {answer}\\n".encode())
for name, seconds in (("a", b"0.01"), ("b", b"0.01"), ("c", b"0.01"), ("long", b"2")):
    threading.Thread(target=ask, args=(name, seconds), daemon=True).start()
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a state folder; end what was made from it."""
    if engine._process is None:
        pytest.skip("looks into the engine's network: unset DOCKER_HOST for a private engine")
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    yield tmp_path / "state"
    end_all(Places(tmp_path / "state"), 5.0, print)


def served(word: str) -> dict[str, Any]:
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "served"},
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": SERVES % word}},
            "entrypoint": ["main.py"],
            "capabilities": {"network": {"listen": [8080]}},
            "health": {"ready": {"tcp": {"port": 8080}, "interval": "200ms"}},
            "update": {"strategy": "handover", "verify": "1s"},
            "lifecycle": {"drain": "4s"},
        },
    }


async def test_everyone_is_answered_by_the_old_one_and_then_by_the_new_one(
    state: Path, engine: Engine
) -> None:
    async with PluginManager(state=state, runtime="docker") as manager:
        await manager.apply(served("one"))
        first = await manager.wait("served", seconds=120)
        (endpoint,) = first.object["status"]["endpoints"]
        words = engine.inside("python3", "-c", ASKS, endpoint.rpartition(":")[2])
        asking = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert asking.stdin is not None
        assert asking.stdout is not None
        heard: dict[str, list[str]] = {"a": [], "b": [], "c": [], "long": []}
        try:
            listen(asking, heard, "one")
            await manager.apply(served("two"))
            await manager.wait(
                "served", lambda one: one.ready and one.instances == ("served-0-2",), seconds=120
            )
            listen(asking, heard, "two")
        finally:
            asking.kill()
            asking.wait()
            asking.stdin.close()
            asking.stdout.close()
        for answers in heard.values():
            assert [word for word, _ in groupby(answers)] == ["one", "two"], answers
        await manager.delete("served")


def listen(asking: subprocess.Popen[str], heard: dict[str, list[str]], word: str) -> None:
    """Take what is said until everyone who asks heard a word."""
    assert asking.stdout is not None
    while any(word not in answers for answers in heard.values()):
        name, _, answer = asking.stdout.readline().strip().partition(" ")
        heard[name].append(answer)
