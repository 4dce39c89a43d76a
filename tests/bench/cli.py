"""How long the command line takes to begin."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from rows import Row, median

CRUCIBLE = str(Path(sys.executable).with_name("crucible"))
ROUNDS = 7
COMMANDS = {"help": ["--help"], "version": ["version", "--client"], "schema": ["schema"]}


async def start() -> list[Row]:
    """Wall time of local commands, from a byte-compiled installation."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", "controller/crucible"], check=True)
    return [
        Row(f"cli-{name}", "ms", median([_once(words) for _ in range(ROUNDS)]), target=300)
        for name, words in COMMANDS.items()
    ]


def _once(words: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run([CRUCIBLE, *words], check=True, stdout=subprocess.DEVNULL, env=environment)
    return 1000 * (time.perf_counter() - begin)
