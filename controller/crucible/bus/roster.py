"""Who is on the bus: a seat for every Plugin that the controller told of, and who is connected for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crucible.core.bus import may_call, may_publish, may_subscribe
from crucible.model.bus import HOST, Grants, Member

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from crucible.bus.connection import Connection

SILENT: Final = "it has not offered any method on the bus"
"""Why somebody does not answer of whom nothing else is known."""
ANYWHERE: Final = "*"
"""In the place of namespaces: each that there is."""
_REMEMBERED: Final = 512
"""Answers about permissions that a seat keeps; a client that asks for ever new names gains nothing."""


@dataclass(slots=True, eq=False)
class Seat:
    """One Plugin on the bus, or the host application in one namespace.

    Attributes:
        member: who it is and what it may do now.
        connections: that speak for it, of all its instances.
    """

    member: Member
    connections: list[Connection] = field(default_factory=list)
    _calls: dict[str, bool] = field(default_factory=dict)
    _subjects: dict[str, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The plugin's name: what others see as ``from``."""
        return self.member.plugin

    @property
    def key(self) -> str:
        """Tells senders apart, for fairness."""
        return f"{self.member.namespace}/{self.member.plugin}"

    @property
    def is_host(self) -> bool:
        """It is the host application."""
        return self.member.plugin == HOST

    @property
    def serves(self) -> bool:
        """Somebody is connected who takes calls."""
        return any(one.methods and not one.drains for one in self.connections)

    def become(self, member: Member) -> None:
        """Take what the controller says now."""
        self.member = member
        self._calls.clear()
        self._subjects.clear()

    def may_call(self, name: str) -> bool:
        """Say whether ``plugin.method`` may be called."""
        known = self._calls.get(name)
        if known is None:
            plugin, _, method = name.partition(".")
            known = _remember(self._calls, name, may_call(self.member.grants, plugin, method))
        return known

    def may_publish(self, subject: str) -> bool:
        """Say whether a subject may be published to."""
        known = self._subjects.get(subject)
        if known is None:
            known = _remember(self._subjects, subject, may_publish(self.member.grants, subject))
        return known

    def may_subscribe(self, pattern: str) -> bool:
        """Say whether a pattern may be subscribed to."""
        return may_subscribe(self.member.grants, pattern)


def _host(namespace: str) -> Member:
    return Member(namespace, HOST, HOST, Grants(everything=True))


def _remember(known: dict[str, bool], name: str, answer: bool) -> bool:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[name] = answer
    return answer


class Roster:
    """All seats of this machine.

    Attributes:
        outsiders: where people from outside of the cluster may act, as its host application: namespaces, or
            :data:`ANYWHERE`. None: this is no cluster, and who comes through the host application's door may
            act in each.
    """

    __slots__ = ("_seats", "outsiders")

    def __init__(self) -> None:
        self.outsiders: frozenset[str] | None = None
        self._seats: dict[tuple[str, str], Seat] = {}

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    def find(self, namespace: str, plugin: str) -> Seat | None:
        """Return a plugin's seat; None when there is no such plugin."""
        return self._seats.get((namespace, plugin))

    def host(self, namespace: str) -> Seat:
        """Return the host application's seat in a namespace."""
        member = _host(namespace)
        return self._seats.setdefault(member.key, Seat(member))

    def outsiders_may_not(self, namespace: str, methods: Collection[str] = ()) -> str:
        """Return why a host application may not act in a namespace, or offer methods; empty: it may."""
        if self.outsiders is None:
            return ""
        if self.outsiders.isdisjoint((namespace, ANYWHERE)):
            return f"nobody from outside may act in {namespace}: add it to the chart's bus.callers.namespaces"
        return "who comes from outside of the cluster offers no methods" if methods else ""

    def speaker(self, namespace: str, plugin: str) -> Seat | None:
        """Return who speaks at another replica; None: nobody of that name may."""
        if plugin != HOST:
            return self.find(namespace, plugin)
        if self.outsiders is None or self.outsiders_may_not(namespace):
            return None
        return Seat(_host(namespace))

    def left(self, seat: Seat) -> None:
        """Keep no seat of an outsider on which nobody is any more: they name what namespaces they like."""
        if self.outsiders is not None and seat.is_host and not seat.connections:
            self._seats.pop(seat.member.key, None)

    def update(self, members: Iterable[Member]) -> tuple[list[Seat], list[Seat]]:
        """Take the whole list of Plugins.

        Returns:
            The seats whose grants changed, and those that are no more: their Plugin is gone, or another
            object has its name now.
        """
        wanted = {member.key: member for member in members}
        gone = [seat for key, seat in self._seats.items() if not seat.is_host and key not in wanted]
        for seat in gone:
            del self._seats[seat.member.key]
        changed = []
        for member in wanted.values():
            new, old = self.put(member)
            changed += new
            gone += old
        return changed, gone

    def drop(self, uids: Collection[str]) -> list[Seat]:
        """Forget some Plugins; return their seats."""
        gone = [seat for seat in self if not seat.is_host and seat.member.uid in uids]
        for seat in gone:
            del self._seats[seat.member.key]
        return gone

    def put(self, member: Member) -> tuple[list[Seat], list[Seat]]:
        """Take one Plugin; return as :meth:`update` does."""
        seat = self._seats.get(member.key)
        if seat is None or seat.member.uid != member.uid:
            self._seats[member.key] = Seat(member)
            return [], [] if seat is None else [seat]
        changed = seat.member.grants != member.grants
        seat.become(member)
        return [seat] if changed else [], []
