"""Rolling updates of real plugins, and a controller that is killed in the middle of one."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from plane import PLUGINS, Plane, manifest, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)

PROGRAM = "import time\nwhile True:\n    print('serving %s', flush=True)\n    time.sleep(0.05)\n"
ROLLING = {"strategy": "rolling", "verify": "500ms"}


def status_of(crucible: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(crucible("get", "demo", "-o", "json").out)["status"]
    return found


def test_apply_waits_until_the_new_revision_has_taken_over(crucible: Any, manifest: Any) -> None:
    assert crucible("apply", "-f", manifest(PROGRAM % "one", update=ROLLING), "--wait").code == 0
    ended = crucible("apply", "-f", manifest(PROGRAM % "two", update=ROLLING), "--wait")
    assert ended.out.splitlines()[-1] == "plugin.crucible.dev/demo ready"
    status = status_of(crucible)
    (replica,) = status["instances"]
    assert (replica["name"], replica.get("incumbent", "")) == ("demo-0-2", "")
    assert (status["readyReplicas"], status["replicas"], status["restarts"]) == (1, 1, 0)


def test_a_revision_that_fails_is_given_up_and_the_one_before_still_serves(
    crucible: Any, manifest: Any
) -> None:
    hasty = {"maxRestarts": 1, "backoff": {"initial": "10ms"}}

    def apply(program: str) -> Any:
        return crucible("apply", "-f", manifest(program, update=ROLLING, recovery=hasty), "--wait")

    assert apply(PROGRAM % "one").code == 0
    ended = apply("raise SystemExit(3)")
    assert ended.code == 1
    assert "demo-0-1 of the revision before keeps serving" in ended.err
    assert crucible("get", "demo").out.splitlines()[1].split()[3:5] == ["Quarantined", "1/1"]
    assert crucible("logs", "demo", "--instance", "demo-0-1", "--tail", "1").out == "serving one\n"
    assert apply(PROGRAM % "one").code == 0
    assert status_of(crucible)["instances"][0]["name"] == "demo-0-1"


def test_as_many_are_replaced_at_once_as_the_manifest_says(crucible: Any, manifest: Any) -> None:
    limits = {**ROLLING, "maxSurge": 0, "maxUnavailable": "70%"}
    assert crucible("apply", "-f", manifest(PROGRAM % "one", update=limits, replicas=3), "--wait").code == 0
    assert crucible("apply", "-f", manifest(PROGRAM % "two", update=limits, replicas=3), "--wait").code == 0
    status = status_of(crucible)
    begun = sorted(replica["startedAt"] for replica in status["instances"])
    stopped = {replica["lastExit"]["reason"] for replica in status["instances"]}
    assert (status["replicas"], status["restarts"], stopped) == (3, 0, {"Stopped"})
    first, second, third = map(datetime.fromisoformat, begun)
    assert second < third - timedelta(milliseconds=500), (
        "the third waits until both of the others are verified"
    )
    assert first < third - timedelta(milliseconds=500)


async def test_a_successor_finishes_the_update_of_a_controller_that_was_killed(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "state")
    plane.start()
    await plane.ready()
    slow = {"strategy": "rolling", "verify": "3s"}
    path = f"{PLUGINS}/demo"
    try:
        async with plane.client() as client:
            await client.apply(path, manifest("demo", PROGRAM % "one", update=slow, replicas=2), "test")

            async def so(**wanted: object) -> bool:
                status = (await client.get(path)).get("status") or {}
                return all(status.get(name) == value for name, value in wanted.items())

            await until(lambda: so(phase="Running", readyReplicas=2))
            await client.apply(path, manifest("demo", PROGRAM % "two", update=slow, replicas=2), "test")
            await until(lambda: so(phase="Updating", replicas=3))
            plane.end(signal.SIGKILL)
            assert sum(plane.sandboxes().values()) == 3
        plane.start()
        await plane.ready()
        async with plane.client() as client:
            fewest = 2

            async def over() -> bool:
                nonlocal fewest
                status = (await client.get(path))["status"]
                fewest = min(fewest, status["readyReplicas"])
                assert status["replicas"] <= 4, "two that serve, one that comes, one that goes"
                return bool(status["phase"] == "Running")

            await until(over)
            assert fewest == 2
            status = (await client.get(path))["status"]
            assert sorted(replica["attempt"] for replica in status["instances"]) == [3, 4]
            await client.delete(path)
            await until(lambda: not plane.leftovers(), why=plane.leftovers)
    finally:
        plane.end()
