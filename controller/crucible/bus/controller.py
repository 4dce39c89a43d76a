"""What a controller asks of a broker, whichever way it comes: the companion's link, or a cluster's line.

Words, and the answers::

    {"event": {…}, "namespace": "…", "subject": "…"}   to be published; answered with {}
    {"call": "uid/0-1/bus", "method": "$ping", "payload": "…", "milliseconds": 1000}
                                                       {"code": "", "text": "…"}
    {"open": ["uid/0-1/bus", …]}                       {"open": {"uid/0-1/bus": 0}}
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import wire
from crucible.bus.roster import Seat
from crucible.bus.wire import Code, Frame, Kind
from crucible.model.bus import CONTROLLER, Grants, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.bus.broker import Broker
    from crucible.bus.call import Call

_TOLD: Final = 4096


async def answer(broker: Broker, words: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Do what a controller says; None: these words mean nothing here."""
    match words:
        case {"event": dict(event), "namespace": str(namespace), "subject": str(subject)}:
            payload = json.dumps(event, separators=(",", ":")).encode()
            frame = Frame(Kind.PUBLISH, 0, subject, payload, priority=wire.Priority.HIGH)
            broker.messages.deliver(namespace, CONTROLLER, frame)
            return {}
        case {"call": str(key), "method": str(), "payload": str(), "milliseconds": int()}:
            return await _call(broker, key, words)
        case {"open": list(keys)}:
            return {"open": {key: broker.open_calls(key) for key in map(str, keys)}}
        case _:
            return None


async def _call(broker: Broker, key: str, words: Mapping[str, Any]) -> Mapping[str, Any]:
    """Call a method of the plugin behind a door, on the controller's behalf."""
    connection = broker.through(key)
    if connection is None or connection.seat is None:
        return {"code": Code.UNAVAILABLE.value, "text": "it has not connected to the bus"}
    patron = _Waiting(asyncio.get_running_loop().create_future())
    frame = Frame(
        Kind.CALL,
        name=words["method"],
        payload=words["payload"].encode(),
        priority=wire.Priority.HIGH,
        deadline=max(words["milliseconds"], 1),
    )
    seat = Seat(Member(connection.doorway.namespace, CONTROLLER, CONTROLLER, Grants()))
    broker.calls.ask(connection, seat, frame, patron)
    found = await patron.answer
    code = found.name if found.kind == Kind.ERROR else ""
    return {"code": code, "text": found.payload[:_TOLD].decode(errors="replace")}


class _Waiting:
    """The controller, as it waits for the answer of a plugin."""

    def __init__(self, answer: asyncio.Future[Frame]) -> None:
        self.answer = answer

    def item(self, call: Call, frame: Frame) -> None:
        """No stream was asked for."""

    def credit(self, call: Call, items: int) -> None:
        """No item will be sent."""

    def ended(self, call: Call, frame: Frame) -> None:  # noqa: ARG002 - the call is over
        """Here is the answer."""
        if not self.answer.done():
            self.answer.set_result(frame)
