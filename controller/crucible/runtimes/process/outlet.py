"""The egress proxy's port on a sandbox's own loopback: a socket that listens in there and is served out here.

A socket stays in the network namespace it was made in. So nothing of ours runs inside, and nobody but the
sandbox can come through it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from crucible.core.doors import PROXY_PORT
from crucible.errors import Unsupported
from crucible.model.door import Door
from crucible.runtimes.passage import NEW_NET, NEW_USER, House

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.runtimes.doors import Doors
    from crucible.runtimes.passage import Passage
    from crucible.runtimes.process.record import Record

LOOPBACK: Final = "127.0.0.1"
_SECONDS: Final = 5.0


async def open_outlet(passage: Passage, record: Record, doors: Doors, hold: Callable[[], int | None]) -> None:
    """Make an instance's egress door a port of its loopback too, unless it is one, or there is no such door.

    Args:
        passage: makes sockets in there.
        record: the instance's.
        doors: its doors, open.
        hold: returns a pidfd of one of its processes.

    Raises:
        Unsupported: the kernel does not let this controller in.
        Unavailable: it does not run, or nobody can be asked.
        OSError: the port is taken: by the plugin itself, for nobody else can.
    """
    if Door.EGRESS not in record.doors or doors.holds(Door.EGRESS, socket.AF_INET):
        return
    house = House(f"{record.name} outlet", hold, NEW_USER | NEW_NET, record.uid)
    deadline = asyncio.get_running_loop().time() + _SECONDS
    while True:
        try:
            doors.add(Door.EGRESS, await passage.listen(house, LOOPBACK, PROXY_PORT))
        except Unsupported:
            # Until bubblewrap has finished setting up, its process may not be entered.
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.001)
        else:
            return
