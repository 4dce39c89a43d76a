"""The plugin's log: one line of JSON each on its standard output, where ``crucible logs`` finds it."""

from __future__ import annotations

import json
import os
import time

from crucible_plugin import trace

LEVELS = ("debug", "info", "warning", "error")
_STDOUT = 1


class Log:
    """Writes lines. Any thread may.

    A line has ``time``, ``level``, ``message``, then the fields that were given; within a call that is traced
    ``trace_id`` and ``span_id`` too. ``CRUCIBLE_LOG_LEVEL`` says from which level on: ``info`` unless set.
    """

    def __init__(self, level: str = "", descriptor: int = _STDOUT) -> None:
        level = level or os.environ.get("CRUCIBLE_LOG_LEVEL", "info")
        self._least = LEVELS.index(level) if level in LEVELS else 1
        self._descriptor = descriptor

    def debug(self, message: str, **fields: object) -> None:
        """Say what only its author wants to know."""
        self._write(0, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Say what happened."""
        self._write(1, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Say what may need somebody."""
        self._write(2, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """Say what went wrong."""
        self._write(3, message, fields)

    def _write(self, level: int, message: str, fields: dict[str, object]) -> None:
        if level < self._least:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(now % 1 * 1000):03d}Z",
            "level": LEVELS[level],
            "message": message,
        }
        span = trace.current.get()
        if span is not None:
            line |= {"trace_id": span.trace_id, "span_id": span.span_id}
        text = json.dumps(line | fields, default=str, ensure_ascii=False) + "\n"
        data = text.encode(errors="replace")
        while data:  # one write, so that lines of several threads stay apart, as long as the pipe takes it
            data = data[os.write(self._descriptor, data) :]
