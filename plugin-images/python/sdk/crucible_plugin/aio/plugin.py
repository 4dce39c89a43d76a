"""A plugin on the bus, for asyncio: declare methods, then ``await plugin.run()``."""

from __future__ import annotations

import asyncio
import inspect
import signal

from crucible_plugin import trace, wire
from crucible_plugin.aio.client import CLIENT, Client
from crucible_plugin.aio.flow import Flow, Request
from crucible_plugin.calls import Message
from crucible_plugin.crew import LANE_LIMIT
from crucible_plugin.errors import BusError, Cancelled, Unavailable
from crucible_plugin.offers import check_method, told
from crucible_plugin.payloads import from_bytes, to_bytes
from crucible_plugin.speaker import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    Method = Callable[[Request], Any]
    Handler = Callable[[Message], Any]


class Plugin(Client):
    """This plugin. Functions that are declared may be ``async`` or not; those that are not must not wait.

    Attributes:
        config: ``spec.config``, the newest that was delivered.
    """

    def __init__(self, *, window: int = 64, drain: float = 5.0) -> None:
        """Prepare; nothing is connected yet. See ``crucible_plugin.Plugin``."""
        super().__init__()
        self.config: dict[str, Any] = self.surroundings.config
        self._window = window
        self._drain_time = drain
        self._methods: dict[str, tuple[Method, bool]] = {}
        self._handlers: list[tuple[str, Handler, bool]] = []
        self._lanes: dict[int, asyncio.Queue[wire.Frame]] = {}
        self._missed: dict[int, int] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._requests: dict[int, tuple[Request, asyncio.Task[None]]] = {}
        self._on_config: Callable[[dict[str, Any]], Any] | None = None
        self._on_stop: list[Callable[[], Any]] = []
        self._says_ready = True
        self._stopping = asyncio.Event()

    def method(self, name: str | None = None, *, raw: bool = False) -> Callable[[Method], Method]:
        """Offer a function. Declare all before the bus is first used."""

        def declare(function: Method) -> Method:
            known = name or function.__name__
            check_method(known)
            if self.connected:
                raise RuntimeError(f"{known}: declare methods before the bus is first used")
            self._methods[known] = (function, raw)
            return function

        return declare

    def subscribe(self, pattern: str, *, raw: bool = False) -> Callable[[Handler], Handler]:
        """Give messages whose subject fits a pattern to a function, one after the other."""

        def declare(handler: Handler) -> Handler:
            self._handlers.append((pattern, handler, raw))
            if self.connected:
                self.send(self._listen(pattern, handler, raw=raw))
            return handler

        return declare

    def on_config(self, function: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        """Take a new configuration without a restart; an exception refuses it."""
        self._on_config = function
        return function

    def on_stop(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Run a function once open calls have ended; the bus is still there."""
        self._on_stop.append(function)
        return function

    async def ready(self) -> None:
        """Say that the plugin can serve."""
        self._says_ready = True
        await self.exchange("$bus.ready", b"", priority="high")

    async def unready(self, why: str) -> None:
        """Say that it cannot just now, and why; before ``run``: not yet."""
        self._says_ready = False
        if self.connected:
            await self.exchange("$bus.unready", why.encode(), priority="high")

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or ``stop``; then let open calls end, and return."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            if self.surroundings.bus:
                await self.connect(PATIENCE)
            await self._stopping.wait()
            await self._end()
        finally:
            self.close()
            for task in self._work:
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)

    def stop(self) -> None:
        """Ask the plugin to stop, as SIGTERM does."""
        self._stopping.set()

    async def _end(self) -> None:
        if self.connected:
            self.send(wire.Frame(wire.CALL, self._id(), "$bus.unready", b"stopping", priority=wire.HIGH))
        if self._requests:
            await asyncio.wait({task for _, task in self._requests.values()}, timeout=self._drain_time)
        if self._requests:
            self.log.warning("calls did not end in time", open=len(self._requests))
        for function in self._on_stop:
            await _result(function())

    # What the connection asks.

    def hello(self) -> bytes:
        """Return what the plugin introduces itself with."""
        said = {"wire": [1], "methods": sorted(self._methods), "window": self._window, "client": CLIENT}
        return to_bytes(said)

    def welcomed(self) -> None:
        """Listen to all again, and be as ready as before."""
        for pattern, handler, raw in self._handlers:
            self.send(self._listen(pattern, handler, raw=raw))
        if self._says_ready and not self._stopping.is_set():
            self.send(wire.Frame(wire.CALL, self._id(), "$bus.ready", priority=wire.HIGH))

    def lost(self) -> None:
        """End what was open."""
        super().lost()
        self._lanes.clear()
        for _, task in self._requests.values():
            task.cancel()

    def receive(self, frame: wire.Frame) -> None:
        """Take a frame."""
        if frame.kind == wire.CALL:
            self._called(frame)
        elif frame.kind == wire.MESSAGE:
            lane = self._lanes.get(frame.id)
            if lane is not None and lane.full():
                self._missed[frame.id] = self._missed.get(frame.id, 0) + 1
            elif lane is not None:
                lane.put_nowait(frame)
        elif frame.id & 1 or not frame.id:
            super().receive(frame)
        elif frame.id in self._requests:
            request, task = self._requests[frame.id]
            if frame.kind == wire.CANCEL:
                request.cancelled = True
                task.cancel()
            else:
                request.flow.receive(frame)

    def _spawn(self, work: Any) -> asyncio.Task[None]:  # noqa: ANN401 - a coroutine
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    def _listen(self, pattern: str, handler: Handler, *, raw: bool) -> wire.Frame:
        frame = wire.Frame(wire.SUBSCRIBE, self._id(), pattern)
        self._lanes[frame.id] = asyncio.Queue(LANE_LIMIT)
        self._spawn(self._hear(self._lanes[frame.id], handler, raw=raw))
        return frame

    async def _hear(self, lane: asyncio.Queue[wire.Frame], handler: Handler, *, raw: bool) -> None:
        while True:
            frame = await lane.get()
            span = trace.current.set(trace.trace_of(frame.headers))
            try:
                payload = frame.payload if raw else from_bytes(frame.payload)
                await _result(handler(Message(frame, payload, self._missed.pop(frame.id, 0))))
            except Exception as error:  # noqa: BLE001 - one message's fault is not the next one's
                self.log.error("a handler failed", subject=frame.name, error=told(error))  # noqa: TRY400 - it is told
            finally:
                trace.current.reset(span)

    def _called(self, frame: wire.Frame) -> None:
        method, raw = self._methods.get(frame.name, (None, False))
        if frame.name == "$ping":
            self._say(wire.Frame(wire.ANSWER, frame.id, payload=frame.payload, priority=frame.priority))
            return
        if frame.name == "$config" and self._on_config is not None:
            method = self._configure
        if self._stopping.is_set():
            self._say(wire.error(frame.id, "Unavailable", "stopping", frame.priority))
        elif method is None:
            self._say(wire.error(frame.id, "NoSuchMethod", "no such method", frame.priority))
        else:
            try:
                payload = frame.payload if raw else from_bytes(frame.payload)
            except BusError as error:
                self._say(wire.error(frame.id, error.code, error.message, frame.priority))
                return
            flow = Flow(self.send, frame.id, frame.priority)
            request = Request(frame, payload, flow, trace.trace_of(frame.headers))
            self._requests[frame.id] = request, self._spawn(self._serve(request, method))

    async def _serve(self, request: Request, method: Method) -> None:
        trace.current.set(request.trace)
        trace.serving.set(request)
        ident, priority = request.flow.id, request.priority
        try:
            result = method(request)
            if inspect.isasyncgen(result):
                result = await _pour(request, result)
            payload = to_bytes(await _result(result))
            frame = wire.Frame(wire.ANSWER, ident, payload=payload, priority=priority)
        except BusError as error:
            frame = wire.error(ident, error.code, error.message, priority)
        except Exception as error:  # noqa: BLE001 - a method's fault is its caller's answer, not the plugin's end
            self.log.error("a method failed", method=request.method, error=told(error))  # noqa: TRY400 - it is told
            frame = wire.error(ident, "Failed", f"{type(error).__name__}: {error}", priority)
        finally:
            if self._requests.get(ident, (None,))[0] is request:
                del self._requests[ident]
        if not request.cancelled:
            self._say(frame)

    def _say(self, frame: wire.Frame) -> None:
        """Answer; what is too large, or comes when the bus is gone, ends in an error instead."""
        try:
            self.send(frame)
        except Unavailable:
            return
        except BusError as error:
            self.send(wire.error(frame.id, error.code, error.message, frame.priority))

    async def _configure(self, request: Request) -> None:
        if self._on_config is not None:
            await _result(self._on_config(request.payload))
        self.config = request.payload


async def _result(value: Any) -> Any:  # noqa: ANN401 - a method's own
    """Return a value, or what it becomes."""
    return await value if inspect.isawaitable(value) else value


async def _pour(request: Request, results: AsyncIterator[Any]) -> list[Any] | None:
    """Send what a method yields as items; collect it for a caller that takes none."""
    items = []
    async for item in results:
        if not request.streams:
            items.append(item)
        elif not await request.flow.put(to_bytes(item)):
            raise Cancelled("the caller wants no more")
    return None if request.streams else items
