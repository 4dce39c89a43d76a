"""What work belongs to, carried from plugin to plugin: W3C trace context, and the time that is left."""

from __future__ import annotations

import os
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible_plugin.calls import Asked

_PARTS = 4
_LENGTHS = (2, 32, 16, 2)
_STATE = 512
"""Characters of a ``tracestate`` that are passed on: a longer one would leave other headers no room."""


class Trace:
    """One span of a trace.

    Attributes:
        trace_id: 32 hex digits, the same in all plugins that take part.
        span_id: 16 hex digits, this piece of work.
        flags: two hex digits; ``01``: recorded.
        state: vendors' own, passed on as it came; empty where that was long.
    """

    __slots__ = ("flags", "span_id", "state", "trace_id")

    def __init__(self, trace_id: str, span_id: str, flags: str = "01", state: str = "") -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.state = state

    @property
    def headers(self) -> dict[str, str]:
        """What goes with a call that is made as part of it."""
        said = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.flags}"}
        if self.state:
            said["tracestate"] = self.state
        return said


current: ContextVar[Trace | None] = ContextVar("crucible_trace", default=None)
serving: ContextVar[Asked | None] = ContextVar("crucible_request", default=None)
"""The call that is being served; None outside of one."""


def fresh() -> Trace:
    """Begin a trace."""
    return Trace(os.urandom(16).hex(), os.urandom(8).hex())


def trace_of(headers: Mapping[str, str]) -> Trace | None:
    """Return a span below the one that came with a call; None when none came, or nothing that is one."""
    parent = headers.get("traceparent")
    if parent is None:
        return None
    parts = parent.split("-")
    if len(parts) < _PARTS or parts[0] == "ff" or not all(map(_is_hex, parts, _LENGTHS)):
        return None
    trace_id, span_id = parts[1:3]
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    state = headers.get("tracestate", "")
    return Trace(trace_id, os.urandom(8).hex(), parts[3], state if len(state) <= _STATE else "")


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not text.strip("0123456789abcdef")
