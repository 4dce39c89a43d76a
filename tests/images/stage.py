"""A folder in which a host runs programs, as it does in a sandbox."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 60


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def why(self) -> str:
        return self.err.partition("\n")[0]


class Stage:
    """A folder with what a sandbox shows, and a host that runs programs in it."""

    def __init__(self, root: Path, command: tuple[str, ...]) -> None:
        self.root = root
        self.command = command
        for name in ("plugin", "config", "tmp"):
            (root / name).mkdir()

    def argv(self, name: str, content: str | bytes, *options: str, words: tuple[str, ...] = ()) -> list[str]:
        path = self.root / "plugin" / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [*self.command, "--root", str(self.root), *options, "--", f"/plugin/{name}", *words]

    def run(self, name: str, content: str | bytes, *options: str, words: tuple[str, ...] = ()) -> Ended:
        done = subprocess.run(
            self.argv(name, content, *options, words=words),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"HOME": "/tmp", "GREETING": "hello", "PATH": os.defpath},
        )
        return Ended(done.returncode, done.stdout, done.stderr)
