"""The operator's line to the broker of a cluster, at the broker's end.

It comes through the same port as plugins, known by its pod's address as they are, and has a seat of its own,
in no namespace. From there it may call one method, ``$controller.ask``, whose words are those of
:mod:`crucible.bus.controller`, and listen to one subject, on which it hears what people should. Nobody else
may either.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import controller
from crucible.bus.wire import Code, Frame, Kind
from crucible.model.bus import CONTROLLER, Grants, Member
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crucible.bus.broker import Broker
    from crucible.bus.call import Call

ASK: Final = "$controller.ask"
NOTICES: Final = "crucible.notices"
_OPERATOR: Final = Member("", CONTROLLER, CONTROLLER, Grants(subscribe=(NOTICES,)))


class Line:
    """What the operator may at this broker, for whoever has its seat. A service of the broker."""

    def __init__(self, broker: Broker) -> None:
        """Give the operator its seat."""
        self._broker = broker
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        broker.know(_OPERATOR)
        broker.calls.services[ASK] = self

    @property
    def held(self) -> bool:
        """An operator is there."""
        seat = self._broker.roster.find(*_OPERATOR.key)
        return seat is not None and bool(seat.connections)

    def tell(self, namespace: str, plugin: str, lines: Iterable[str]) -> None:
        """Tell the operator what people should hear of a plugin; where none listens nobody does."""
        words = {"namespace": namespace, "plugin": plugin, "notices": list(lines)}
        frame = Frame(Kind.PUBLISH, 0, NOTICES, json.dumps(words).encode())
        self._broker.messages.deliver("", CONTROLLER, frame)

    def begin(self, call: Call) -> None:
        """Do what the operator says; only a connection that has its seat is the operator."""
        calls = self._broker.calls
        if call.caller is None or call.seat.member is not _OPERATOR:
            calls.fail(call, Code.NOT_PERMITTED, "this is the operator's alone")
            return
        words = _words(call.frame.payload)
        if words is None:
            calls.fail(call, Code.MALFORMED, "these words mean nothing here")
            return
        task = asyncio.get_running_loop().create_task(self._do(call, words))
        self._tasks[call] = task
        task.add_done_callback(lambda _: self._tasks.pop(call, None))

    async def _do(self, call: Call, words: dict[str, Any]) -> None:
        found = await controller.answer(self._broker, words)
        if found is None:
            self._broker.calls.fail(call, Code.MALFORMED, "these words mean nothing here")
            return
        payload = json.dumps(found, separators=(",", ":")).encode()
        self._broker.calls.end(call, Frame(Kind.ANSWER, call.frame.id, payload=payload), told=True)

    def cancelled(self, call: Call) -> None:
        """Wait for nothing any more."""
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:
        """Nothing is sent."""

    def permits(self, call: Call) -> bool:
        """Yes: nothing ever changes about it."""
        return call.seat.member is _OPERATOR


def operators_way(pod: str) -> Doorway:
    """Return whose a connection from one of the operator's pods is."""
    return Doorway(Door.BUS, "", CONTROLLER, CONTROLLER, pod)


def _words(payload: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
