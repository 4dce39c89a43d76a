"""What a program says on the bus, and what it is told: one thing at a time."""

from __future__ import annotations

import json
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from . import wire
from .arrivals import WINDOW, Arrivals
from .flow import GRACE, Flow, Served
from .line import Line
from .reach import HANDSHAKE
from .trace import trace_of
from .wire import Away, Failure, Frame, failure_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .log import Log
    from .stop import Stop
    from .trace import Trace

_PAUSE: Final = 0.2
_PATIENCE: Final = (
    10.0  # seconds in which a program that begins tries to connect: a pod's network may let it late
)
_DEFAULT_TIME: Final = 30_000


class Found(IntEnum):
    """What ``next`` brought."""

    NOTHING = 0
    CALL = 1
    MESSAGE = 2
    CONFIGURATION = 3
    STOP = 4
    CHANGE = 5
    WATCH_ENDED = 6


class Takes(IntEnum):
    """What a program takes besides calls and messages: flags."""

    CONFIGURATION = 1
    STOP = 2


class Bus:
    """One connection to the broker, and all that is under way on it.

    Attributes:
        got: what the functions that read look at: the last answer, call, message, item, change or error.
        trace: what is said now is a part of it; None: of none.
        served: the call that ``next`` brought and that waits for its answer.
    """

    def __init__(self, address: str, authority: str, log: Log, stop: Stop) -> None:
        self.got = Frame(wire.ANSWER)
        self.trace: Trace | None = None
        self.served: Served | None = None
        self.log = log
        self._stop = stop
        self._line = Line(address, authority, stop, self._lost)
        self._arrivals = Arrivals()
        self._flows: dict[int, Flow] = {}
        self._patterns: dict[int, str] = {}
        self._methods: list[str] = []
        self._takes = 0
        self._ready = False
        self._stopping = False
        self._headers: dict[str, str] = {}
        self._urgency = wire.NORMAL
        self._last = -1

    # Its life.

    def open(self, methods: str, takes: int) -> int:
        """Connect, and say which methods there are."""
        self._methods, self._takes = methods.split(), takes
        if takes & Takes.STOP:
            self._stop.listen()
        self._line.hang_up()
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._ensure()
            except Away:
                if self._stop.asked or time.monotonic() >= until:
                    raise
            else:
                return 0
            self._stop.pause(_PAUSE)

    def say_ready(self) -> int:
        """Say that the program can be used; after a new connection it is said again."""
        self._ready = True
        return self.call("$bus.ready", b"")

    def say_unready(self, why: str) -> int:
        """Say that it cannot, and why."""
        self._ready = False
        return self.call("$bus.unready", why.encode())

    # What it says.

    def set_header(self, name: str, value: str) -> int:
        """Let a header go with the next call, stream or message."""
        self._headers[name] = value
        return 0

    def set_priority(self, priority: int) -> int:
        """Let the next call, stream or message have a priority: 0 critical, 1 high, 2 normal, 3 low."""
        if not 0 <= priority <= 3:  # noqa: PLR2004 - the wire's figures
            raise Failure("Malformed", "a priority is 0, 1, 2 or 3")
        self._urgency = priority
        return 0

    def call(
        self, name: str, payload: bytes, milliseconds: int = 0, headers: Mapping[str, str] | None = None
    ) -> int:
        """Call a method and wait for its answer, 30 s unless milliseconds are given."""
        time_left = milliseconds if milliseconds > 0 else _DEFAULT_TIME
        flow = self.begin(name, payload, time_left, headers=headers)
        self.got = self._ended(flow)
        return 0

    def publish(self, subject: str, payload: bytes) -> int:
        """Tell whoever listens; return how many do."""
        frame = Frame(wire.PUBLISH, self._id(), subject, payload, *self._options(None))
        self.got = self._ended(self._send(frame, Flow(frame, time.monotonic() + HANDSHAKE)))
        return int(self.got.headers.get("reached", "0"))

    def subscribe(self, pattern: str) -> int:
        """Listen from now on."""
        frame = Frame(wire.SUBSCRIBE, self._id(), pattern)
        self.got = self._ended(self._send(frame, Flow(frame, time.monotonic() + HANDSHAKE)))
        self._patterns[frame.id] = pattern
        return 0

    def begin(  # noqa: PLR0913 - one call has so many sides
        self,
        name: str,
        payload: bytes,
        milliseconds: int,
        *,
        flags: int = 0,
        headers: Mapping[str, str] | None = None,
        watched: str | None = None,
    ) -> Flow:
        """Call a method, and wait for nothing; 0 milliseconds: any number, unless the caller left some."""
        said, urgency = self._options(headers)
        due = time.monotonic() + milliseconds / 1000 if milliseconds else None
        under = self.served
        if under is not None and watched is None:
            if under.unwanted:
                raise Failure("Cancelled", "the caller went away")
            due = under.due if due is None else min(due, under.due or due)
        left = 0 if due is None else max(int((due - time.monotonic()) * 1000), 1)
        frame = Frame(
            wire.CALL, self._id(), name, payload, said, urgency, min(left, wire.LONGEST_DEADLINE), flags
        )
        return self._send(frame, Flow(frame, due, under.id if under and watched is None else None, watched))

    def flow(self, ident: int) -> Flow:
        """Return a stream by its number; 0: that of the call that is being served.

        Raises:
            Failure: there is none, or nobody wants it any more.
        """
        found = self.served if ident == 0 else self._flows.get(ident)
        if found is None:
            raise Failure("Malformed", "there is no such stream")
        if isinstance(found, Served) and found.unwanted:
            raise Failure("Cancelled", "the caller went away")
        return found

    def drop(self, flow: Flow) -> None:
        """Forget a stream; say that no more of it is wanted, unless it has ended."""
        if self._flows.pop(flow.id, None) is not None and flow.end is None:
            self.tell(flow.cancels())
        self._arrivals.drop(flow)

    def tell(self, frame: Frame) -> None:
        """Send a frame that nothing waits for: it is lost when the bus is."""
        try:
            self._line.send(frame)
        except Failure as failure:
            if failure.code != "Unavailable":
                self._line.send(wire.error(frame.id, failure.code, str(failure), frame.priority))
                raise

    # What it is told.

    def next(self, milliseconds: int) -> int:
        """Take what came first; wait for it as long as is said, or for ever."""
        due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
        self._refuse("the program went on without an answer")
        self.trace = None
        last_look = False
        while (found := self._arrivals.next()) is None:
            if self._stop.asked:
                self.got = Frame(wire.MESSAGE)
                return Found.STOP
            if last_look:
                return Found.NOTHING
            left = None if due is None else due - time.monotonic()
            last_look = left is not None and left <= 0
            try:
                self._ensure()
                self.look(left)
            except Failure:
                self._stop.pause(_PAUSE if left is None else min(_PAUSE, left))
        return self._bring(found)

    def _bring(self, found: Served | Frame | Flow) -> Found:
        match found:
            case Served():
                self.served, self.got = found, found.frame
                self.trace = trace_of(found.frame.headers)
                return Found.CONFIGURATION if found.frame.name == "$config" else Found.CALL
            case Flow() if found.items:
                item = found.item()
                self.grant(found)
                self.got = item._replace(name=item.headers.get("key", ""))
                return Found.CHANGE
            case Flow():
                self._flows.pop(found.id, None)
                end = found.end or Frame(wire.ERROR)
                self.got = end._replace(name=found.watched or "")
                return Found.WATCH_ENDED
            case Frame():
                self.got = found
                self.trace = trace_of(found.headers)
                return Found.MESSAGE

    def remaining(self) -> int:
        """Milliseconds that the call being served has left; -1: any number, or there is none."""
        left = None if self.served is None else self.served.left
        return -1 if left is None else max(int(left * 1000), 0)

    def is_unwanted(self) -> bool:
        """Say whether nobody waits for the answer any more, as far as has come in."""
        if self.served is not None and not self.served.unwanted:
            self.look(0)
        return self.served is not None and self.served.unwanted

    def answer(self, payload: bytes) -> int:
        """Answer the call that ``next`` brought."""
        if self.served is not None:
            payload = self.served.result(payload)
        return self._reply(Frame(wire.ANSWER, payload=payload))

    def fail(self, code: str, why: str) -> int:
        """Say that it could not be done."""
        return self._reply(wire.error(0, code, why))

    def _reply(self, frame: Frame) -> int:
        served, self.served = self.served, None
        if served is not None and not served.unwanted:
            self.tell(frame._replace(id=served.id, priority=served.priority))
        return 0

    def _refuse(self, why: str) -> None:
        if self.served is not None:
            self.fail("Failed", why)

    # Frames.

    def look(self, seconds: float | None) -> None:
        """Take in what comes within so many seconds, after one look."""
        for frame in self._line.read(seconds):
            self._receive(frame)
        if self._stop.asked and not self._stopping:
            self._stopping = True
            self.tell(Frame(wire.CALL, self._id(), "$bus.unready", b"stopping", priority=wire.HIGH))

    def _ended(self, flow: Flow) -> Frame:
        """Wait for the end of a call, and return its answer or raise its error."""
        try:
            while flow.end is None:
                left = flow.left
                if left is not None and left + GRACE <= 0:
                    raise Failure("DeadlineExceeded", "no answer came in time")
                self.look(None if left is None else left + GRACE)
        finally:
            self._flows.pop(flow.id, None)
        if flow.end.kind == wire.ERROR:
            raise failure_of(flow.end)
        return flow.end

    def _send(self, frame: Frame, flow: Flow) -> Flow:
        self._ensure()
        self._flows[frame.id] = flow
        try:
            self._line.send(frame)
        except BaseException:
            self._flows.pop(frame.id, None)
            raise
        return flow

    def _options(self, headers: Mapping[str, str] | None) -> tuple[dict[str, str], int]:
        """Return what goes with what is said next: headers, with those of the trace, and the priority."""
        said = {**(self.trace.headers if self.trace else {}), **self._headers} if headers is None else headers
        urgency = self._urgency if headers is None else wire.NORMAL
        if headers is None:
            self._headers, self._urgency = {}, wire.NORMAL
        return dict(said), urgency

    def _id(self) -> int:
        self._last = (self._last + 2) & 0x7FFFFFFF
        return self._last

    def _ensure(self) -> None:
        if self._line.connected:
            return
        said = {"wire": [1], "client": "crucible-wasm/1", "methods": self._methods, "window": WINDOW}
        frames = self._line.connect(json.dumps(said).encode())
        for ident, pattern in self._patterns.items():
            self._line.send(Frame(wire.SUBSCRIBE, ident, pattern))
        if self._ready and not self._stopping:
            self._line.send(Frame(wire.CALL, self._id(), "$bus.ready", priority=wire.HIGH))
        for frame in frames:
            self._receive(frame)

    def _receive(self, frame: Frame) -> None:
        if frame.kind == wire.MESSAGE:
            self._arrivals.tell(frame)
        elif frame.kind == wire.CALL:
            self._called(frame)
        elif not frame.id:
            why = frame.payload.decode(errors="replace")
            self.log.write(2, "refused", {"code": frame.name, "why": why}, None)
        elif frame.id & 1:
            flow = self._flows.get(frame.id)
            if flow is not None:
                flow.take(frame)
                if flow.watched is not None:
                    self._arrivals.watch(flow)
        else:
            self._hear(frame)

    def _hear(self, frame: Frame) -> None:
        """Take what belongs to a call that somebody made of this program."""
        current = self.served if self.served is not None and self.served.id == frame.id else None
        served = current or self._arrivals.of(frame.id)
        if served is None:
            return
        if frame.kind != wire.CANCEL:
            served.take(frame)
        elif current is None:
            self._arrivals.drop(served)
        else:
            self._unwant(served)

    def _unwant(self, served: Served) -> None:
        """Nobody waits for an answer any more: nor for those that it takes."""
        served.unwanted = True
        for flow in list(self._flows.values()):
            if flow.under == served.id:
                self.tell(flow.cancels())

    def _called(self, frame: Frame) -> None:
        refusal = ""
        if frame.name.startswith("$") and not (frame.name == "$config" and self._takes & Takes.CONFIGURATION):
            refusal = "NoSuchMethod"
        elif self._stopping:
            refusal = "Unavailable"
        if frame.name == "$ping":
            self.tell(Frame(wire.ANSWER, frame.id, payload=frame.payload, priority=frame.priority))
        elif refusal:
            why = "stopping" if self._stopping else "no such method"
            self.tell(wire.error(frame.id, refusal, why, frame.priority))
        else:
            self._arrivals.call(Served(frame))

    def grant(self, flow: Flow) -> None:
        """Let the other side of a stream send more, if it may send little."""
        asked = None if flow.over else flow.asks()
        if asked is not None:
            self.tell(asked)

    def _lost(self) -> None:
        """End all that was under way on a connection."""
        if self.served is not None:
            self.served.unwanted = True
        self._arrivals.lose_calls()
        why = "the bus went away; it is not known whether the call was done"
        for flow in self._flows.values():
            if flow.end is not None:
                continue
            flow.take(wire.error(flow.id, "Unavailable", why))
            if flow.watched is not None:
                self._arrivals.watch(flow)
