"""``crucible down`` ends all that runs, and only that; and what a reboot leaves comes back by itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from plane import PLUGINS, Plane, manifest, until

from crucible.runtimes.process import proc

if TYPE_CHECKING:
    from pathlib import Path


def down(plane: Plane, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "crucible", "down", "--state", str(plane.places.root), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=180)


def companions(plane: Plane) -> list[int]:
    mark = f"crucible-companion:{plane.mark()}/".encode()
    return [pid for pid in proc.all_pids() if any(word.startswith(mark) for word in proc.arguments(pid))]


async def statuses(plane: Plane) -> dict[str, Any]:
    async with plane.client() as client:
        items = (await client.get(PLUGINS))["items"]
    return {item["metadata"]["name"]: item.get("status") or {} for item in items}


async def all_run(plane: Plane, count: int) -> bool:
    found = await statuses(plane)
    return len(found) == count and all(status.get("phase") == "Running" for status in found.values())


async def attempts(plane: Plane, wanted: dict[str, int]) -> bool:
    return {name: status.get("attempts") for name, status in (await statuses(plane)).items()} == wanted


async def test_down_ends_every_instance_and_the_next_up_starts_them_again(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "state")
    plane.start()
    try:
        await plane.ready()
        async with plane.client() as client:
            bus = {"bus": {"publish": ["notes.*"]}}
            await client.create(PLUGINS, manifest("a", stopGrace="1s"))
            await client.create(PLUGINS, manifest("b", stopGrace="1s", capabilities=bus))
        await until(lambda: all_run(plane, 2), why=plane.log)
        before = await statuses(plane)
        assert companions(plane) != []
        ended = down(plane)
        assert (ended.returncode, ended.stdout) == (0, "2 instances ended\n"), ended.stderr
        assert plane.process is not None
        assert plane.process.wait(60) == 0
        assert plane.leftovers() == []
        assert companions(plane) == []
        again = down(plane)
        assert (again.returncode, again.stdout) == (0, "0 instances ended\n"), again.stderr
        plane.start()
        await plane.ready()
        once_more = {name: status["attempts"] + 1 for name, status in before.items()}
        await until(lambda: attempts(plane, once_more), why=plane.log)
        await until(lambda: all_run(plane, 2), why=plane.log)
        assert all(status["restarts"] == 0 for status in (await statuses(plane)).values())
        purged = down(plane, "--purge", "--yes")
        assert purged.returncode == 0, purged.stderr
        assert not plane.places.root.exists()
    finally:
        plane.end(signal.SIGKILL)


async def test_after_a_reboot_the_same_plugins_run_once(tmp_path: Path) -> None:
    """As a reboot leaves it: every process and cgroup is gone, records of another boot stay."""
    plane = Plane(tmp_path / "state")
    plane.start()
    try:
        await plane.ready()
        async with plane.client() as client:
            uid = (await client.create(PLUGINS, manifest("a")))["metadata"]["uid"]
            rested = (await client.create(PLUGINS, manifest("b", suspend=True)))["metadata"]["uid"]
        await until(lambda: plane.sandboxes() == {f"{uid}/0": 1}, why=plane.log)
        await until(lambda: says(plane, "a", "Running"), why=plane.log)
        plane.end(signal.SIGKILL)
        folder = plane.places.process / "instances" / uid / "0-1"
        record = json.loads((folder / "record.json").read_text())
        monitor = proc.hold(record["monitor"]["pid"])
        assert monitor is not None
        proc.tell(monitor, signal.SIGKILL)
        await until(lambda: not plane.sandboxes())
        for group in record["cgroups"]:
            subprocess.run(["rmdir", group], check=False, stderr=subprocess.DEVNULL)
        record["monitor"]["boot"] = "00000000-0000-0000-0000-000000000000"
        (folder / "record.json").write_text(json.dumps(record))
        plane.start()
        await plane.ready()
        await until(lambda: plane.sandboxes() == {f"{uid}/0": 1}, why=plane.log)
        await until(lambda: says(plane, "a", "Running"), why=plane.log)
        status = (await statuses(plane))["a"]
        assert status["instances"][0]["lastExit"]["reason"] == "Lost"
        assert "restarted" in status["instances"][0]["lastExit"]["message"]
        assert f"{rested}/0" not in plane.sandboxes()
        assert down(plane, "--grace", "1s").returncode == 0
        assert plane.leftovers() == []
    finally:
        plane.end(signal.SIGKILL)


async def says(plane: Plane, name: str, phase: str) -> bool:
    return (await statuses(plane))[name].get("phase") == phase


def test_what_is_no_state_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    ended = down(Plane(tmp_path), "--purge", "--yes")
    assert ended.returncode == 4
    assert "is no state folder" in ended.stderr
    assert (tmp_path / "kept").exists()
    assert down(Plane(tmp_path / "none")).returncode == 3
