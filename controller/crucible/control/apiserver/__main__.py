"""Run an API server alone: ``python -m crucible.control.apiserver --state-dir DIR [--crd FILE]...``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import yaml

from crucible.errors import CrucibleError

from . import ApiServer, ServerSettings


async def _serve(settings: ServerSettings, crds: list[dict[str, object]]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopped.set)
    async with ApiServer(settings, crds=crds) as server:
        sys.stdout.write(f"ready {server.url} {server.kubeconfig}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> int:
    """Parse arguments and serve until a signal; 1 where the server cannot start."""
    parser = argparse.ArgumentParser(prog="crucible.control.apiserver")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--crd", type=Path, action="append", default=[])
    given = parser.parse_args()
    crds = [document for path in given.crd for document in yaml.safe_load_all(path.read_text()) if document]
    try:
        asyncio.run(_serve(ServerSettings(state_dir=given.state_dir, port=given.port), crds))
    except CrucibleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
