"""What a command loads, and how long it takes to begin."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("aiohttp", "kopf", "kubernetes", "docker", "cel", "rich", "psutil", "crucible.bootstrap")
MANIFEST = """
apiVersion: crucible.dev/v1alpha1
kind: Plugin
metadata: {name: small}
spec:
  version: 1.0.0
  type: python
  source: {inline: {main.py: "print(1)"}}
  entrypoint: [main.py]
"""
LOCAL = {
    "--help": [],
    "--version": [],
    "version --client": ["urllib3", "crucible.model.manifest"],
    "get --help": [],
    "schema": ["urllib3"],
    "schema --crd": ["urllib3"],
    "apply --dry-run -f small.yaml": ["urllib3"],
}


@pytest.mark.parametrize("words", LOCAL)
def test_local_commands_load_no_heavy_module(words: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(MANIFEST)
    unwanted = [*HEAVY, *LOCAL[words]]
    program = (
        "import sys; from crucible.cli.app import run; "
        f"code = run({words.split()!r}); "
        f"print([m for m in {unwanted!r} if m in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[] 0"


@pytest.mark.parametrize("words", LOCAL)
def test_local_commands_begin_within_300_milliseconds(words: str, tmp_path: Path) -> None:
    """CPU time, the best of several: what the program costs, not what else the machine does."""
    (tmp_path / "small.yaml").write_text(MANIFEST)
    environment = {
        **os.environ,
        "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled"),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    command = [sys.executable, "-m", "crucible", *words.split()]
    best = float("inf")
    for _ in range(8):
        began = _cpu_of_children()
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
        best = min(best, _cpu_of_children() - began)
        if best < 0.3:
            return
    pytest.fail(f"{words} took {best * 1000:.0f} ms")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
