"""Durable events, for asyncio."""

from __future__ import annotations

import asyncio

from crucible_plugin.errors import DeadlineExceeded, Overloaded, Unavailable
from crucible_plugin.events import PAUSE, POLL, Event, words_of
from crucible_plugin.payloads import to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from typing import Protocol

    from crucible_plugin.wire import Frame

    class Exchange(Protocol):
        """How a method is called, and its ANSWER had as it came."""

        def __call__(
            self,
            name: str,
            payload: bytes,
            headers: dict[str, str] | None = None,
            *,
            timeout: float | None = None,
        ) -> Awaitable[Frame]:
            """Call it."""
            ...


class Events:
    """Puts and takes, as ``crucible_plugin.events.Events`` does; its words hold here."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def put(self, subject: str, payload: object = None, *, ident: str = "") -> int:
        """Keep an event for whoever follows its subject; return its number once it is safe."""
        headers = {"subject": subject, **({"id": ident} if ident else {})}
        return int((await self._exchange("$events.put", to_bytes(payload), headers)).headers["sequence"])

    async def take(
        self,
        pattern: str,
        *,
        subscription: str = "main",
        done: Event | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the call's deadline, which the broker keeps
        raw: bool = False,
    ) -> Event | None:
        """Return the oldest event that fits; None when there is none in ``timeout`` seconds."""
        headers = words_of(pattern, subscription, done)
        try:
            return Event(await self._exchange("$events.take", b"", headers, timeout=timeout), raw=raw)
        except DeadlineExceeded:
            return None

    async def follow(
        self, pattern: str, *, subscription: str = "main", raw: bool = False
    ) -> AsyncIterator[Event]:
        """Yield events as they come; each is done when the next one is asked for."""
        done: Event | None = None
        while True:
            try:
                event = await self.take(pattern, subscription=subscription, done=done, timeout=POLL, raw=raw)
            except (Unavailable, Overloaded):
                await asyncio.sleep(PAUSE)
                continue
            done = event
            if event is not None:
                yield event
