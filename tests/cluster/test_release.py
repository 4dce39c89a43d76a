"""A plugin whose operator is gone for good can be let go."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ground import LocalGround


async def release(local: LocalGround, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("crucible")),
        *("release", *arguments, "--kubeconfig", str(local.kubeconfig())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_a_plugin_is_let_go_without_its_operator_and_takes_its_pods_along(local: LocalGround) -> None:
    local.start()
    await local.apply("p")
    await local.until_ready("p")
    await local.end(number=signal.SIGKILL)
    code, said = await release(local, "p", "--yes")
    assert (code, said.count("is not being deleted")) == (1, 1), said
    await local.delete("p")
    assert await local.plugin("p")
    code, said = await release(local, "p")
    assert code != 0, said
    assert await local.plugin("p")
    assert await release(local, "p", "--yes") == (0, "plugin.crucible.dev/p released\n")

    async def gone() -> bool:
        plugins = (await local.client.get(local.plugins))["items"]
        return not plugins and not await local.pods()

    await local.until(gone)


async def test_what_is_not_held_is_said_and_not_changed(local: LocalGround) -> None:
    await local.apply("p")
    before = await local.plugin("p")
    assert await release(local, "p") == (0, "plugin.crucible.dev/p is not held\n")
    assert await local.plugin("p") == before
