"""A plugin's whole life, from the command line, on a real control plane."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOR_EVER = "import time\nprint('here', flush=True)\nwhile True: time.sleep(1)\n"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "plugin-images" / "python" / "example", tmp_path / "example"))


def test_from_apply_to_delete(crucible: Any, example: Path, eventually: Any) -> None:
    applied = crucible("apply", "-f", str(example), "--wait")
    assert applied.out == "plugin.crucible.dev/word-count created\nplugin.crucible.dev/word-count ready\n"
    assert crucible("apply", "-f", str(example)).out == "plugin.crucible.dev/word-count unchanged\n"
    assert crucible("get").out.splitlines()[1].split()[:7] == [
        *("word-count", "python", "1.0.0", "Running", "1/1", "0", "Running"),
    ]  # fmt: skip
    eventually(lambda: "turn 1: 65 words" in crucible("logs", "word-count").out, lambda: "no output")
    told = crucible("describe", "word-count").out
    for part in ("memory 48Mi", "word-count-0-1", "rootFilesystem  enforced", "Started"):
        assert part in told
    assert "Started" in crucible("events", "word-count").out
    assert crucible("delete", "word-count").out == "plugin.crucible.dev/word-count deleted\n"
    assert crucible("get", "word-count").code == 3


def test_changed_files_make_a_new_revision(crucible: Any, example: Path) -> None:
    crucible("apply", "-f", str(example), "--wait")
    before = json.loads(crucible("get", "word-count", "-o", "json").out)["status"]
    (example / "src" / "notes" / "new.txt").write_text("three more words\n")
    again = crucible("apply", "-f", str(example), "--wait")
    assert again.out.splitlines() == [
        "plugin.crucible.dev/word-count configured",
        "plugin.crucible.dev/word-count ready",
    ]
    after = json.loads(crucible("get", "word-count", "-o", "json").out)["status"]
    assert before["revision"] != after["revision"]
    assert after["instances"][0]["attempt"] == 2
    assert after["restarts"] == 0


def test_restart_replaces_the_instance_and_waits_for_the_next(crucible: Any, manifest: Any) -> None:
    crucible("apply", "-f", manifest(FOR_EVER), "--wait")
    ended = crucible("restart", "demo", "--wait")
    assert ended.out.splitlines()[-1] == "plugin.crucible.dev/demo ready"
    status = json.loads(crucible("get", "demo", "-o", "json").out)["status"]
    assert status["instances"][0]["name"] == "demo-0-2"
    assert crucible("logs", "demo", "--previous").out == "here\n"


def test_a_plugin_that_cannot_stay_up_is_said_to_be_so(crucible: Any, manifest: Any) -> None:
    path = manifest("raise SystemExit(3)", recovery={"maxRestarts": 1, "backoff": {"initial": "10ms"}})
    ended = crucible("apply", "-f", path, "--wait")
    assert ended.code == 1
    assert "demo will not come up: replica 0 ended 2 times" in ended.err
    assert "exited with status 3" in ended.err
    assert crucible("get").out.splitlines()[1].split()[3] == "Quarantined"


def test_one_that_is_recreated_finds_nothing_of_what_was_before(crucible: Any, manifest: Any) -> None:
    leave = "from pathlib import Path\nmark = Path('/tmp/mark')\nprint(mark.exists())\nmark.touch()\nexit(1)"
    path = manifest(leave, recovery={"strategy": ["restart", "recreate", "quarantine"], "maxRestarts": 1})
    assert crucible("apply", "-f", path, "--wait").code == 1
    told = crucible("events", "demo").out
    assert "replica 0 ended 2 times: all that was made for it was deleted, and demo-0-3 started" in told
    assert crucible("get").out.splitlines()[1].split()[3] == "Quarantined"
    assert crucible("logs", "demo").out == "False\n"
    assert crucible("logs", "demo", "--previous").code != 0


def test_a_new_configuration_reaches_what_runs_without_a_restart(crucible: Any, eventually: Any) -> None:
    text = (ROOT / "docs/examples/reload.yaml").read_text()

    def apply(greeting: str) -> dict[str, Any]:
        changed = text.replace("greeting: hello", f"greeting: {greeting}")
        assert crucible("apply", "-f", "-", "--wait", stdin=changed).code == 0
        expected = f"{greeting}\n"
        eventually(lambda: crucible("logs", "reload", "--tail", "1").out == expected, lambda: "not printed")
        found: dict[str, Any] = json.loads(crucible("get", "reload", "-o", "json").out)["status"]
        return found

    first, second = apply("hello"), apply("goodbye")
    assert crucible("logs", "reload").out == "hello\ngoodbye\n"
    for name in ("name", "pid", "startedAt"):
        assert first["instances"][0][name] == second["instances"][0][name]
    assert (second["revision"], second["restarts"]) == (first["revision"], 0)
    assert "was given its new configuration, and SIGHUP" in crucible("events", "reload").out


def test_a_frozen_plugin_is_still_is_not_probed_and_goes_on(
    crucible: Any, manifest: Any, eventually: Any
) -> None:
    counting = (
        "import itertools, time\nfor n in itertools.count():\n  print(n, flush=True)\n  time.sleep(0.01)\n"
    )
    answers = "import os, sys; sys.exit('tmp' not in os.listdir('/'))"
    probe = {
        "exec": {"command": [f"python3.{sys.version_info.minor}", "-c", answers]},
        "interval": "100ms",
        "timeout": "60s",
    }
    path = manifest(counting, health={"live": {**probe, "failures": 1}})
    assert crucible("apply", "-f", path, "--wait").code == 0
    before = json.loads(crucible("get", "demo", "-o", "json").out)["status"]
    assert crucible("freeze", "demo").out.splitlines()[-1] == "plugin.crucible.dev/demo frozen"
    assert crucible("get").out.splitlines()[1].split()[3:5] == ["Frozen", "0/1"]
    last = crucible("logs", "demo", "--tail", "1").out
    assert "frozen" in crucible("exec", "demo", "--", "true").err
    assert crucible("logs", "demo", "--tail", "1").out == last
    waits = crucible("scale", "demo", "--replicas", "1", "--wait")
    assert (waits.code, waits.err.split("run")[-1]) == (1, " 'crucible thaw demo' to have that done\n"), waits
    assert crucible("thaw", "demo", "--wait").out.splitlines()[-1] == "plugin.crucible.dev/demo ready"
    eventually(lambda: crucible("logs", "demo", "--tail", "1").out != last, lambda: "it does not go on")
    after = json.loads(crucible("get", "demo", "-o", "json").out)["status"]
    assert after["instances"][0]["pid"] == before["instances"][0]["pid"]
    assert (after["restarts"], after["instances"][0].get("crashes", [])) == (0, [])
    assert crucible("suspend", "demo", "--wait").code == 0
    refused = crucible("freeze", "demo")
    assert (refused.code, refused.err) == (1, "error: demo is suspended: nothing of it runs\n")
    assert not json.loads(crucible("get", "demo", "-o", "json").out)["metadata"].get("annotations")


def test_standard_input_and_exported_objects_can_be_applied(crucible: Any, manifest: Any) -> None:
    text = Path(manifest(FOR_EVER)).read_text()
    assert crucible("apply", "-f", "-", "--wait", stdin=text).code == 0
    exported = crucible("get", "-o", "yaml").out
    again = crucible("apply", "-f", "-", "--wait", stdin=exported)
    assert (again.code, again.out.splitlines()[-1]) == (0, "plugin.crucible.dev/demo ready")
    status = json.loads(crucible("get", "demo", "-o", "json").out)["status"]
    assert status["instances"][0]["attempt"] == 1


def test_namespaces_secrets_and_plugins_come_in_one_file(crucible: Any, manifest: Any) -> None:
    plugin = Path(manifest(FOR_EVER)).read_text().replace("name: demo", "name: demo\n  namespace: team")
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: api, namespace: team}\nstringData: {key: value}\n"
    )
    space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"
    whole = f"{plugin}---\n{secret}---\n{space}"
    applied = crucible("apply", "-f", "-", stdin=whole)
    assert [line.split()[0] for line in applied.out.splitlines()] == [
        "namespace/team", "secret/api", "plugin.crucible.dev/demo",
    ]  # fmt: skip
    assert "team" in crucible("get", "-A").out
    deleted = crucible("delete", "-f", "-", stdin=whole)
    assert deleted.code == 0, deleted.err
    assert len(deleted.out.splitlines()) == 3
