"""What a program says on the bus: calls, streams, messages, its store. Any thread may."""

from __future__ import annotations

import time

from crucible_plugin import trace, wire
from crucible_plugin.calls import Flow, Request, Stream
from crucible_plugin.errors import Cancelled, DeadlineExceeded, error_of
from crucible_plugin.line import Line
from crucible_plugin.payloads import from_bytes, to_bytes
from crucible_plugin.speaker import DEFAULT_TIME, GRACE, Speaker, gone, traced
from crucible_plugin.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from crucible_plugin.events import Events

CLIENT = "crucible-plugin-python/1"


class Client(Speaker):
    """One end of the bus.

    Attributes:
        log: lines of JSON.
        store: the plugin's own key-value store.
        surroundings: names that the sandbox told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(self._ask, self._watch)
        self._line = Line(self.surroundings.bus, self.surroundings.bus_authority, self)
        self._flows: dict[int, Flow] = {}

    def call(  # noqa: PLR0913 - each is named
        self,
        name: str,
        payload: object = None,
        *,
        timeout: float | None = None,
        priority: str | None = None,
        headers: dict[str, str] | None = None,
        raw: bool = False,
    ) -> Any:  # noqa: ANN401 - what the other plugin answers
        """Call ``plugin.method`` and return what it answers.

        Args:
            name: whom and what.
            payload: bytes as they are, else anything with a JSON form.
            timeout: seconds; within a method no more than what its own caller left, else 30.
            priority: ``critical``, ``high``, ``normal`` or ``low``.
            headers: go with it.
            raw: return the answer as bytes.

        Raises:
            BusError: one of its kinds, as ``crucible_plugin.errors`` lists them.
        """
        frame = self.exchange(name, to_bytes(payload), headers, timeout=timeout, priority=priority)
        return frame.payload if raw else from_bytes(frame.payload)

    @property
    def events(self) -> Events:
        """Durable events, kept on the backbone until they were taken."""
        from crucible_plugin.events import Events  # noqa: PLC0415 - who uses none does not pay for it

        return Events(self.exchange, self.pause)

    def pause(self, seconds: float) -> bool:
        """Wait; say whether the program is to stop."""
        time.sleep(seconds)
        return False

    def stream(
        self,
        name: str,
        payload: object = None,
        *,
        timeout: float | None = None,
        priority: str | None = None,
        raw: bool = False,
    ) -> Stream:
        """Call a method that answers with many items; iterate over what this returns, in a ``with`` block.

        Args:
            name: whom and what.
            payload: as for ``call``.
            timeout: seconds for all of it; unless given, any.
            priority: as for ``call``.
            raw: return items and the answer as bytes.
        """
        due = None if timeout is None else time.monotonic() + timeout
        flow = self._begin(name, to_bytes(payload), {}, due=due, priority=priority, flags=wire.STREAM)
        return Stream(flow, due, self._forget, raw=raw)

    def publish(self, subject: str, payload: object = None, *, confirm: bool = False) -> int:
        """Tell whoever listens to a subject.

        Returns:
            How many subscriptions it reached; 0 unless ``confirm`` is asked for, which waits for the broker.

        Raises:
            NotPermitted: with ``confirm``; without it a refusal is only logged.
        """
        if not confirm:
            self._ensure()
            self._line.send(wire.Frame(wire.PUBLISH, 0, subject, to_bytes(payload), traced({})))
            return 0
        self._ensure()
        frame = wire.Frame(wire.PUBLISH, self._id(), subject, to_bytes(payload), traced({}))
        answered = self._reply(self._open(frame), time.monotonic() + DEFAULT_TIME)
        return int(answered.headers.get("reached", "0"))

    # What the line asks of its desk.

    def hello(self) -> bytes:
        """Return what to introduce oneself with."""
        return to_bytes({"wire": [1], "client": CLIENT})

    def connected(self, welcome: wire.Frame) -> None:
        """Begin anew."""

    def lost(self) -> None:
        """End what was open."""
        for flow in list(self._flows.values()):
            flow.box.put(gone(flow.id))

    def receive(self, frame: wire.Frame) -> None:
        """Take a frame: part of a call of ours, or an error that no call waits for."""
        flow = self._flows.get(frame.id)
        if flow is not None:
            flow.box.put(frame)
        else:
            self._told(frame)

    # Calls under way.

    def exchange(
        self,
        name: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        timeout: float | None = None,
        priority: str | None = None,
    ) -> wire.Frame:
        """Call a method and return the ANSWER as it came; else as ``call``."""
        due = time.monotonic() + (DEFAULT_TIME if timeout is None else timeout)
        request = trace.serving.get()
        if request is not None and request.due is not None:
            due = min(due, request.due)
        flow = self._begin(name, payload, headers or {}, due=due, priority=priority)
        return self._reply(flow, due)

    def _begin(  # noqa: PLR0913 - one call has so many sides
        self,
        name: str,
        payload: bytes,
        headers: dict[str, str],
        *,
        due: float | None = None,
        priority: str | None = None,
        flags: int = 0,
    ) -> Flow:
        self._ensure()
        left = None if due is None else due - time.monotonic()
        return self._open(self._call_frame(name, payload, headers, left=left, priority=priority, flags=flags))

    def _open(self, frame: wire.Frame) -> Flow:
        flow = Flow(self._line, frame.id, frame.priority)
        request = trace.serving.get()
        if isinstance(request, Request):
            if request.cancelled:
                raise Cancelled("the caller went away")
            request.calls[frame.id] = flow
        self._flows[frame.id] = flow
        try:
            self._line.send(frame)
        except BaseException:
            self._forget(frame.id)
            raise
        return flow

    def _reply(self, flow: Flow, due: float) -> wire.Frame:
        """Wait for the end of a call, and return its answer or raise its error."""
        try:
            frame = self._line.wait(flow.box, due + GRACE)
        finally:
            self._forget(flow.id)
        if frame is None:
            raise DeadlineExceeded("no answer came in time, nor the broker's word that none does")
        if frame.kind == wire.ERROR:
            raise error_of(frame.name, frame.payload, frame.headers)
        return frame

    def _ask(self, name: str, headers: dict[str, str], payload: bytes) -> wire.Frame:
        return self.exchange(name, payload, headers)

    def _watch(self, name: str, headers: dict[str, str]) -> Stream:
        return Stream(self._begin(name, b"", headers, flags=wire.STREAM), None, self._forget, raw=False)

    def _forget(self, ident: int) -> None:
        self._flows.pop(ident, None)
        request = trace.serving.get()
        if isinstance(request, Request):
            request.calls.pop(ident, None)

    def _ensure(self) -> None:
        patience = self._patience()
        if not self._line.connected:
            self._line.connect(patience)
