"""The program's log: one line of JSON each on its standard output, where ``crucible logs`` finds it."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .trace import Trace

LEVELS: Final = ("debug", "info", "warning", "error")
_STDOUT: Final = 1


class Log:
    """Writes lines from a level on: ``CRUCIBLE_LOG_LEVEL``, ``info`` unless set."""

    def __init__(self, level: str = "info", descriptor: int = _STDOUT) -> None:
        self._least = LEVELS.index(level) if level in LEVELS else 1
        self._descriptor = descriptor

    def write(self, level: int, message: str, fields: Mapping[str, object], trace: Trace | None) -> None:
        """Write a line: time, level, message, the ids of the trace if there is one, and the fields."""
        if level < self._least:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = {"time": f"{stamp}.{int(now % 1 * 1000):03d}Z", "level": LEVELS[level], "message": message}
        if trace is not None:
            line |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
        data = (json.dumps({**line, **fields}, ensure_ascii=False) + "\n").encode(errors="replace")
        while data:
            data = data[os.write(self._descriptor, data) :]
