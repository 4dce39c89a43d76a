"""The demonstration ends with 0, for root and for an ordinary user, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def play(*become: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "TMPDIR": "/tmp", "NO_COLOR": "1"}
    return subprocess.run(
        [*become, sys.executable, str(ROOT / "scripts" / "demo.py")],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_everything_really_happens(tmp_path: Path) -> None:
    done = play(home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it happened" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become someone else"
)
def test_an_ordinary_user_sees_what_cannot_be_enforced_and_the_rest_happens(tmp_path: Path) -> None:
    done = play("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "for an ordinary user" in done.stdout
