"""A backup of what runs here, restored elsewhere: the plugins run without the folders they came from."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from commands import Ran
from probe import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MANIFEST = """\
apiVersion: crucible.dev/v1alpha1
kind: Plugin
metadata: {name: moved}
spec:
  version: 1.0.0
  type: python
  source: {path: .}
  entrypoint: [main.py]
"""
PROGRAM = "import lib.words, time\nprint(lib.words.SAID, flush=True)\nwhile True: time.sleep(1)\n"


async def crucible(*words: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crucible", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def done(*words: str) -> str:
    ran = await crucible(*words)
    assert ran.code == 0, f"{words}: {ran}"
    return ran.out


@asynccontextmanager
async def control_plane(state: Path) -> AsyncIterator[tuple[str, str]]:
    """Run ``crucible up`` on a state folder; yield the words that name it."""
    log = state.with_suffix(".log")
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "crucible", "up", "--state", str(state)),
            stdout=output,
            stderr=output,
        )
    try:

        async def is_ready() -> bool:
            assert process.returncode is None, log.read_text()
            return "is ready" in log.read_text()

        await until(is_ready, 60)
        yield "--state", str(state)
    finally:
        process.terminate()
        await process.wait()


async def test_plugins_run_elsewhere_without_the_folders_they_came_from(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    (folder / "lib").mkdir(parents=True)
    (folder / "plugin.yaml").write_text(MANIFEST)
    (folder / "main.py").write_text(PROGRAM)
    (folder / "lib" / "words.py").write_text("SAID = 'words from a file'\n")
    backup = str(tmp_path / "all.backup")
    async with control_plane(tmp_path / "here") as here:
        await done("apply", "-f", str(folder), "--wait", *here)
        assert "1 sources" in await done("backup", backup, *here)
        await done("delete", "moved", *here)
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "here")
    elsewhere = ("--state", str(tmp_path / "there"))
    assert "1 sources" in await done("restore", backup, *elsewhere)
    async with control_plane(tmp_path / "there") as there:

        async def speaks() -> bool:
            return "words from a file" in (await crucible("logs", "moved", *there)).out

        try:
            await until(speaks, 60)
        finally:
            await done("delete", "moved", *there)
