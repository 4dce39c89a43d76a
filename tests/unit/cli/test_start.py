"""What a command loads: that decides how long it takes to begin, which `make bench ONLY=cli` measures."""

from __future__ import annotations

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
    "backup --help": ["urllib3"],
    "kubeconfig --help": ["urllib3"],
    "restore --help": ["urllib3", "cryptography"],
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
