"""Both ends of a call, for asyncio."""

from __future__ import annotations

import asyncio

from crucible_plugin import wire
from crucible_plugin.calls import Asked, Course, Talk
from crucible_plugin.errors import Cancelled, DeadlineExceeded
from crucible_plugin.payloads import from_bytes, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any, Self

    from crucible_plugin.trace import Trace


class Flow(Course):
    """One end of a stream: items out as far as there is credit, items in as they are asked for."""

    def __init__(self, send: Callable[[wire.Frame], object], ident: int, priority: int) -> None:
        super().__init__(send, ident, priority)
        self._changed = asyncio.Event()

    def receive(self, frame: wire.Frame) -> None:
        """Take what the other side said."""
        self.note(frame)
        self._changed.set()

    async def next(self) -> wire.Frame | None:
        """Return the next item; None when there are no more."""
        while not self._items:
            if self.over:
                return None
            self.grant()
            await self._change()
        return self.item()

    async def put(self, payload: bytes, flags: int = 0) -> bool:
        """Send an item once there is credit for it; False when the call has ended instead."""
        while not self._credit:
            if self.end is not None:
                return False
            await self._change()
        self.give(payload, flags)
        return True

    async def ended(self) -> wire.Frame:
        """Return the frame that ended it."""
        while self.end is None:
            await self._change()
        return self.end

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Request(Asked):
    """What a method is asked. When the answer is not wanted any more, the method's task is cancelled."""

    def __init__(self, frame: wire.Frame, payload: Any, flow: Flow, trace: Trace | None) -> None:  # noqa: ANN401
        super().__init__(frame, payload, trace)
        self.flow = flow

    async def items(self, *, raw: bool = False) -> AsyncIterator[Any]:
        """Yield what the caller sends, until it says that this was the last."""
        while (frame := await self.flow.next()) is not None:
            yield frame.payload if raw else from_bytes(frame.payload)

    async def send(self, item: object) -> None:
        """Send the caller an item, once it wants one.

        Raises:
            Cancelled: it wants none any more.
        """
        if not await self.flow.put(to_bytes(item)):
            raise Cancelled("the caller wants no more")


class Stream(Talk):
    """A call with items both ways. Iterate over it; leave its ``async with`` block to end it early.

    Attributes:
        result: the answer after the last item; None before.
    """

    def __init__(
        self, flow: Flow, timeout: float | None, close: Callable[[int], object], *, raw: bool
    ) -> None:
        super().__init__(flow, close, raw=raw)
        self._flow = flow
        self._due = None if timeout is None else asyncio.get_running_loop().time() + timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (frame := await self.next_frame()) is not None:
            yield self._read(frame)

    async def next_frame(self) -> wire.Frame | None:
        """Return the next item with its headers; None after the last.

        Raises:
            BusError: the call ended so.
        """
        try:
            async with asyncio.timeout_at(self._due):
                frame = await self._flow.next()
        except TimeoutError:
            raise DeadlineExceeded("nothing came in time") from None
        if frame is None:
            self._settle()
        return frame

    async def send(self, item: object) -> None:
        """Send an item once the other side wants one.

        Raises:
            BusError: the call has ended.
        """
        if not await self._flow.put(to_bytes(item)):
            self._settle()
            raise Cancelled("the call has ended")

    async def finish(self) -> None:
        """Say that no more items come from here."""
        if not await self._flow.put(b"", wire.LAST):
            self._settle()
