"""What only the process runtime promises about the inside of a sandbox; the suite tries the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, ProcessHarness, facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness import ProcessHarness

LOOKS = """\
import json, os
def read(path):
    try: return open(path, "rb").read(4096).decode(errors="replace")
    except OSError as error: return error.errno
told = json.load(open(os.environ["CRUCIBLE_CONFIG"]))
print(json.dumps({
    "files": {name: read(path) for name, path in told.items()},
    "environment": dict(os.environ),
    "root": sorted(os.listdir("/")),
    "run": sorted(os.listdir("/run")),
    "programs": sorted(os.listdir("/usr/bin")),
    "devices": sorted(os.listdir("/dev")),
    "shell": os.system("true") >> 8,
    "descriptors": [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)],
    "init": read("/proc/1/environ"),
}))
"""
SECRET = "a secret of another plugin's"
REFUSED = {1, 2, 13}


@pytest.fixture
async def found(process: ProcessHarness) -> Mapping[str, Any]:
    """What a plugin sees beside another, whose files and environment it is told where to find."""
    other = process.script("import signal; signal.pause()", "other", env=(("OTHER_SECRET", SECRET),))
    await process.runtime.start(other, FIRST)
    running = await process.until(other, lambda one: one.pid is not None)
    places = {
        "checkout": __file__,
        "other's record": str(process.state / "instances/uid-other/0-1/record.json"),
        "other's environment": f"/proc/{running.pid}/environ",
        "own record": str(process.state / "instances/uid-looks/0-1/record.json"),
        "own report": str(process.state / "instances/uid-looks/0-1/status.json"),
    }
    looks = process.script(LOOKS, "looks", config=json.dumps(places), env=(("MODE", "fast"),))
    ended = await process.run(looks)
    (line,) = await process.lines(looks)
    assert ended.exit is not None
    assert ended.exit.code == 0, line
    return dict(json.loads(line))


async def test_another_plugin_and_the_controllers_records_are_out_of_reach(found: Mapping[str, Any]) -> None:
    assert set(found["files"].values()) <= REFUSED, found["files"]
    assert SECRET not in json.dumps(found)


async def test_the_root_holds_what_the_type_needs_and_no_more(found: Mapping[str, Any]) -> None:
    places = {"config", "data", "dev", "etc", "plugin", "proc", "run", "secrets", "tmp", "usr"}
    assert set(found["root"]) == {*places, *_libraries()}
    assert found["run"] == ["crucible"]
    assert [name for name in found["programs"] if not name.startswith("python3")] == []
    assert found["shell"] == 127
    assert found["devices"] == sorted(
        ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
    )


async def test_nothing_is_handed_down_but_what_is_promised(found: Mapping[str, Any]) -> None:
    assert found["descriptors"][0] == "/dev/null"
    names = {entry.partition("=")[0] for entry in found["init"].split("\0") if entry}
    assert names <= {"LD_LIBRARY_PATH"}  # where bubblewrap's own libraries are; nothing of the controller's
    assert found["environment"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PWD": "/plugin",
        "CRUCIBLE_PLUGIN": "looks",
        "CRUCIBLE_NAMESPACE": "default",
        "CRUCIBLE_INSTANCE": "looks-0-1",
        "CRUCIBLE_CONFIG": "/config/config.json",
        "CRUCIBLE_SOURCE": "/plugin",
        "MODE": "fast",
    }


async def test_each_instance_has_a_user_of_its_own(process: ProcessHarness) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give uids away: run the tests as root for this one")
    uids = set()
    for number in range(3):
        workload = process.workload("stay", name=f"p{number}")
        await process.runtime.start(workload, FIRST)
        running = await process.until(workload, lambda one: one.pid is not None)
        uid, status = facts(running.pid)
        assert status["Groups"] == ""
        uids.add(uid)
    assert len(uids) == 3
    assert all(uid >= 1_900_000_000 for uid in uids)


@pytest.fixture
def private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)


@pytest.mark.usefixtures("private")
async def test_a_source_and_a_root_below_private_directories_can_be_run(process: ProcessHarness) -> None:
    ended = await process.run(process.workload("exit:0"))
    assert ended.exit is not None
    assert ended.exit.code == 0


def _libraries() -> set[str]:
    root = Path("/")
    return {name for name in ("lib", "lib64") if (root / name).exists()}
