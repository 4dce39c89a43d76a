"""A broker and nothing else, with doors for so many clients, 8 each. Usage: bus_alone.py FOLDER CLIENTS"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvloop

from crucible.bus.service import BusService
from crucible.model.door import Door, Doorway


async def serve(folder: Path, clients: int) -> None:
    """Be it, until killed."""
    service = BusService(lambda _: None)
    for number in range(clients // 8 + 1):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / f"{number}.sock"))
        listener.listen(16)
        doorway = Doorway(Door.BUS, "default", f"p{number}", f"uid-{number}", "0-1")
        service.admit(doorway, {}, [listener])
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
