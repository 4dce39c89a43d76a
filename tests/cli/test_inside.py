"""Looking into running plugins: commands, output by time, usage; by ``crucible`` and by kubectl."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.settings import Places

PYTHON = "python3"
DEADLINE = 180.0
SPEAKS = """\
import time
print("first", flush=True)
time.sleep(2.2)
print("second", flush=True)
while True: time.sleep(1)
"""
BUSY = "kept = b'x' * (20 << 20)\nprint('busy', flush=True)\nwhile True: pass"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)


@pytest.fixture
def kubectl_path() -> str:
    found = shutil.which("kubectl", path=f"{Path(__file__).parents[2] / '.tools/bin'}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("there is no kubectl here")
    return found


@pytest.fixture
def kubectl(kubectl_path: str, places: Places) -> Any:
    def call(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [kubectl_path, "--kubeconfig", str(places.kubeconfig), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    return call


@pytest.fixture
def speaker(crucible: Any, manifest: Any, eventually: Any) -> str:
    """A plugin that says something, and something else a while later."""
    assert crucible("apply", "-f", manifest(SPEAKS), "--wait").code == 0
    eventually(lambda: "second" in crucible("logs", "demo").out, lambda: crucible("logs", "demo").out)
    return "demo-0-1"


def test_a_command_runs_beside_the_plugin(crucible: Any, speaker: str) -> None:
    ran = crucible("exec", "demo", "--", PYTHON, "-c", "import os; print(os.getcwd(), os.environ['HOME'])")
    assert (ran.code, ran.out, ran.err) == (0, "/plugin /tmp\n", "")
    failed = crucible("exec", "demo", "--", PYTHON, "-c", "import sys; sys.exit('no')")
    assert (failed.code, failed.out, failed.err) == (1, "", "no\n")
    typed = crucible("exec", "demo", "-i", "--", PYTHON, "-", "word", stdin="import sys; print(sys.argv[1])")
    assert (typed.code, typed.out) == (0, "word\n")
    missing = crucible("exec", "demo", "--instance", speaker, "--", "sh", "-c", "true")
    assert (missing.code, missing.err) == (127, "sh: not found\n")
    large = crucible("exec", "demo", "--", PYTHON, "-c", "print('x' * 1_000_000)")
    assert len(large.out) == 1_000_001


def test_a_command_needs_something_to_run_in(crucible: Any, manifest: Any, eventually: Any) -> None:
    assert crucible("exec", "none", "--", "true").code == 3
    crucible("apply", "-f", manifest("raise SystemExit(0)", recovery={"maxRestarts": 0}))
    eventually(
        lambda: crucible("exec", "demo", "--", "true").code == 1,
        lambda: crucible("exec", "demo", "--", "true"),
    )
    refused = crucible("exec", "demo", "--", "true")
    assert "has ended" in refused.err
    assert crucible("exec", "demo", "--instance", "demo-0-9", "--", "true").code == 3
    assert crucible("exec", "demo", "-t", "--", "true").code == 2


def test_a_terminal_reaches_through_to_the_command(
    speaker: str, command: list[str], environment: dict[str, str]
) -> None:
    assert speaker
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    # Its size comes a moment after the start, as a message of its own.
    script = (
        "import os\nwhile os.get_terminal_size().lines != 31: pass\n"
        "print(os.get_terminal_size()); print('got', input())"
    )
    process = subprocess.Popen(
        [*command, "exec", "demo", "-it", "--", PYTHON, "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    said = read_until(ours, lambda said: b"lines=31" in said)
    assert b"columns=97, lines=31" in said
    os.write(ours, b"typed\r")
    read_until(ours, lambda said: b"got typed" in said)
    assert process.wait(DEADLINE) == 0
    os.close(ours)


def read_until(descriptor: int, enough: Callable[[bytes], bool]) -> bytes:
    said, deadline = b"", time.monotonic() + DEADLINE
    while not enough(said):
        ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
        assert ready, said
        try:
            said += os.read(descriptor, 4096)
        except OSError:
            pytest.fail(f"it ended: {said!r}")
    return said


def test_kubectl_runs_commands(kubectl: Any, speaker: str) -> None:
    ran = kubectl(
        "exec", speaker, "--", PYTHON, "-c", "print('out'); import sys; print('err', file=sys.stderr)"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "out\n", "err\n")
    assert kubectl("exec", speaker, "--", PYTHON, "-c", "raise SystemExit(7)").returncode == 7
    script = "import sys; print(sys.stdin.read().upper())"
    assert kubectl("exec", "-i", speaker, "--", PYTHON, "-c", script, stdin="typed").stdout == "TYPED\n"
    missing = kubectl("exec", speaker, "--", "no-such-command")
    assert (missing.returncode, "not found" in missing.stderr) == (127, True)
    assert kubectl("exec", "demo-0-9", "--", "true").returncode == 1


def test_kubectl_gives_a_command_a_terminal(kubectl_path: str, places: Places, speaker: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    # Its size comes a moment after the start, as a message of its own.
    script = "import os\nwhile os.get_terminal_size().lines != 31: pass\nprint(os.isatty(0), 'got', input())"
    process = subprocess.Popen(
        [
            kubectl_path,
            "--kubeconfig",
            str(places.kubeconfig),
            "exec",
            "-it",
            speaker,
            "--",
            PYTHON,
            "-c",
            script,
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, b"typed\r")
    read_until(ours, lambda said: b"True got typed" in said)
    assert process.wait(DEADLINE) == 0
    os.close(ours)


def test_output_is_read_by_time(crucible: Any, kubectl: Any, speaker: str) -> None:
    stamped = crucible("logs", "demo", "--timestamps").out.splitlines()
    moments = [datetime.fromisoformat(line.split()[0]) for line in stamped]
    assert [line.split()[1] for line in stamped] == ["first", "second"]
    assert all(len(line.split()[0]) == len("2026-01-01T00:00:00.000000000Z") for line in stamped)
    assert kubectl("logs", speaker, "--timestamps").stdout.splitlines() == stamped
    between = (moments[0] + (moments[1] - moments[0]) / 2).astimezone(UTC).isoformat()
    assert kubectl("logs", speaker, f"--since-time={between}").stdout == "second\n"
    assert kubectl("logs", speaker, "--since=1h").stdout == "first\nsecond\n"
    assert kubectl("logs", speaker, "--tail=1").stdout == "second\n"
    assert (
        kubectl("logs", speaker, "--tail=1", "--since=1h", "--timestamps").stdout.splitlines() == stamped[1:]
    )
    assert crucible("logs", "demo", "--since", "1h").out == "first\nsecond\n"
    assert crucible("logs", "demo", "--since", "soon").code == 2


def test_output_of_the_instance_before(crucible: Any, kubectl: Any, speaker: str) -> None:
    crucible("restart", "demo", "--wait")
    assert kubectl("logs", "demo-0-2", "--previous").stdout == "first\nsecond\n"
    lines = kubectl("logs", "demo-0-2", "--previous", "--timestamps", "--tail=1").stdout.split()
    assert lines[1] == "second"
    assert kubectl("logs", speaker).stdout == "first\nsecond\n"


def test_usage_is_shown(crucible: Any, kubectl: Any, manifest: Any, eventually: Any) -> None:
    limits = {"cpu": "200m", "memory": "64Mi"}
    crucible("apply", "-f", manifest(BUSY, resources=limits), "--wait")
    eventually(lambda: "busy" in crucible("logs", "demo").out, lambda: "no output")
    (found,) = json.loads(crucible("top", "demo", "-o", "json").out)["items"]
    assert (found["plugin"], found["instance"], found["pids"]) == ("demo", "demo-0-1", 1)
    assert 0.05 < found["cores"] < 0.5
    assert 20 << 20 < found["memory"] <= 64 << 20
    assert found["memoryPeak"] >= found["memory"]
    assert found["throttledSeconds"] > 0
    heading, row = crucible("top").out.splitlines()
    assert heading.split()[:4] == ["INSTANCE", "CPU", "MEMORY", "PEAK"]
    assert row.split()[0] == "demo-0-1"
    assert crucible("top", "-A").out.splitlines()[1].split()[:2] == ["default", "demo-0-1"]
    assert crucible("top", "none").code == 3
    shown = kubectl("top", "pods").stdout.splitlines()[1].split()
    assert shown[0] == "demo-0-1"
    assert 50 < int(shown[1].removesuffix("m")) < 500
    assert int(shown[2].removesuffix("Mi")) >= 20


def test_usage_of_nothing_is_nothing(crucible: Any) -> None:
    shown = crucible("top")
    assert (shown.code, shown.out) == (0, "")
    assert "nothing runs here" in shown.err
