"""Programs that use an SDK, started as a sandbox would start them, but without one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raw import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = REPOSITORY / "tests/plugins/sdk"


class Program:
    """A running program; its output is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.errors = b""
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, command: Sequence[str], bus: Path | None, folder: Path, config: object = None, **env: str
    ) -> Program:
        file = folder / "config.json"
        file.write_text(json.dumps(config or {}))
        environment = {
            "PATH": os.environ["PATH"],
            "CRUCIBLE_PLUGIN": "everything",
            "CRUCIBLE_NAMESPACE": "here",
            "CRUCIBLE_INSTANCE": "here-everything-0-1",
            "CRUCIBLE_CONFIG": str(file),
            **({} if bus is None else {"CRUCIBLE_BUS": str(bus)}),
            **env,
        }
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe))

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines]

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def end(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        async with asyncio.timeout(DEADLINE):
            await self._reading
            return await self.process.wait()

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.end()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        errors = asyncio.create_task(self.process.stderr.read())
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))
        self.errors = await errors


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)
