"""The door by which brokers of other machines come: the controller binds it, for a confined broker cannot."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from crucible.errors import Unavailable
from crucible.model.backbone import LINES
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from crucible.model.backbone import Joining

_QUEUE: Final = 32


class LineDoor:
    """Where this machine lets others in, as its settings say; shut until then."""

    def __init__(self) -> None:
        self.problem = ""
        """Why nobody can come by it though somebody may; empty: it is open, or shut on purpose."""
        self._at: tuple[str, int] | None = None

    def move(self, joining: Joining | None) -> bool:
        """Be where the settings say now; True when that is another place."""
        before, self._at = self._at, None
        self.problem = ""
        if joining is not None and joining.meeting is not None and joining.listen:
            self._at = (joining.listen, joining.meeting.port)
        return before != self._at

    def doorways(self) -> tuple[Doorway, ...]:
        """Return the door; none while it is shut. One at another address is another door."""
        if self._at is None:
            return ()
        host, port = self._at
        return (Doorway(Door.BUS, "", LINES, LINES, f"{host}:{port}"),)

    def listeners(self) -> tuple[socket.socket, ...]:
        """Return its listening socket, bound anew: the broker that had it is gone.

        Raises:
            Unavailable: the address is not this machine's, or taken.
        """
        if self._at is None:
            return ()
        host, port = self._at
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            opened = socket.create_server((host, port), family=family, backlog=_QUEUE)
        except OSError as error:
            where = f"[{host}]" if ":" in host else host
            self.problem = (
                f"other machines cannot come directly to {where}:{port} ({error.strerror or error}): "
                "say another address with lines in the backbone's settings"
            )
            raise Unavailable(self.problem) from error
        self.problem = ""
        return (opened,)
