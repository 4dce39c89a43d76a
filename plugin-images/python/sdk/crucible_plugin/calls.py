"""Both ends of a call: what a method is asked, and what a caller waits for."""

from __future__ import annotations

import time
from collections import deque

from crucible_plugin import wire
from crucible_plugin.errors import Cancelled, DeadlineExceeded, Unavailable, error_of
from crucible_plugin.payloads import from_bytes, to_bytes

try:
    from _queue import SimpleQueue
except ImportError:
    from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Any, Self

    from crucible_plugin.line import Box, Line
    from crucible_plugin.trace import Trace

WINDOW = 16
"""Items of a stream that may be on their way before they are asked for again."""


class Course:
    """What is known of one end of a call, waited for by threads or by tasks: what came, and what may go.

    Attributes:
        end: the frame that ended it; None: it goes on.
    """

    def __init__(self, send: Callable[[wire.Frame], object], ident: int, priority: int) -> None:
        self.id = ident
        self.priority = priority
        self.end: wire.Frame | None = None
        self._send = send
        self._finished = False
        self._credit = 0
        self._owed = 0
        self._items: deque[wire.Frame] = deque()

    @property
    def over(self) -> bool:
        """No more items come."""
        return self.end is not None or self._finished

    def note(self, frame: wire.Frame) -> None:
        """Take what the other side said."""
        if frame.kind == wire.ITEM:
            self._finished = bool(frame.flags & wire.LAST)
            if frame.payload or not self._finished:
                self._items.append(frame)
        elif frame.kind == wire.CREDIT:
            self._credit += int.from_bytes(frame.payload, "big")
        else:
            self.end = frame

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

    def grant(self) -> None:
        """Let the other side send more, once half of what it may is used up."""
        if self._owed <= WINDOW // 2:
            more = WINDOW - self._owed
            self._owed += more
            self.say(wire.CREDIT, more.to_bytes(4, "big"))

    def item(self) -> wire.Frame:
        """Return the item that came first; there is one."""
        self._owed -= 1
        return self._items.popleft()

    def give(self, payload: bytes, flags: int) -> None:
        """Send an item; there is credit for it."""
        self._credit -= 1
        self.say(wire.ITEM, payload, flags)


class Flow(Course):
    """One end of a stream: items out as far as there is credit, items in as they are asked for."""

    def __init__(self, line: Line, ident: int, priority: int) -> None:
        super().__init__(line.send, ident, priority)
        self.box: Box = SimpleQueue()
        self._line = line

    def next(self, due: float | None) -> wire.Frame | None:
        """Return the next item; None when there are no more."""
        while not self._items:
            if self.over:
                return None
            self.grant()
            self._take(due)
        return self.item()

    def put(self, payload: bytes, due: float | None, flags: int = 0) -> bool:
        """Send an item once there is credit for it; False when the call has ended instead."""
        while not self._credit:
            if self.end is not None:
                return False
            self._take(due)
        self.give(payload, flags)
        return True

    def _take(self, due: float | None) -> None:
        frame = self._line.wait(self.box, due)
        if frame is None:
            raise DeadlineExceeded("nothing came in time")
        self.note(frame)


class Asked:
    """What a method is asked.

    Attributes:
        method: its name.
        caller: the plugin that asks; ``$host``: the host application.
        headers: what came with it.
        payload: the value, decoded; bytes where the method is declared ``raw``.
        priority: 0 critical to 3 low.
        due: when the time is over, in the seconds of ``time.monotonic``; None: never.
        streams: the caller takes items, and may send some.
        trace: the span of this work; None where the caller traces nothing.
        cancelled: the answer is not wanted any more; a method that takes long looks at it. Calls that the
            method waits for are cancelled with it.
    """

    def __init__(self, frame: wire.Frame, payload: Any, trace: Trace | None) -> None:  # noqa: ANN401
        self.method = frame.name
        self.caller = frame.headers.get("from", "")
        self.headers = frame.headers
        self.payload = payload
        self.priority = frame.priority
        self.due = time.monotonic() + frame.deadline / 1000 if frame.deadline else None
        self.streams = bool(frame.flags & wire.STREAM)
        self.trace = trace
        self.cancelled = False

    @property
    def remaining(self) -> float | None:
        """Seconds that are left; None: any number."""
        return None if self.due is None else max(self.due - time.monotonic(), 0)


class Request(Asked):
    """What a method is asked, with what it may do about it.

    Attributes:
        flow: what comes and goes besides.
        calls: those that the method waits for.
    """

    def __init__(self, frame: wire.Frame, payload: Any, flow: Flow, trace: Trace | None) -> None:  # noqa: ANN401
        super().__init__(frame, payload, trace)
        self.flow = flow
        self.calls: dict[int, Flow] = {}

    def items(self, *, raw: bool = False) -> Iterator[Any]:
        """Yield what the caller sends, until it says that this was the last."""
        while (frame := self.flow.next(self.due)) is not None:
            yield frame.payload if raw else from_bytes(frame.payload)
        self._check()

    def send(self, item: object) -> None:
        """Send the caller an item, once it wants one.

        Raises:
            Cancelled: it wants none any more.
            DeadlineExceeded: it did not in time.
        """
        if not self.flow.put(to_bytes(item), self.due):
            raise Cancelled("the caller wants no more")

    def cancel(self, frame: wire.Frame) -> None:
        """Note that the answer is not wanted, nor are those that this work waits for."""
        self.cancelled = True
        self.flow.box.put(frame)
        for flow in list(self.calls.values()):
            flow.cancel()

    def _check(self) -> None:
        if self.cancelled:
            raise Cancelled("the caller went away")


class Message:
    """What somebody published.

    Attributes:
        subject: to which subject.
        caller: the plugin that did.
        headers: what came with it.
        payload: the value, decoded; bytes where the subscription is ``raw``.
        missed: how many before this one were lost because they were read too slowly.
    """

    def __init__(self, frame: wire.Frame, payload: Any, missed: int = 0) -> None:  # noqa: ANN401
        self.subject = frame.name
        self.caller = frame.headers.get("from", "")
        self.headers: Mapping[str, str] = frame.headers
        self.payload = payload
        self.missed = int(frame.headers.get("missed", "0")) + missed


class Talk:
    """What streams have in common, waited for by threads or by tasks.

    Attributes:
        result: the answer after the last item; None before.
    """

    def __init__(self, course: Course, close: Callable[[int], object], *, raw: bool) -> None:
        self.result: Any = None
        self._course = course
        self._close = close
        self._raw = raw

    def cancel(self) -> None:
        """End the call, unless it has ended."""
        self._close(self._course.id)
        self._course.cancel()

    def _read(self, frame: wire.Frame) -> Any:  # noqa: ANN401 - what the other side sent
        return frame.payload if self._raw else from_bytes(frame.payload)

    def _settle(self) -> None:
        """Keep the answer, or raise the error, of a call that has ended."""
        end = self._course.end
        if end is None:
            return
        self._close(self._course.id)
        if end.kind == wire.ERROR:
            raise error_of(end.name, end.payload, end.headers)
        self.result = self._read(end)


class Stream(Talk):
    """A call with items both ways. Iterate over it; leave its ``with`` block to end it early.

    Attributes:
        result: the answer after the last item; None before.
    """

    def __init__(self, flow: Flow, due: float | None, close: Callable[[int], object], *, raw: bool) -> None:
        super().__init__(flow, close, raw=raw)
        self._flow = flow
        self._due = due

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Any]:
        while (frame := self.next_frame()) is not None:
            yield self._read(frame)

    def next_frame(self) -> wire.Frame | None:
        """Return the next item with its headers; None after the last.

        Raises:
            BusError: the call ended so.
        """
        frame = self._flow.next(self._due)
        if frame is None:
            self._settle()
        return frame

    def send(self, item: object) -> None:
        """Send an item once the other side wants one.

        Raises:
            BusError: the call has ended.
        """
        if not self._flow.put(to_bytes(item), self._due):
            self._settle()
            raise Cancelled("the call has ended")

    def finish(self) -> None:
        """Say that no more items come from here."""
        if not self._flow.put(b"", self._due, wire.LAST):
            self._settle()
