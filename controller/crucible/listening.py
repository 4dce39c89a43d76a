"""Listens to commands inside instances to their end, though nobody needs all that they write."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crucible.runtimes.base import ExecSession

QUICKLY: Final = 1 << 20
"""Bytes that are taken as fast as they come."""
PAUSE: Final = 0.01
"""Seconds between the chunks of what comes beyond: a plugin writes it, and the controller pays for it."""


async def beginning(session: ExecSession, most: int) -> bytes:
    """Take all that a command writes, and return the first bytes of it."""
    said, taken = b"", 0
    async for _, chunk in session.output():
        said += chunk[: most - len(said)]
        taken += len(chunk)
        if taken > QUICKLY:
            await asyncio.sleep(PAUSE)
    return said
