"""The same tests again, as an ordinary user: with cgroups delegated to that user, and with none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = 54_321
SECONDS = 1200
OTHERS = "not fake and not docker"
LIMITED = (
    *("test_conformance.py", "test_conformance_commands.py", "test_breakout.py"),
    *("test_process_breakout.py", "test_process_contained.py", "test_process_commands.py"),
)
"""What cgroups have a part in."""
OTHER = (
    "test_conformance_doors.py",
    "test_secrets.py",
    "test_volumes.py",
    "../companions/test_companions.py",
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory the user can walk to, which pytest's own is not."""
    found = Path(f"/tmp/crucible-as-user-{os.getpid()}")
    found.mkdir()
    os.chown(found, USER, USER)
    yield found
    shutil.rmtree(found)


@pytest.fixture
def delegated() -> Iterator[str]:
    """A cgroup v1 subtree that belongs to the user."""
    name = f"crucible-test-user-{os.getpid()}"
    made = []
    for controller in ("cpu", "memory", "pids", "freezer"):
        directory = Path("/sys/fs/cgroup", controller, name)
        if not (directory.parent / "tasks").exists():
            pytest.skip("no cgroup v1 here; on v2 delegate a scope to the tests: systemd-run -p Delegate=yes")
        directory.mkdir()
        made.append(directory)
        for path in (directory, *directory.iterdir()):
            os.chown(path, USER, USER)
    yield name
    for directory in made:
        directory.rmdir()


def run_as_user(place: Path, cgroup_parent: str | None, *names: str) -> str:
    here = Path(__file__).parent
    if not all(path.stat().st_mode & 0o001 for path in here.parents):
        reason = f"{here} is closed to other users: chmod o+x it and what is above to run these tests"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | {
        "HOME": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CRUCIBLE_CACHE": str(place / "cache"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "hypothesis"),
    }
    env.pop("CRUCIBLE_TEST_CGROUP_PARENT", None)
    if cgroup_parent is not None:
        env["CRUCIBLE_TEST_CGROUP_PARENT"] = cgroup_parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", OTHERS),
            *(f"--basetemp={place}/tmp", *(str(here / name) for name in names)),
        ],
        cwd=here.parents[1],
        env=env,
        user=USER,
        group=USER,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run the tests as root")
def test_without_cgroups(place: Path) -> None:
    said = run_as_user(place, None, *LIMITED, *OTHER)
    assert "memory is held per process" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run the tests as root")
def test_with_delegated_cgroups(place: Path, delegated: str) -> None:
    said = run_as_user(place, delegated, *LIMITED)
    assert "cannot be held" not in said
