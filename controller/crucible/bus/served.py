"""The way to another machine through the server of the backbone: one subject for each direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crucible.bus import wire
from crucible.core import backbone

if TYPE_CHECKING:
    from crucible.bus.far import Far

_INSIST_LIMIT: Final = 8192


class ByServer:
    """The way to a machine through the server."""

    def __init__(self, far: Far, machine: str) -> None:
        self._far = far
        self._machine = machine

    def carry(self, sender: str, priority: int, data: bytes) -> str:
        """Send frames; return why they do not go, empty when they do."""
        connection = self._far.nats
        if connection is None:
            return "the backbone is not reached"
        if len(data) > connection.payload_limit:
            return f"the backbone takes {connection.payload_limit} bytes at once"
        if not connection.publish(sender, priority, backbone.to(self._machine, self._far.machine), data):
            return "too much waits for the backbone already"
        return ""

    def insist(self, data: bytes) -> None:
        """Send a small frame whatever else waits."""
        if len(data) <= _INSIST_LIMIT:
            self.carry("", wire.Priority.CRITICAL, data)
