"""What the Python SDK may not import, because an idle plugin would pay for it in memory."""

import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).parents[3] / "plugin-images/python/sdk"
HEAVY = {
    "asyncio",
    "contextlib",
    "dataclasses",
    "inspect",
    "logging",
    "pathlib",
    "queue",
    "socket",
    "threading",
}
HEAVY |= {"threading", "traceback", "typing", "urllib", "tempfile", "selectors", "random"}


def test_the_sdk_with_threads_loads_nothing_heavy() -> None:
    program = "import sys, crucible_plugin; crucible_plugin.Plugin(); print(*sys.modules)"
    command = [sys.executable, "-s", "-S", "-B", "-c", program]
    done = subprocess.run(command, env={"PYTHONPATH": str(SDK)}, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "crucible_plugin.plugin" in loaded
    assert loaded & HEAVY == set()
