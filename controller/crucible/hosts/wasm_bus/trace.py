"""W3C trace context: what came with a call or message goes on with what is said meanwhile."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-|\Z)"
)

_STATE: Final = 512
"""Characters of a ``tracestate`` that are passed on: a longer one would leave other headers no room."""


class Trace(NamedTuple):
    """One span of a trace."""

    trace_id: str
    span_id: str
    flags: str
    state: str

    @property
    def parent(self) -> str:
        """What is said of it to whoever does a part of it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def headers(self) -> dict[str, str]:
        """What goes with what is said as part of it."""
        return {"traceparent": self.parent, **({"tracestate": self.state} if self.state else {})}


def trace_of(headers: Mapping[str, str]) -> Trace | None:
    """Return a span below the one that came; None when none came, or nothing that is one."""
    found = _PARENT.match(headers.get("traceparent", ""))
    if found is None:
        return None
    state = headers.get("tracestate", "")
    return Trace(found[1], os.urandom(8).hex(), found[2], state if len(state) <= _STATE else "")
