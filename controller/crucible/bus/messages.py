"""Publish and subscribe: what is told to whoever listens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from crucible.bus import wire
from crucible.bus.ledger import Fault
from crucible.bus.topics import Subscription, Topics
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind
from crucible.core import subjects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crucible.bus.connection import Connection
    from crucible.bus.ledger import Ledger
    from crucible.bus.roster import Seat

SUBSCRIPTIONS_LIMIT: Final = 256
"""Of one connection."""
_ID_AT: Final = slice(8, 12)


class Far(Protocol):
    """Other machines."""

    def published(self, namespace: str, sender: str, frame: Frame) -> None:
        """Tell them what was published here."""


@dataclass(slots=True)
class Messages:
    """What plugins publish, and to whom it goes."""

    ledger: Ledger
    topics: Topics = field(default_factory=Topics)
    far: Far | None = None

    def publish(self, connection: Connection, seat: Seat, frame: Frame) -> None:
        """Take a PUBLISH from a connection."""
        subject = frame.name
        account = self.ledger.of(seat.member.namespace, seat.name)
        if not subjects.is_subject(subject):
            self._refuse(connection, frame, Code.MALFORMED, f"{subject!r} is no subject")
        elif not seat.may_publish(subject):
            self.ledger.fault(seat.member.namespace, seat.name, Fault.REFUSED, f"publish {subject}")
            why = f"the manifest lacks spec.capabilities.bus.publish: [{subject}]"
            self._refuse(connection, frame, Code.NOT_PERMITTED, why)
        else:
            account.published += 1
            reached = self.deliver(seat.member.namespace, seat.name, frame)
            if self.far is not None:
                self.far.published(seat.member.namespace, seat.name, frame)
            if frame.id:
                headers = {"reached": str(reached)}
                answer = Frame(Kind.ANSWER, frame.id, headers=headers, priority=frame.priority)
                self._tell(connection, answer)

    def deliver(self, namespace: str, sender: str, frame: Frame, key: str = "") -> int:
        """Give a message to everyone here who listens; return how many got it.

        Args:
            namespace: whose subjects.
            sender: who published it, as listeners see it.
            frame: the PUBLISH.
            key: tells senders apart, for fairness; empty: the sender does.
        """
        listeners = self.topics.listeners(namespace, frame.name)
        if not listeners:
            return 0
        message = Frame(
            Kind.MESSAGE, 2, frame.name, frame.payload, {**frame.headers, "from": sender}, frame.priority
        )
        try:
            data = wire.encode(message)
        except BrokenFrame:  # no room left for who sent it
            message = message._replace(headers={"from": sender})
            data = wire.encode(message)
        key = key or f"{namespace}/{sender}"
        return sum(self._hand(listener, message, data, key) for listener in listeners)

    def _hand(self, listener: Subscription, message: Frame, data: bytes, key: str) -> bool:
        connection: Connection = listener.connection
        if connection.drains:
            return False
        if listener.missed:
            headers = {"from": message.headers["from"], "missed": str(listener.missed)}
            data = wire.encode(message._replace(headers=headers))
        ident = listener.id.to_bytes(4, "big")
        seat = connection.seat
        # A copy for each of very many that have no room would keep everybody waiting.
        if connection.has_room(len(data), key) and connection.send_bytes(
            data[: _ID_AT.start] + ident + data[_ID_AT.stop :], message.priority, key
        ):
            listener.missed = 0
            if seat is not None:
                self.ledger.of(listener.namespace, seat.name).delivered += 1
            return True
        listener.missed += 1
        if seat is not None:
            self.ledger.fault(listener.namespace, seat.name, Fault.MISSED, message.name)
        return False

    def subscribe(self, connection: Connection, seat: Seat, frame: Frame) -> None:
        """Take a SUBSCRIBE.

        Raises:
            BrokenFrame: its id is not a new one of a client.
        """
        if not frame.id & 1 or frame.id in connection.subscriptions:
            raise BrokenFrame(Code.MALFORMED, f"id {frame.id} is in use, or not a client's to choose")
        member = seat.member
        if not subjects.is_pattern(frame.name):
            self._refuse(connection, frame, Code.MALFORMED, f"{frame.name!r} is no pattern of subjects")
        elif not seat.may_subscribe(frame.name):
            self.ledger.fault(member.namespace, seat.name, Fault.REFUSED, f"subscribe {frame.name}")
            why = f"the manifest lacks spec.capabilities.bus.subscribe: [{frame.name}]"
            self._refuse(connection, frame, Code.NOT_PERMITTED, why)
        elif len(connection.subscriptions) >= SUBSCRIPTIONS_LIMIT:
            self.ledger.fault(member.namespace, seat.name, Fault.OVERLOADED, f"subscribe {frame.name}")
            why = f"{SUBSCRIPTIONS_LIMIT} subscriptions are open already"
            self._refuse(connection, frame, Code.OVERLOADED, why)
        else:
            subscription = Subscription(connection, frame.id, member.namespace, frame.name)
            connection.subscriptions[frame.id] = subscription
            self.topics.add(subscription)
            self._tell(connection, Frame(Kind.ANSWER, frame.id, priority=frame.priority))

    def unsubscribe(self, connection: Connection, frame: Frame) -> None:
        """Take an UNSUBSCRIBE; of what is not there it means nothing."""
        subscription = connection.subscriptions.pop(frame.id, None)
        if subscription is not None:
            self.topics.remove(subscription)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        for subscription in connection.subscriptions.values():
            self.topics.remove(subscription)
        connection.subscriptions.clear()

    def revoke(self, seat: Seat, connections: Iterable[Connection]) -> None:
        """End the subscriptions that a plugin may not have any more."""
        for connection in connections:
            for ident, subscription in list(connection.subscriptions.items()):
                if not seat.may_subscribe(subscription.pattern):
                    self.unsubscribe(connection, Frame(Kind.UNSUBSCRIBE, ident))
                    why = f"{subscription.pattern} was granted, and is not any more"
                    self._tell(connection, wire.error(ident, Code.NOT_PERMITTED, why))

    def _refuse(self, connection: Connection, frame: Frame, code: Code, why: str) -> None:
        headers = {} if frame.id else {"subject": frame.name}
        self._tell(connection, wire.error(frame.id, code, why, headers)._replace(priority=frame.priority))

    @staticmethod
    def _tell(connection: Connection, frame: Frame) -> None:
        """Send an answer; a client that left no room for it is cut off."""
        if not connection.send(frame, "") and not connection.closing:
            connection.close()
