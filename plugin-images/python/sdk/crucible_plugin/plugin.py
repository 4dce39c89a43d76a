"""A plugin on the bus, with threads: declare methods, then :meth:`Plugin.run`."""

from __future__ import annotations

import signal
import time
from _thread import allocate_lock, start_new_thread

from crucible_plugin import wire
from crucible_plugin.client import CLIENT, Client
from crucible_plugin.crew import Crew, Lane
from crucible_plugin.errors import BusError, Unavailable
from crucible_plugin.offers import Offer, answer, check_method, handle, request_of
from crucible_plugin.payloads import to_bytes
from crucible_plugin.speaker import DEFAULT_TIME, PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

    from crucible_plugin.calls import Request
    from crucible_plugin.offers import Handler, Method


class Plugin(Client):
    """This plugin. Any thread may call, publish, store and log.

    Attributes:
        config: ``spec.config``, the newest that was delivered.
    """

    def __init__(self, *, workers: int = 8, window: int = 64, drain: float = 5.0) -> None:
        """Prepare; nothing is connected yet.

        Args:
            workers: methods and handlers that run at once.
            window: calls taken at once; more wait in the broker.
            drain: seconds that open calls have to end once the plugin is asked to stop.
        """
        super().__init__()
        self.config: dict[str, Any] = self.surroundings.config
        self._window = window
        self._drain_time = drain
        self._crew = Crew(workers)
        self._offers: dict[str, Offer] = {}
        self._handlers: list[tuple[str, Handler, bool]] = []
        self._lanes: dict[int, Lane] = {}
        self._requests: dict[int, Request] = {}
        self._on_config: Callable[[dict[str, Any]], object] | None = None
        self._on_stop: list[Callable[[], object]] = []
        self._says_ready = True
        self._stopping = False
        self._closed = False
        self._running = allocate_lock()
        self._running.acquire()

    # What the author declares.

    def method(
        self, name: str | None = None, *, raw: bool = False, inline: bool = False
    ) -> Callable[[Method], Method]:
        """Offer a function to whoever may call it. Declare all before the bus is first used.

        A function that yields answers with a stream of items, or with a list to callers that want no stream.

        Args:
            name: the function's own unless given.
            raw: take the payload as bytes.
            inline: run at once, in the thread that reads: for what neither waits nor takes long.
        """

        def declare(function: Method) -> Method:
            known = name or function.__name__
            check_method(known)
            if self._line.connected:
                raise RuntimeError(f"{known}: declare methods before the bus is first used")
            self._offers[known] = Offer(function, raw=raw, inline=inline)
            self._line.lends = self._line.lends and not inline
            return function

        return declare

    def subscribe(self, pattern: str, *, raw: bool = False) -> Callable[[Handler], Handler]:
        """Give messages whose subject fits a pattern to a function, one after the other."""

        def declare(handler: Handler) -> Handler:
            self._handlers.append((pattern, handler, raw))
            if self._line.connected:
                flow = self._open(self._lane(pattern, handler, raw=raw))
                self._reply(flow, time.monotonic() + DEFAULT_TIME)
            return handler

        return declare

    def on_config(self, function: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
        """Take a new configuration without a restart; an exception refuses it."""
        self._on_config = function
        return function

    def on_stop(self, function: Callable[[], object]) -> Callable[[], object]:
        """Run a function once open calls have ended; the bus is still there."""
        self._on_stop.append(function)
        return function

    def ready(self) -> None:
        """Say that the plugin can serve. ``run`` says so by itself unless ``unready`` was said before."""
        self._says_ready = True
        self.exchange("$bus.ready", b"", priority="high")

    def unready(self, why: str) -> None:
        """Say that it cannot just now, and why; before ``run``: not yet."""
        self._says_ready = False
        if self._line.connected:
            self.exchange("$bus.unready", why.encode(), priority="high")

    # Its life.

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then let open calls end, and return."""
        self._stop_on_signals()
        try:
            if self.surroundings.bus:
                self._line.connect(PATIENCE)
                self._line.lead(lambda: self._stopping)
            while not self._stopping:
                self._line.pause(None)
        finally:
            self.close()

    def start(self) -> None:
        """Serve in a thread of its own, for a program with a main loop: see ``wait``."""
        self._stop_on_signals()
        if self.surroundings.bus:
            self._line.connect(PATIENCE)
            start_new_thread(self._line.lead, (lambda: self._stopping,))

    def wait(self, seconds: float) -> bool:
        """Wait; return early, and True, once the plugin is asked to stop."""
        if self._running.acquire(timeout=seconds):
            self._running.release()
        return self._stopping

    def pause(self, seconds: float) -> bool:
        """Wait, as ``wait`` does."""
        return self.wait(seconds)

    def stop(self) -> None:
        """Ask the plugin to stop, as SIGTERM does."""
        if not self._stopping:
            self._stopping = True
            self._running.release()
            self._line.wake()

    def close(self) -> None:
        """Let open calls end, run what is to be run at the end, and leave the bus."""
        self.stop()
        if self._closed:
            return
        self._closed = True
        if self._line.connected:
            self._let_end()
        for function in self._on_stop:
            function()
        self._line.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _let_end(self) -> None:
        try:
            self._begin("$bus.unready", b"stopping", {}, priority="high")
        except BusError:
            return
        until = time.monotonic() + self._drain_time
        self._line.lead(lambda: not self._requests or not self._line.connected, until)
        if self._requests:
            self.log.warning("calls did not end in time", open=len(self._requests), seconds=self._drain_time)

    def _stop_on_signals(self) -> None:
        def asked(number: int, frame: object) -> None:
            del number, frame
            self.stop()

        try:
            signal.signal(signal.SIGTERM, asked)
            signal.signal(signal.SIGINT, asked)
        except ValueError:
            return  # not the main thread: signals are somebody else's

    # What the line asks of its desk.

    def hello(self) -> bytes:
        """Return what the plugin introduces itself with."""
        said = {"wire": [1], "methods": sorted(self._offers), "window": self._window, "client": CLIENT}
        return to_bytes(said)

    def connected(self, welcome: wire.Frame) -> None:
        """Listen to all again, and be as ready as before."""
        del welcome
        for pattern, handler, raw in self._handlers:
            self._line.send(self._lane(pattern, handler, raw=raw))
        if self._says_ready and not self._stopping:
            self._line.send(wire.Frame(wire.CALL, self._id(), "$bus.ready", priority=1))

    def lost(self) -> None:
        """End what was open."""
        super().lost()
        self._lanes.clear()
        for request in list(self._requests.values()):
            request.cancel(wire.Frame(wire.CANCEL, request.flow.id))

    def receive(self, frame: wire.Frame) -> None:
        """Take a frame."""
        kind = frame.kind
        if kind == wire.CALL:
            self._called(frame)
        elif kind == wire.MESSAGE:
            lane = self._lanes.get(frame.id)
            if lane is not None:
                lane.put(frame)
        elif frame.id & 1 or not frame.id:
            super().receive(frame)
        else:
            request = self._requests.get(frame.id)
            if request is not None and kind == wire.CANCEL:
                request.cancel(frame)
            elif request is not None:
                request.flow.box.put(frame)

    def _called(self, frame: wire.Frame) -> None:
        if frame.name == "$ping":
            self._say(wire.Frame(wire.ANSWER, frame.id, payload=frame.payload, priority=frame.priority))
            return
        offer = self._offers.get(frame.name)
        if frame.name == "$config" and self._on_config is not None:
            offer = Offer(self._configure, raw=False, inline=False)
        if offer is None or self._stopping:
            code, why = ("Unavailable", "stopping") if self._stopping else ("NoSuchMethod", "no such method")
            self._say(wire.error(frame.id, code, why, frame.priority))
            return
        try:
            request = request_of(frame, offer, self._line)
        except BusError as error:
            self._say(wire.error(frame.id, error.code, error.message, frame.priority))
            return
        self._requests[frame.id] = request
        if offer.inline:
            self._serve(request, offer)
        else:
            self._crew.do(lambda: self._serve(request, offer))

    def _serve(self, request: Request, offer: Offer) -> None:
        frame = answer(request, offer, self.log)
        if self._requests.get(request.flow.id) is request:
            del self._requests[request.flow.id]
        if frame is not None:
            self._say(frame)
        if self._stopping and not self._requests:
            self._line.wake()

    def _say(self, frame: wire.Frame) -> None:
        """Answer; what is too large, or comes when the bus is gone, ends in an error instead."""
        try:
            self._line.send(frame)
        except Unavailable:
            return
        except BusError as error:
            self._line.send(wire.error(frame.id, error.code, error.message, frame.priority))

    def _configure(self, request: Request) -> None:
        if self._on_config is not None:
            self._on_config(request.payload)
        self.config = request.payload

    def _lane(self, pattern: str, handler: Handler, *, raw: bool) -> wire.Frame:
        """Return the frame that subscribes, and be prepared for what comes of it."""
        frame = wire.Frame(wire.SUBSCRIBE, self._id(), pattern)

        def take(message: wire.Frame) -> None:
            missed, lane.missed = lane.missed, 0
            handle(message, missed, handler, self.log, raw=raw)

        lane = self._lanes[frame.id] = Lane(self._crew, take)
        return frame
