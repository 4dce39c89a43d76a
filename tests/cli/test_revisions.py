"""Revisions on a real control plane with real instances: kept, taken back, gone back to."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

FOR_EVER = "import time\nwhile True: time.sleep(1)\n"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)


def status(crucible: Any, name: str) -> Any:
    return json.loads(crucible("get", name, "-o", "json").out).get("status") or {}


def written(place: Path, program: str, name: str, **spec: Any) -> str:
    file = place / f"{name}.yaml"
    manifest = {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": name},
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": program}},
            "entrypoint": ["main.py"],
            "resources": {"memory": "32Mi"},
            **spec,
        },
    }
    file.write_text(yaml.safe_dump(manifest))
    return str(file)


def test_a_bad_update_is_taken_back_and_the_good_instance_never_stops(
    crucible: Any, tmp_path: Path, eventually: Any
) -> None:
    update = {"strategy": "rolling", "verify": "200ms", "rollbackOnFailure": True}
    crucible("apply", "-f", written(tmp_path, FOR_EVER, "kept", update=update), "--wait")
    eventually(lambda: status(crucible, "kept")["history"][0].get("good"), lambda: status(crucible, "kept"))
    before = status(crucible, "kept")["instances"][0]
    crucible(
        "apply", "-f", written(tmp_path, "import sys; sys.exit(3)", "kept", update=update, version="2.0.0")
    )
    eventually(lambda: "rollback" in status(crucible, "kept"), lambda: status(crucible, "kept"))
    eventually(lambda: status(crucible, "kept")["phase"] == "Running", lambda: status(crucible, "kept"))
    after = status(crucible, "kept")
    assert after["instances"][0]["pid"] == before["pid"]
    assert after["readyReplicas"] == 1
    (stalled,) = (each for each in after["conditions"] if each["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "RolledBack")
    lines = crucible("history", "kept").out.splitlines()
    assert lines[1].split()[-1] == "runs"
    assert lines[2].split()[-1] == "wanted"
    crucible("delete", "kept")


def test_a_person_goes_back_and_forth_again(crucible: Any, tmp_path: Path) -> None:
    for version, program in (("1.0.0", FOR_EVER), ("2.0.0", f"# other\n{FOR_EVER}")):
        crucible(
            "apply", "-f", written(tmp_path, program, "forth", version=version, stopGrace="1s"), "--wait"
        )
    first, second = (each["revision"] for each in status(crucible, "forth")["history"])
    assert crucible("rollback", "forth", "--wait").out.splitlines()[-1] == "plugin.crucible.dev/forth ready"
    assert status(crucible, "forth")["revision"] == first
    crucible("restart", "forth", "--wait")
    assert status(crucible, "forth")["revision"] not in {first, second}
    assert "rollback" not in status(crucible, "forth")
    crucible("delete", "forth")


def test_a_rollback_that_follows_a_restart_is_done_once_what_is_frozen_goes_on(
    crucible: Any, tmp_path: Path, eventually: Any
) -> None:
    crucible("apply", "-f", written(tmp_path, FOR_EVER, "cold", stopGrace="1s"), "--wait")
    eventually(lambda: status(crucible, "cold")["history"][0].get("good"), lambda: status(crucible, "cold"))
    (first,) = status(crucible, "cold")["history"]
    crucible("freeze", "cold")
    crucible("restart", "cold")
    said = crucible("rollback", "cold").out
    assert "rolled back to revision 1, once the controller has looked at the manifest" in said
    assert status(crucible, "cold")["phase"] == "Frozen"
    crucible("thaw", "cold")
    eventually(
        lambda: (status(crucible, "cold").get("rollback") or {}).get("revision") == first["revision"],
        lambda: status(crucible, "cold"),
    )
    assert status(crucible, "cold")["revision"] == first["revision"]
    crucible("delete", "cold")
