"""What one message costs the broker, however many listen and do not read."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from crucible.bus.ledger import Fault, Ledger
from crucible.bus.messages import Messages
from crucible.bus.topics import Subscription
from crucible.bus.wire import Frame, Kind


@dataclass
class Listener:
    """A connection with room for so many messages."""

    room: int
    drains: bool = False
    seat: Any = field(default_factory=lambda: SimpleNamespace(name="listener"))
    sent: list[bytes] = field(default_factory=list)
    asked: int = 0

    def has_room(self, size: int, sender: str) -> bool:
        self.asked += 1
        return len(self.sent) < self.room

    def send_bytes(self, data: bytes, priority: int, sender: str) -> bool:
        assert len(self.sent) < self.room, "a copy was made for one that has no room"
        self.sent.append(data)
        return True


def test_no_copy_is_made_for_who_has_no_room() -> None:
    ledger = Ledger(lambda: 0.0)
    messages, listener = Messages(ledger), Listener(room=3)
    subscriptions = [Subscription(listener, 2 * number + 1, "here", "a") for number in range(256)]
    for one in subscriptions:
        messages.topics.add(one)
    assert messages.deliver("here", "loud", Frame(Kind.PUBLISH, 0, "a", b"x" * 1000)) == 3
    assert (len(listener.sent), listener.asked) == (3, 256)
    assert sum(one.missed for one in subscriptions) == 253
    assert ledger.of("here", "listener").faults[Fault.MISSED] == 253
