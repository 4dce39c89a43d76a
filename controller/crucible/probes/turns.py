"""Whose turn it is to be asked. Who does not answer holds up its own other askings, and nobody else's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OF_ONE: Final = 8
"""Askings of one plugin under way at the same time."""
OF_ALL: Final = 256
"""Of all plugins; each takes a descriptor of the controller's."""
AT_ONCE: Final = 32
"""Of those, how many were begun within :data:`BRIEF` seconds: a start of everything takes its turn."""
BRIEF: Final = 0.25


class Turns:
    """The turns of all plugins."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(OF_ALL)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, plugin_uid: str) -> AsyncIterator[None]:
        """Wait until a plugin may be asked."""
        own = self._own.setdefault(plugin_uid, asyncio.Semaphore(OF_ONE))
        async with own, self._all:
            await self._room.acquire()
            room = [self._room]

            def give_back() -> None:
                if room:
                    room.pop().release()

            timer = asyncio.get_running_loop().call_later(BRIEF, give_back)
            try:
                yield
            finally:
                timer.cancel()
                give_back()
