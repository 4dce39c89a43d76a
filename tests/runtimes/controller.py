"""A controller to be killed: opens the process runtime, starts what it is told, says so, waits for its end.

Run as ``python controller.py STATE CONTROL_PLANE SOURCES CGROUP_PARENT COUNT``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parent))

from harness import FIRST, LIMITS

from crucible.model.workload import Slot, Workload
from crucible.runtimes.process import ProcessRuntime, ProcessSettings


async def main(state: str, control_plane: str, sources: str, parent: str, count: str) -> None:
    settings = ProcessSettings(Path(state), control_plane, cgroup_parent=parent or None)
    runtime = ProcessRuntime(settings, Path(sources).joinpath)
    await runtime.open(lambda _: None)
    print("open", flush=True)  # noqa: T201 - the parent waits for it
    for number in range(int(count)):
        workload = Workload(
            namespace="default",
            plugin=f"p{number}",
            plugin_uid=f"uid-p{number}",
            type="python",
            entrypoint=("main.py", "say:before", "stay"),
            env=(),
            config="{}",
            source="program",
            limits=LIMITS,
            isolation="process",
            grace=5.0,
            restart="",
        )
        # Every start is wanted once: what an earlier controller left is found, not made again.
        if not runtime.instances(workload.plugin_uid):
            await runtime.start(workload, Slot(FIRST.ordinal, FIRST.attempt))
    print("started", flush=True)  # noqa: T201 - the same
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
