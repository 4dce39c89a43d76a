"""The freezer of cgroup version 2, as this kernel has it; every hierarchy of version 2 does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crucible.runtimes.process.cgroups import base as groups
from crucible.runtimes.process.cgroups.choice import parse_mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 60.0


@pytest.fixture
def group() -> Iterator[Path]:
    """A group of this test's own."""
    unified = parse_mounts(Path("/proc/self/mountinfo").read_text().splitlines()).unified
    if unified is None or os.geteuid() != 0:
        pytest.skip("no cgroup of version 2 that root could make a group in")
    made = unified / f"crucible-test-freezer-{os.getpid()}"
    made.mkdir()
    yield made
    until(lambda: not groups.pids((made,)))
    made.rmdir()


@pytest.fixture
def counting(group: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the group that goes on and on."""
    program = "import sys\nwhile True: sys.stdout.write('x'); sys.stdout.flush()"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    (group / "cgroup.procs").write_text(str(process.pid))
    yield process
    process.kill()
    groups.thaw((group,))
    process.wait(SECONDS)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def spent(pid: int) -> int:
    """Return the processor time a process has had, in ticks."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def test_what_is_held_still_gets_no_processor_time_and_goes_on_after(
    group: Path, counting: subprocess.Popen[bytes]
) -> None:
    until(lambda: spent(counting.pid) > 0)
    until(lambda: groups.freeze((group,)))
    assert groups.frozen((group,))
    before, mine = spent(counting.pid), time.process_time()
    while time.process_time() < mine + 0.05:  # others get some
        continue
    assert spent(counting.pid) == before
    groups.thaw((group,))
    until(lambda: not groups.frozen((group,)))
    until(lambda: spent(counting.pid) > before)


def test_what_is_held_still_can_be_killed(group: Path, counting: subprocess.Popen[bytes]) -> None:
    until(lambda: groups.freeze((group,)))
    groups.kill((group,))
    assert counting.wait(SECONDS) == -9
