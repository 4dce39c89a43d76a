"""``crucible learn`` watches a plugin that runs, grants it nothing, and proposes what covers it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

HOLDS = """\
import threading, time
kept = bytearray(24 << 20)
open("/tmp/scratch", "wb").write(bytes(3 << 20))
for _ in range(3): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("holding", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="usage is counted in cgroups: run the tests as root")
def test_a_proposal_covers_what_was_used_and_changes_nothing(
    crucible: Any, manifest: Any, eventually: Any
) -> None:
    resources = {"cpu": "1", "memory": "256Mi", "pids": 64, "disk": "8Mi"}
    path = manifest(HOLDS, "holds", resources=resources)
    assert crucible("apply", "-f", path, "--wait").code == 0
    eventually(lambda: "holding" in crucible("logs", "holds").out, lambda: crucible("describe", "holds").out)
    before = json.loads(crucible("get", "holds", "-o", "json").out)["spec"]
    learnt = crucible("learn", "holds", "--for", "3s", "-o", "json")
    assert learnt.code == 0, learnt.err
    found = json.loads(learnt.out)
    proposed = found["proposed"]["resources"]
    assert found["seen"]["memory"] > 24 << 20
    assert proposed["memory"] in {f"{size}Mi" for size in range(36, 128, 4)}
    assert found["seen"]["pids"] == 4
    assert found["seen"]["disk"] >= 3 << 20
    assert (proposed["pids"], proposed["disk"]) in {(8, "6Mi"), (8, "7Mi")}
    assert json.loads(crucible("get", "holds", "-o", "json").out)["spec"] == before
    text = crucible("learn", "holds", "--for", "1s").out
    assert "-    memory: 256Mi" in text
    assert "+    pids: 8" in text


def test_what_does_not_run_or_is_not_there_is_said(crucible: Any, manifest: Any) -> None:
    assert crucible("learn", "nobody", "--for", "1s").code == 3
    assert crucible("learn", "nobody", "--for", "soon").code == 2
    assert crucible("apply", "-f", manifest("", "idle", suspend=True)).code == 0
    ended = crucible("learn", "idle", "--for", "1s")
    assert ended.code == 1
    assert "crucible describe idle" in ended.err
