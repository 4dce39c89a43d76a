"""What both kinds of clients have in common, whether threads wait for answers or tasks."""

from __future__ import annotations

from _thread import allocate_lock

from crucible_plugin import trace, wire
from crucible_plugin.errors import Unavailable
from crucible_plugin.logs import Log
from crucible_plugin.surroundings import Surroundings

PRIORITIES = ("critical", "high", "normal", "low")
DEFAULT_TIME = 30.0
"""Seconds for a call that says nothing else."""
PATIENCE = 10.0
"""Seconds in which the broker should be there at the start."""
GRACE = 1.0
"""Seconds by which the broker may be late with its word that a call is."""
_GONE = b"the bus went away; it is not known whether the call was done"


class Speaker:
    """Makes frames, and says what no call waits for.

    Attributes:
        log: lines of JSON.
        surroundings: names that the sandbox told.
    """

    def __init__(self) -> None:
        self.surroundings = Surroundings()
        self.log = Log()
        self._last_id = -1
        self._counting = allocate_lock()
        self._refused: set[str] = set()

    def _id(self) -> int:
        with self._counting:
            self._last_id = (self._last_id + 2) & 0xFFFFFFFF
            return self._last_id

    def _call_frame(  # noqa: PLR0913 - one call has so many sides
        self,
        name: str,
        payload: bytes,
        headers: dict[str, str],
        *,
        left: float | None,
        priority: str | None = None,
        flags: int = 0,
    ) -> wire.Frame:
        """Return the CALL; ``left``: seconds, None: any number of them."""
        urgency = wire.NORMAL if priority is None else PRIORITIES.index(priority)
        time = 0 if left is None else min(max(int(left * 1000), 1), wire.LONGEST_DEADLINE)
        return wire.Frame(wire.CALL, self._id(), name, payload, traced(headers), urgency, time, flags)

    def _patience(self) -> float:
        """Return for how many seconds to try to connect.

        Raises:
            Unavailable: there is no bus.
        """
        if not self.surroundings.bus:
            raise Unavailable("this plugin has no bus: grant it something under capabilities.bus")
        return PATIENCE if self._last_id < 0 else 0

    def _told(self, frame: wire.Frame) -> None:
        """Log an error that no call waits for; a refused subject once. What was given up is no error."""
        if frame.kind != wire.ERROR or (frame.id and frame.name == "Cancelled"):
            return
        subject = frame.headers.get("subject", "")
        if not subject or subject not in self._refused:
            self._refused.add(subject)
            why = frame.payload.decode(errors="replace")
            self.log.warning("refused", code=frame.name, why=why, subject=subject)


def gone(ident: int) -> wire.Frame:
    """Return what ends a call when the connection does."""
    return wire.Frame(wire.ERROR, ident, "Unavailable", _GONE)


def traced(headers: dict[str, str]) -> dict[str, str]:
    """Return what goes with what is said as part of the current work."""
    span = trace.current.get()
    return headers if span is None else {**span.headers, **headers}
