"""A pod's output, from lines with their times. Pure."""

from __future__ import annotations

from crucible.runtimes.base import LogLine
from crucible.runtimes.kubernetes.reading import unix_time


def log_line(line: bytes) -> LogLine:
    """Read a line as the log endpoint sends it with ``timestamps``: the time, a space, the text."""
    stamp, _, text = line.partition(b" ")
    at = unix_time(_microseconds(stamp.decode(errors="replace")))
    return LogLine(at, text) if at else LogLine(0.0, line)


def _microseconds(stamp: str) -> str:
    """Return a time without its nanoseconds, which Python does not read."""
    whole, dot, fraction = stamp.removesuffix("Z").partition(".")
    return f"{whole}{dot}{fraction[:6].ljust(6, '0') if dot else ''}+00:00"
