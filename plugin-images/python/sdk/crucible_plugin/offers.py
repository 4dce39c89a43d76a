"""What a plugin offers: its methods, and how one is run and answered."""

from __future__ import annotations

from types import GeneratorType

from crucible_plugin import trace, wire
from crucible_plugin.calls import Flow, Message, Request
from crucible_plugin.errors import BusError
from crucible_plugin.payloads import from_bytes, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from crucible_plugin.line import Line
    from crucible_plugin.logs import Log

    Method = Callable[[Request], object]
    Handler = Callable[[Message], object]

NAME_LIMIT = 64
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class Offer:
    """One method.

    Attributes:
        function: what runs.
        raw: it takes the payload as bytes.
        inline: it runs in the thread that reads: at once, and all else waits meanwhile.
    """

    __slots__ = ("function", "inline", "raw")

    def __init__(self, function: Method, *, raw: bool, inline: bool) -> None:
        self.function = function
        self.raw = raw
        self.inline = inline


def check_method(name: str) -> None:
    """Refuse what is no name of a method.

    Raises:
        ValueError: it is none.
    """
    if not 0 < len(name) <= NAME_LIMIT or not _LETTERS.issuperset(name):
        raise ValueError(f"{name!r} is no name of a method: letters, digits, '_' and '-', 64 at most")


def request_of(frame: wire.Frame, offer: Offer, line: Line) -> Request:
    """Return what a method is asked.

    Raises:
        Malformed: the payload is no JSON, and the method wants some.
    """
    payload = frame.payload if offer.raw else from_bytes(frame.payload)
    span = trace.trace_of(frame.headers) if frame.headers else None
    return Request(frame, payload, Flow(line, frame.id, frame.priority), span)


def answer(request: Request, offer: Offer, log: Log) -> wire.Frame | None:
    """Run a method and return what to answer; None when nobody wants it any more."""
    span, served = trace.current.set(request.trace), trace.serving.set(request)
    try:
        result = offer.function(request)
        if isinstance(result, GeneratorType):
            result = _pour(request, result)
        frame = wire.Frame(wire.ANSWER, request.flow.id, payload=to_bytes(result), priority=request.priority)
    except BusError as error:
        frame = wire.error(request.flow.id, error.code, error.message, request.priority)
    except Exception as error:  # noqa: BLE001 - a method's fault is its caller's answer, not the plugin's end
        log.error("a method failed", method=request.method, error=told(error))  # noqa: TRY400 - it is told
        frame = wire.error(request.flow.id, "Failed", f"{type(error).__name__}: {error}", request.priority)
    finally:
        trace.current.reset(span)
        trace.serving.reset(served)
    return None if request.cancelled else frame


def _pour(request: Request, results: Generator[Any, None, Any]) -> Any:  # noqa: ANN401
    """Send what a method yields as items; collect it for a caller that takes none."""
    if not request.streams:
        return list(results)
    try:
        while True:
            request.send(next(results))
    except StopIteration as end:
        return end.value
    finally:
        results.close()


def handle(frame: wire.Frame, missed: int, handler: Handler, log: Log, *, raw: bool) -> None:
    """Give a message to a handler."""
    token = trace.current.set(trace.trace_of(frame.headers))
    try:
        handler(Message(frame, frame.payload if raw else from_bytes(frame.payload), missed))
    except Exception as error:  # noqa: BLE001 - one message's fault is not the next one's
        log.error("a handler failed", subject=frame.name, error=told(error))  # noqa: TRY400 - it is told
    finally:
        trace.current.reset(token)


def told(error: Exception) -> str:
    """Return an exception with its traceback."""
    import traceback  # noqa: PLC0415 - costs 0.4 MB, and most plugins never need it

    return "".join(traceback.format_exception(error))
