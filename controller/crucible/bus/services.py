"""What the broker itself answers about itself: ``$bus.…``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.bus.call import Call, Service
    from crucible.bus.calls import Calls


class Plain:
    """A service that answers at once and has no streams."""

    def __init__(self, calls: Calls, answer: Callable[[Call], Frame]) -> None:
        self._calls = calls
        self._answer = answer

    def begin(self, call: Call) -> None:
        """Answer."""
        self._calls.end(call, self._answer(call), told=True)

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:
        """Nothing is sent."""

    def cancelled(self, call: Call) -> None:
        """Nothing is under way."""

    def permits(self, call: Call) -> bool:  # noqa: ARG002 - who is on the bus may ask for this
        """Yes: who is on the bus may ask for this."""
        return True


def ping(call: Call) -> Frame:
    """Return what was sent."""
    return Frame(Kind.ANSWER, call.frame.id, payload=call.frame.payload)


def ready(call: Call) -> Frame:
    """Note that the plugin calls itself ready."""
    return _set_ready(call, ready=True)


def unready(call: Call) -> Frame:
    """Note that it does not any more."""
    return _set_ready(call, ready=False)


def _set_ready(call: Call, *, ready: bool) -> Frame:
    if call.caller is not None:
        call.caller.ready = ready
    return Frame(Kind.ANSWER, call.frame.id)


def services_of(calls: Calls) -> dict[str, Service]:
    """Return what every broker answers."""
    answers = {"$bus.ping": ping, "$bus.ready": ready, "$bus.unready": unready}
    return {name: Plain(calls, answer) for name, answer in answers.items()}
