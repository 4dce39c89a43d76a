"""Both ends of a call, for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque

from crucible_plugin import wire
from crucible_plugin.calls import WINDOW, Asked
from crucible_plugin.errors import Cancelled, DeadlineExceeded, Unavailable, error_of
from crucible_plugin.payloads import from_bytes, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any, Self

    from crucible_plugin.trace import Trace


class Flow:
    """One end of a stream: items out as far as there is credit, items in as they are asked for."""

    def __init__(self, send: Callable[[wire.Frame], object], ident: int, priority: int) -> None:
        self.id = ident
        self.priority = priority
        self.end: wire.Frame | None = None
        self._send = send
        self._changed = asyncio.Event()
        self._finished = False
        self._credit = 0
        self._owed = 0
        self._items: deque[wire.Frame] = deque()

    def receive(self, frame: wire.Frame) -> None:
        """Take what the other side said."""
        if frame.kind == wire.ITEM:
            self._finished = bool(frame.flags & wire.LAST)
            if frame.payload or not self._finished:
                self._items.append(frame)
        elif frame.kind == wire.CREDIT:
            self._credit += int.from_bytes(frame.payload, "big")
        else:
            self.end = frame
        self._changed.set()

    def say(self, kind: int, payload: bytes = b"", flags: int = 0) -> None:
        """Send a frame of this call."""
        self._send(wire.Frame(kind, self.id, payload=payload, priority=self.priority, flags=flags))

    def cancel(self) -> None:
        """Say that the answer is not wanted; the broker ends the call at once."""
        if self.end is None:
            try:
                self.say(wire.CANCEL)
            except Unavailable:
                return  # so has the call

    async def next(self) -> wire.Frame | None:
        """Return the next item; None when there are no more."""
        while not self._items:
            if self.end is not None or self._finished:
                return None
            if self._owed <= WINDOW // 2:
                self.say(wire.CREDIT, (WINDOW - self._owed).to_bytes(4, "big"))
                self._owed = WINDOW
            await self._change()
        self._owed -= 1
        return self._items.popleft()

    async def put(self, payload: bytes, flags: int = 0) -> bool:
        """Send an item once there is credit for it; False when the call has ended instead."""
        while not self._credit:
            if self.end is not None:
                return False
            await self._change()
        self._credit -= 1
        self.say(wire.ITEM, payload, flags)
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


class Stream:
    """A call with items both ways. Iterate over it; leave its ``async with`` block to end it early.

    Attributes:
        result: the answer after the last item; None before.
    """

    def __init__(
        self, flow: Flow, timeout: float | None, close: Callable[[int], object], *, raw: bool
    ) -> None:
        self.result: Any = None
        self._flow = flow
        self._close = close
        self._raw = raw
        self._due = None if timeout is None else asyncio.get_running_loop().time() + timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (frame := await self.next_frame()) is not None:
            yield frame.payload if self._raw else from_bytes(frame.payload)

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

    def cancel(self) -> None:
        """End the call, unless it has ended."""
        self._close(self._flow.id)
        self._flow.cancel()

    def _settle(self) -> None:
        end = self._flow.end
        if end is None:
            return
        self._close(self._flow.id)
        if end.kind == wire.ERROR:
            raise error_of(end.name, end.payload, end.headers)
        self.result = end.payload if self._raw else from_bytes(end.payload)
