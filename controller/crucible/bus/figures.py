"""``$bus.figures``: what every plugin did on the bus, what is open, what waits. For the host application."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crucible.bus import wire
from crucible.bus.wire import Code, Frame, Kind
from crucible.companions.link import page_of

if TYPE_CHECKING:
    from crucible.bus.call import Call
    from crucible.bus.ledger import Ledger
    from crucible.bus.roster import Roster, Seat


def figures(call: Call, roster: Roster, ledger: Ledger) -> Frame:
    """Answer with a page of figures, in the order of namespaces and names.

    The header ``namespace`` names another one than the caller's, or ``*`` all where it may act; ``after`` is
    where to go on: ``namespace/plugin``.
    """
    caller, headers = call.seat, call.frame.headers
    if not caller.is_host:
        return wire.error(call.frame.id, Code.NOT_PERMITTED, "figures are for the host application")
    wanted = headers.get("namespace", caller.member.namespace)
    chosen = [
        seat
        for seat in roster
        if not seat.is_host
        and wanted in ("*", seat.member.namespace)
        and not roster.outsiders_may_not(seat.member.namespace)
    ]
    told = [seat for seat in sorted(chosen, key=lambda seat: seat.key) if seat.key > headers.get("after", "")]
    page, more = page_of([_of(seat, ledger) for seat in told], 0)
    payload = json.dumps({"plugins": page, "more": more}, separators=(",", ":")).encode()
    return Frame(Kind.ANSWER, call.frame.id, payload=payload)


def _of(seat: Seat, ledger: Ledger) -> dict[str, Any]:
    member, connections = seat.member, seat.connections
    counted = ledger.of(member.namespace, member.plugin).to_json()
    return {
        "namespace": member.namespace,
        "plugin": member.plugin,
        "connections": len(connections),
        "methods": len({method for one in connections for method in one.methods}),
        "subscriptions": sum(len(one.subscriptions) for one in connections),
        "open": sum(len(one.calls) for one in connections),
        "serving": sum(len(one.given) for one in connections),
        "waiting": sum(one.waiting.count for one in connections),
        "unread": sum(one.unread for one in connections),
        **{name: counted[name] for name in ("calls", "answered", "published", "delivered", "faults")},
    }
