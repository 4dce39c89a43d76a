"""The backbone, as a broker sees it: other machines, what they have, what goes to them and comes from them.

A call goes to another machine when nobody here answers for the plugin, the namespace is shared with that
machine, and it says that it has the plugin. Both brokers judge it: this one by the manifest of who calls, the
other by what its own people share. A machine is believed in nothing but its name, which the server proves.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import nats, wire
from crucible.bus.credentials import context_of
from crucible.bus.directlines import DirectLines
from crucible.bus.durable import NO_RESPONDERS, Durable
from crucible.bus.ledger import Fault
from crucible.bus.news import STATE_LIMIT, beat, beat_of, event_frame, news, news_of
from crucible.bus.owed import Owed
from crucible.bus.peer import Peer
from crucible.bus.served import ByServer
from crucible.bus.terms import Kindred, Shares
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind
from crucible.core import backbone
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.bus.call import Call
    from crucible.bus.calls import Calls
    from crucible.bus.messages import Messages
    from crucible.bus.nats import Nats
    from crucible.bus.natswire import Message
    from crucible.bus.room import Room
    from crucible.bus.roster import Roster
    from crucible.bus.terms import Terms
    from crucible.bus.turns import Turns
    from crucible.model.backbone import Joining

BEAT: Final = 1.0
"""Seconds between two words that we are there."""
GONE: Final = 8.0
"""Seconds after which a machine that is not heard of has gone."""
DOUBT: Final = 2.0
"""Seconds after which the server is asked whether it is still there."""
NEWS: Final = 0.02
"""Seconds for which changes are gathered before the others are told."""
_RETRY_FIRST: Final = 0.1
_RETRY_LONGEST: Final = 5.0
_PEERS_LIMIT: Final = 256
_TOGETHER: Final = 64
"""Frames that a machine may send as one message; ours send one."""

log = logging.getLogger(__name__)


class Far:
    """Everything beyond this machine. ``keep`` does the work.

    Attributes:
        terms: what may come and go.
        problem: why it is not joined although it should be.
        onlookers: called when the connection is gone.
        durable: events that are kept.
        lines: to machines that can be met without the server.
        epoch: our word for this stay on the backbone; empty: we are not there.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a broker is made of
        self, calls: Calls, messages: Messages, roster: Roster, turns: Turns, room: Room, inbound: Room
    ) -> None:
        self.terms: Terms = Shares({})
        self.problem = ""
        self.onlookers: list[Callable[[], None]] = []
        self.durable = Durable(self, calls, messages)
        self.lines = DirectLines(self, calls.ledger, turns, room, inbound)
        self.epoch = ""
        self._calls = calls
        self._messages = messages
        self._roster = roster
        self._turns = turns
        self._loop = calls.loop
        self._joining: Joining | None = None
        self._changed = asyncio.Event()
        self._nats: Nats | None = None
        self._peers: dict[str, Peer] = {}
        self._version = 0
        self._telling: asyncio.TimerHandle | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._owed = Owed(calls.loop, NEWS, self._pay)
        calls.services.update(self.durable.services())

    @property
    def machine(self) -> str:
        """Who we are on the backbone."""
        return "" if self._joining is None else self._joining.machine

    @property
    def nats(self) -> Nats | None:
        """The connection; None while there is none."""
        return self._nats

    def to_json(self) -> dict[str, Any]:
        """Return who we are there, why we are not, what is refused us, and which other machines are."""
        others = [
            {
                "machine": peer.name,
                "plugins": len(peer.plugins),
                "made": peer.made,
                "served": peer.served,
                "line": peer.line is not None,
                "why": self.lines.why.get(peer.name, ""),
            }
            for peer in sorted(self._peers.values(), key=lambda peer: peer.name)
        ]
        refused = [] if self._nats is None else list(self._nats.refused)
        return {
            "machine": self.machine,
            "problem": self.problem,
            "refused": refused,
            "shut": self.lines.shut,
            "peers": others,
        }

    def met(self, machine: str) -> Peer | None:
        """Return a machine that we have to do with and that is there; None: there is no such."""
        peer = self._peers.get(machine)
        return peer if peer is not None and peer.epoch and self._joined(machine) else None

    # What the controller says.

    def become(self, joining: Joining | None, *, kindred: int = 0) -> None:
        """Join, leave, or go on by other words. New certificates count from the next connection on.

        Args:
            joining: how.
            kindred: all others are replicas of this broker and know the same plugins; so many servers keep a
                durable event. 0: they are machines.
        """
        before, self._joining = self._joining, joining
        shares = () if joining is None else joining.shares
        self.terms = (
            Kindred(self._roster, kindred)
            if kindred
            else Shares({share.namespace: share for share in shares})
        )
        if _place(before) != _place(joining) and self._nats is not None:
            self._nats.close("the settings changed")
        self.lines.become(joining)
        for peer in self._peers.values():
            peer.recheck()
            self._look(peer)
        self.news()
        self._changed.set()

    def _look(self, peer: Peer) -> None:
        """See whether there should be a line to a machine."""
        if self._joined(peer.name):
            self.lines.look(peer)
        else:
            self.lines.part(peer, "nothing is shared with it any more")

    # What goes out: Calls asks for machines, Messages tells of what is published.

    def choose(self, call: Call, plugin: str, code: Code, why: str) -> tuple[Code | None, str]:
        """Find a machine for a call that nobody here answers; else say why there is none.

        Args:
            call: which; it gets the machine as its service.
            plugin: whose method.
            code: why nobody here does.
            why: the same in words.
        """
        namespace = call.seat.member.namespace
        key = (namespace, plugin)
        best: Peer | None = None
        for peer in self._peers.values():
            state = peer.plugins.get(key)
            if state is None or not self.terms.joins(namespace, peer.name):
                continue
            if state and code is Code.NO_SUCH_PLUGIN:
                code, why = Code.UNAVAILABLE, f"{plugin} on {peer.name}: {state}"
            elif not state and (best is None or peer.made < best.made):
                best = peer
        if best is None and self.terms.kindred and self._nats is None and code is Code.UNAVAILABLE:
            return code, f"{why}; other replicas of the broker are not reached: {self.problem}"
        if best is None:
            return code, why
        call.service = best.best
        return None, ""

    def published(self, namespace: str, sender: str, frame: Frame) -> None:
        """Tell others what was published here."""
        if self._nats is None or not self.terms.tells(namespace):
            return
        subject = backbone.say(namespace, self.machine, sender, frame.name)
        try:
            data = wire.encode(frame._replace(id=0))
        except BrokenFrame:
            return  # it went no further than its own machine, as its subscribers there were told
        fits = len(data) <= self._nats.payload_limit
        if not fits or not self._nats.publish(f"{namespace}/{sender}", frame.priority, subject, data):
            self._calls.ledger.fault(namespace, sender, Fault.MISSED, f"{frame.name} for other machines")

    def news(self) -> None:
        """What others may have of us has changed: tell them soon."""
        if self._nats is not None and self._telling is None:
            self._telling = self._loop.call_later(NEWS, self._tell_news)

    def _tell_news(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._telling = None
        self._version += 1
        for peer in self._peers.values():
            self._tell(peer)
            self._look(peer)

    def _tell(self, peer: Peer) -> None:
        """Tell a machine what we have for it, and how we can be met."""
        told = news(self.epoch, self._version, self._offered(peer.name), self.lines.meeting)
        ByServer(self, peer.name).carry("", wire.Priority.HIGH, told)

    def _pay(self, machine: str) -> None:
        """Tell a machine that asked, or that is new."""
        peer = self._peers.get(machine)
        if peer is not None:
            self._tell(peer)

    def _offered(self, machine: str) -> list[tuple[str, str, str]]:
        found = []
        for seat in self._roster:
            state = None if seat.is_host else self.terms.offered(seat, machine)
            if state is not None:
                found.append((*seat.member.key, state[:STATE_LIMIT]))
        return found

    # How it joins, and stays.

    async def keep(self) -> None:
        """Stay joined, for ever."""
        failures = 0
        while True:
            joining = self._joining
            self._changed.clear()
            if joining is None:
                self.problem = ""
                await self._changed.wait()
                continue
            try:
                await self._stay(joining)
                failures = 0
            except (Unavailable, OSError) as error:
                failures += 1
                self.problem = str(error)
                log.warning("the backbone is not reached: %s", error)
                await self._pause(min(_RETRY_FIRST * 2.0**failures, _RETRY_LONGEST))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _stay(self, joining: Joining) -> None:
        """Join, and stay until the connection ends.

        Raises:
            Unavailable: it cannot be joined.
        """
        connection = await nats.connect(
            joining.host, joining.port, context_of(joining), joining.machine, self._heard, turns=self._turns
        )
        try:
            subscribed = set(self.terms.heard(joining.machine))
            known = {subject: connection.subscribe(subject) for subject in subscribed}
            await connection.flush()
            self.epoch, self._nats, self.problem = secrets.token_hex(4), connection, ""
            log.info("joined the backbone at %s:%d as %s", joining.host, joining.port, joining.machine)
            while not connection.lost.done():
                self._beat(connection, known)
                await asyncio.wait({connection.lost}, timeout=BEAT)
        finally:
            connection.close()
            self._left(connection.lost.result())

    def _beat(self, connection: Nats, known: dict[str, int]) -> None:
        """Say that we are there; let go of machines that do not; hear of what is shared now."""
        wanted = self.terms.heard(self.machine)
        for subject in wanted:
            if subject not in known:
                known[subject] = connection.subscribe(subject)
        for subject in set(known) - set(wanted):
            connection.unsubscribe(known.pop(subject))
        said = beat(self.epoch, self._version)
        connection.publish("", wire.Priority.CRITICAL, backbone.here(self.machine), said)
        for peer in list(self._peers.values()):
            silent = self._loop.time() - peer.heard_at
            if silent > GONE:
                self._drop(peer, f"not heard of for {GONE:.0f} s")
            elif silent > DOUBT and peer.name not in self._asking:
                task = self._loop.create_task(self._ask(connection, peer))
                self._asking[peer.name] = task
                task.add_done_callback(partial(self._asked, peer.name))

    async def _ask(self, connection: Nats, peer: Peer) -> None:
        """Let go of a machine of which the server says that it is not there; no answer says nothing."""
        hello = wire.encode(Frame(Kind.HELLO, payload=b"{}"))
        try:
            answer = await connection.request(backbone.to(peer.name, self.machine), hello, BEAT)
        except Unavailable:
            return
        if answer.status == NO_RESPONDERS and self._peers.get(peer.name) is peer:
            self._drop(peer, "it is gone")

    def _asked(self, machine: str, _: object) -> None:
        del self._asking[machine]

    def _drop(self, peer: Peer, why: str) -> None:
        del self._peers[peer.name]
        self._lost(peer, why)

    async def farewell(self) -> None:
        """Tell others that nothing is to be had here any more, before we go."""
        connection = self._nats
        if connection is None:
            return
        self._tell_news()
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(BEAT):
                await connection.flush()

    def _left(self, why: str) -> None:
        log.warning("the backbone is gone: %s", why)
        self._nats, self.epoch, self.problem = None, "", why
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._owed.forget()
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            self._lost(peer, f"the backbone is gone: {why}")
        self.durable.left()
        for onlooker in self.onlookers:
            onlooker()

    def _lost(self, peer: Peer, why: str) -> None:
        """A machine is not there any more, by whatever way."""
        self.lines.part(peer, why)
        peer.server.lost(why)

    # What comes in.

    def _heard(self, message: Message) -> None:
        """Take what somebody published; whoever spoke is who its subject says.

        What the server itself says on somebody's behalf is nothing of ours: it has a status, or is no frame.
        """
        if message.status:
            return
        machine = backbone.speaker_of("to", message.subject, self.machine)
        if machine is not None:
            self._frames(machine, message.payload)
            return
        event = backbone.event_of(message.subject)
        if event is not None:
            self._event(event, message.payload)
            return
        machine = backbone.speaker_of("here", message.subject)
        if machine is not None and self._joined(machine):
            self._beat_of(machine, message.payload)

    def _joined(self, machine: str) -> bool:
        """Say whether we have anything to do with a machine."""
        return machine != self.machine and self.terms.meets(machine)

    def _peer(self, machine: str) -> Peer | None:
        peer = self._peers.get(machine)
        if peer is None and self._joined(machine) and len(self._peers) < _PEERS_LIMIT:
            peer = self._peers[machine] = Peer(machine, self, self._calls, ByServer(self, machine))
        return peer

    def _frames(self, machine: str, payload: bytes) -> None:
        peer = self._peer(machine)
        if peer is None or payload[:1] != b"\0":
            return
        peer.heard_at = self._loop.time()
        try:
            for frame in wire.frames_of(payload, _TOGETHER):
                match frame.kind:
                    case Kind.HELLO:
                        self._owed.note(machine)
                    case Kind.WELCOME:
                        self._told(peer, frame)
                    case _:
                        peer.server.receive(frame)
        except BrokenFrame as error:
            self._calls.ledger.fault("", f"@{machine}", Fault.MALFORMED, str(error))
            peer.server.lost(f"it broke the rules: {error}")

    def _event(self, event: backbone.Event, payload: bytes) -> None:
        """Deliver what was published elsewhere, as far as it may be told here."""
        if event.machine == self.machine:
            return
        if not self.terms.may_tell(event):
            detail = f"publish {event.subject} in {event.namespace}"
            self._calls.ledger.fault("", f"@{event.machine}", Fault.REFUSED, detail)
            return
        frame = event_frame(event, payload)
        if frame is None:
            self._calls.ledger.fault("", f"@{event.machine}", Fault.MALFORMED, f"publish {event.subject}")
            return
        sender = self.terms.called(event.plugin, event.machine)
        key = "" if self.terms.kindred else f"@{event.machine}"
        self._messages.deliver(event.namespace, sender, frame, key)

    def _beat_of(self, machine: str, payload: bytes) -> None:
        epoch, version = beat_of(payload)
        peer = self._peer(machine)
        if peer is None or not epoch:
            return
        peer.heard_at = self._loop.time()
        if peer.epoch != epoch:
            self._meet(peer, epoch)
        if peer.version != version:
            hello = wire.encode(Frame(Kind.HELLO, payload=b"{}"))
            ByServer(self, machine).carry("", wire.Priority.HIGH, hello)

    def _meet(self, peer: Peer, epoch: str) -> None:
        """A machine is new, or back: nobody there knows of earlier calls."""
        if peer.epoch:
            self._lost(peer, "it left the backbone and came back")
        peer.epoch, peer.version, peer.plugins, peer.meeting = epoch, -1, {}, None
        self._owed.note(peer.name)

    def _told(self, peer: Peer, frame: Frame) -> None:
        """Take a machine's word for what it has; where it matters, it is asked again with each call."""
        said = news_of(frame.payload, peer.name)
        if peer.epoch != said.epoch:
            self._meet(peer, said.epoch)
        peer.plugins, peer.version, peer.meeting = said.plugins, said.version, said.meeting
        self._look(peer)


def _place(joining: Joining | None) -> tuple[str, str, int] | None:
    return None if joining is None else (joining.machine, joining.host, joining.port)
