"""One other machine, as long as it is heard of: what it has for us, and the ways that lead to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from crucible.bus.exchange import Exchange
from crucible.bus.terms import CALLERS_LIMIT
from crucible.core import backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.bus.calls import Calls
    from crucible.bus.exchange import Way
    from crucible.bus.roster import Seat
    from crucible.bus.terms import Callers, Terms
    from crucible.model.backbone import Meeting


class Ground(Protocol):
    """What peers stand on."""

    terms: Terms
    """What may come and go."""


class Peer:
    """One other machine. A new call takes the direct line where one stands, and the server's way otherwise.

    Attributes:
        name: of the machine.
        epoch: its word for this stay of it on the backbone; another means that all calls are lost.
        version: of what it said it has.
        plugins: what it has for us: why it would not answer, empty when it would, by namespace and name.
        meeting: where, and as whom, it can be met directly; None: not at all.
        heard_at: when, in the loop's time.
        server: the calls that go through the server.
        line: those that go by the direct line; None while none stands.
    """

    def __init__(self, name: str, ground: Ground, calls: Calls, way: Way) -> None:
        self.name = name
        self.epoch = ""
        self.version = -1
        self.plugins: Mapping[tuple[str, str], str] = {}
        self.meeting: Meeting | None = None
        self.heard_at = calls.loop.time()
        self.server = Exchange(self, way, calls)
        self.line: Exchange | None = None
        self._ground = ground
        self._calls = calls
        self._callers: Callers = {}
        self._entered: dict[str, backbone.Called] = {}

    @property
    def made(self) -> int:
        """Calls to it that are open."""
        return self.server.made + (0 if self.line is None else self.line.made)

    @property
    def served(self) -> int:
        """Calls from it that are open."""
        return self.server.served + (0 if self.line is None else self.line.served)

    @property
    def best(self) -> Exchange:
        """The way that a new call takes."""
        return self.line or self.server

    @property
    def terms(self) -> Terms:
        """What may come and go."""
        return self._ground.terms

    # What may come in, whatever way it comes.

    def called(self, name: str) -> backbone.Called | None:
        """Read the name of a CALL of its; None when it is none."""
        return self._entered.get(name) or backbone.called(name)

    def may_enter(self, name: str, what: backbone.Called) -> bool:
        """Say whether a call may come in; a machine's is remembered until something else is shared."""
        if name in self._entered and not self.terms.kindred:
            return True
        if not self.terms.may_enter(self.name, what):
            return False
        if len(self._entered) >= CALLERS_LIMIT:
            self._entered.clear()
        self._entered[name] = what
        return True

    def why_not(self, what: backbone.Called) -> str:
        """Say why one may not."""
        if self.terms.kindred:
            return f"the manifest of {what.caller} lacks spec.capabilities.bus.call: [{what.name}]"
        return f"the machine that {what.plugin} runs on does not share {what.name} with {self.name}"

    def caller(self, what: backbone.Called) -> Seat | None:
        """Return who calls; None: nobody of that name is known."""
        return self.terms.caller(self._callers, self.name, what)

    # How it goes on, and ends.

    def stands(self, way: Way) -> Exchange:
        """A line stands; what goes through the server already goes on there."""
        self.line = Exchange(self, way, self._calls)
        return self.line

    def falls(self, line: Exchange, why: str) -> None:
        """A line does not stand any more: what went by it is over, and nothing of it is tried again."""
        if self.line is line:
            self.line = None
        line.lost(why)

    def recheck(self) -> None:
        """End what is not shared any more, and judge anew what comes in."""
        self._entered.clear()
        for exchange in (self.server, *([] if self.line is None else [self.line])):
            exchange.recheck()
