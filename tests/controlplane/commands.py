"""Real command-line clients, run against one server."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Tool:
    """One program with its kubeconfig and a home of its own."""

    path: Path
    kubeconfig: Path
    home: Path

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), "EDITOR": "true"}

    async def start(self, *argv: str, **variables: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(self.path),
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environment(), **variables},
        )

    async def run(self, *argv: str, stdin: str = "", **variables: str) -> Ran:
        process = await self.start(*argv, **variables)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def ok(self, *argv: str, stdin: str = "", **variables: str) -> str:
        ran = await self.run(*argv, stdin=stdin, **variables)
        if ran.code:
            raise AssertionError(f"{' '.join(argv)}: {ran.code}\n{ran.out}\n{ran.err}")
        return ran.out
