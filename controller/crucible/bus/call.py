"""One call on its way, and who may stand at its ends where no connection does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crucible.bus import wire
from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.bus.connection import Connection
    from crucible.bus.queue import Ticket
    from crucible.bus.roster import Seat
    from crucible.bus.wire import Code, Frame


class Patron(Protocol):
    """Who called, when it is not a connection."""

    def item(self, call: Call, frame: Frame) -> None:
        """An item came."""

    def credit(self, call: Call, items: int) -> None:
        """So many more items may be sent."""

    def ended(self, call: Call, frame: Frame) -> None:
        """The ANSWER or ERROR came."""


class Service(Protocol):
    """Who is called, when it is not a connection."""

    def begin(self, call: Call) -> None:
        """Do what is asked; end the call by :meth:`Calls.end`, now or later."""

    def item(self, call: Call, frame: Frame) -> None:
        """An item came."""

    def credit(self, call: Call, items: int) -> None:
        """So many more items may be sent: ``call.down`` in all."""

    def cancelled(self, call: Call) -> None:
        """The call ended otherwise."""

    def permits(self, call: Call) -> bool:
        """Say whether the caller may do this still; asked when what it may do has changed."""


@dataclass(slots=True, eq=False)
class Call:
    """One call on its way.

    Attributes:
        frame: the CALL as it came in.
        method: the name without the plugin's.
        seat: who calls.
        caller: its connection; None when a patron calls.
        patron: who calls otherwise.
        callee: the connection that was chosen; None when a service is called.
        service: who is called otherwise.
        callee_id: the id it has there; 0 while it waits.
        due: when its time is over, in the loop's time.
        watched: by which number that is watched for; 0: it is not.
        ticket: its place while it waits.
        up: items the caller may send now.
        down: items the called may send now.
        granted: credit for the called that came while the call waited.
        open: it has not ended.
    """

    frame: Frame
    method: str
    seat: Seat
    caller: Connection | None
    patron: Patron | None = None
    callee: Connection | None = None
    service: Service | None = None
    callee_id: int = 0
    due: float = math.inf
    watched: int = 0
    ticket: Ticket[Call] | None = None
    up: int = 0
    down: int = 0
    granted: int = 0
    open: bool = True

    @property
    def stream(self) -> bool:
        """Items may go both ways."""
        return bool(self.frame.flags & wire.STREAM)


class Refused(CrucibleError):
    """A service does not do what is asked; the code, why, and headers for the caller."""

    def __init__(self, code: Code, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}


def called_by_name(call: Call) -> str:
    """Return who is called, for fairness and for people."""
    callee = call.callee
    return call.frame.name.partition(".")[0] if callee is None or callee.seat is None else callee.seat.key
