"""What may go between this broker and others on the backbone.

Other *machines* are strangers: they may what people share here, and their plugins are shown as
``PLUGIN@MACHINE``. Other *replicas* of this broker serve the same plugins of one cluster: each knows every
manifest, so each judges by it, and a plugin is the same whichever replica it is connected to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from crucible.bus.roster import SILENT, Seat
from crucible.core import backbone
from crucible.model.bus import Grants, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.bus.roster import Roster
    from crucible.model.backbone import Share

CALLERS_LIMIT: Final = 512
"""Plugins of one machine that call here and are remembered, by the names it gives them."""


class Stranger(Seat):
    """A plugin of another machine; all of one machine have one share of what is fair."""

    __slots__ = ()

    @property
    def key(self) -> str:
        """Tells senders apart, for fairness."""
        return f"@{self.name.partition('@')[2]}"


Callers = dict[tuple[str, str], Seat]
"""Who of one other broker has called here."""


class Terms(Protocol):
    """How to deal with other brokers."""

    kindred: bool
    """They are replicas of this one."""
    copies: int
    """Servers that keep each durable event whose stream is ours to make; 0: it is somebody else's."""

    def meets(self, machine: str) -> bool:
        """Say whether we have anything to do with one."""

    def joins(self, namespace: str, machine: str) -> bool:
        """Say whether a namespace has anything to do with one."""

    def keeps(self, namespace: str) -> str:
        """Return why a namespace has no durable events; empty where it has."""

    def heard(self, machine: str) -> tuple[str, ...]:
        """Return what we, who are called so, subscribe to."""

    def tells(self, namespace: str) -> bool:
        """Say whether others hear what is published in a namespace here."""

    def offered(self, seat: Seat, machine: str) -> str | None:
        """Return why a plugin here would not answer one, empty when it would; None: it is not for it."""

    def may_enter(self, machine: str, what: backbone.Called) -> bool:
        """Say whether a call may come in."""

    def caller(self, callers: Callers, machine: str, what: backbone.Called) -> Seat | None:
        """Return who calls; None: nobody of that name is known."""

    def may_tell(self, event: backbone.Event) -> bool:
        """Say whether what was published there may be told here."""

    def called(self, plugin: str, machine: str) -> str:
        """Return what a plugin of another broker is called here."""


class Shares:
    """The terms with other machines: what people share, by namespace."""

    kindred = False
    copies = 0

    def __init__(self, shares: Mapping[str, Share]) -> None:
        self._shares = shares

    def meets(self, machine: str) -> bool:
        """Say whether any namespace is shared with it."""
        return any(backbone.joins(share, machine) for share in self._shares.values())

    def joins(self, namespace: str, machine: str) -> bool:
        """Say whether this one is."""
        return backbone.joins(self._shares.get(namespace), machine)

    def keeps(self, namespace: str) -> str:
        """Return why not: what is shared with nobody is kept all the same, if it is named."""
        if namespace in self._shares:
            return ""
        return f"the backbone's settings name no namespace {namespace} under share"

    def heard(self, machine: str) -> tuple[str, ...]:
        """Return the subjects of the namespaces that are shared."""
        return backbone.heard(machine, self._shares)

    def tells(self, namespace: str) -> bool:
        """Say whether it is shared with anybody."""
        share = self._shares.get(namespace)
        return share is not None and bool(share.machines)

    def offered(self, seat: Seat, machine: str) -> str | None:
        """Return it for plugins of which something may be called."""
        namespace, plugin = seat.member.key
        share = self._shares.get(namespace)
        if share is None or not backbone.joins(share, machine) or not backbone.offers(share, plugin):
            return None
        return "" if seat.serves else seat.member.state or SILENT

    def may_enter(self, machine: str, what: backbone.Called) -> bool:
        """Say whether the method is shared: the other's word for who calls is nothing to go by."""
        share = self._shares.get(what.namespace)
        return backbone.may_enter(share, machine, what.plugin, what.method)

    def caller(self, callers: Callers, machine: str, what: backbone.Called) -> Seat | None:
        """Return a stranger, who may nothing else. Plugins come and go: of too many all are made anew."""
        key = (what.namespace, what.caller)
        seat = callers.get(key)
        if seat is None:
            if len(callers) >= CALLERS_LIMIT:
                callers.clear()
            name = backbone.stranger(what.caller, machine)
            seat = callers[key] = Stranger(Member(what.namespace, name, name, Grants()))
        return seat

    def may_tell(self, event: backbone.Event) -> bool:
        """Say whether its machine may publish to that subject here."""
        return backbone.may_tell(self._shares.get(event.namespace), event.machine, event.subject)

    def called(self, plugin: str, machine: str) -> str:
        """Return a name that no plugin of this machine has."""
        return backbone.stranger(plugin, machine)


class Kindred:
    """The terms among replicas: each manifest, which every one of them knows."""

    kindred = True

    def __init__(self, roster: Roster, copies: int = 1) -> None:
        self.copies = copies
        self._roster = roster

    def meets(self, machine: str) -> bool:  # noqa: ARG002 - the server lets in none but replicas
        """Yes, with each."""
        return True

    def joins(self, namespace: str, machine: str) -> bool:  # noqa: ARG002 - the same
        """Yes, each."""
        return True

    def keeps(self, namespace: str) -> str:  # noqa: ARG002 - the same
        """Return nothing: each namespace has."""
        return ""

    def heard(self, machine: str) -> tuple[str, ...]:
        """Return the subjects of all namespaces."""
        return backbone.heard(machine, ("*",))

    def tells(self, namespace: str) -> bool:  # noqa: ARG002 - the same
        """Yes: subscribers may be connected anywhere."""
        return True

    def offered(self, seat: Seat, machine: str) -> str | None:  # noqa: ARG002 - the same
        """Return it for plugins that are connected here; why others do not answer every replica knows."""
        return "" if seat.serves else None

    def may_enter(self, machine: str, what: backbone.Called) -> bool:  # noqa: ARG002 - the same
        """Say whether the caller's manifest, as it is known here, grants the call."""
        seat = self._roster.speaker(what.namespace, what.caller)
        return seat is not None and seat.may_call(what.name)

    def caller(self, callers: Callers, machine: str, what: backbone.Called) -> Seat | None:  # noqa: ARG002
        """Return its very seat: to whom it calls it makes no difference where it is connected."""
        return self._roster.speaker(what.namespace, what.caller)

    def may_tell(self, event: backbone.Event) -> bool:
        """Say whether the publisher's manifest grants it."""
        seat = self._roster.speaker(event.namespace, event.plugin)
        return seat is not None and seat.may_publish(event.subject)

    def called(self, plugin: str, machine: str) -> str:  # noqa: ARG002 - the same
        """Return its own name."""
        return plugin
