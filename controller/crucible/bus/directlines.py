"""The direct lines of this machine: who is let in, who is dialled, and that there is one for each machine.

Machines know of each other through the server, which proves their names. So a line is believed when the name
in its first frame is a machine that is on the backbone just now, when the certificate that TLS verified is
made out to what that machine said of itself there, and when both mean the same stay. Without a line, or when
one has fallen, calls go through the server.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible.bus import credentials, news
from crucible.bus.directline import GREETING, DirectLine
from crucible.bus.doors import Pace
from crucible.bus.ledger import Fault
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind
from crucible.core.meeting import address_of, shows
from crucible.errors import Unavailable
from crucible.model.backbone import Meeting

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Mapping, Sequence

    from crucible.bus.ledger import Ledger
    from crucible.bus.peer import Peer
    from crucible.bus.room import Room
    from crucible.bus.turns import Turns
    from crucible.model.backbone import Joining

TURN: Final = 3.0
"""Seconds for which the machine whose name comes later waits for the other, where both can be dialled."""
_RETRY_FIRST: Final = 0.1
_RETRY_LONGEST: Final = 30.0
_CALM: Final = 10.0
"""Seconds that a line has to stand for the next one to be dialled at once."""
_COMING: Final = 64
"""Lines that may be on their way in at once; nobody knows whose they are."""
_COMING_OF_ONE: Final = 8
"""Of one address."""
_REST: Final = 0.25
_GOODBYE: Final = 2.0
_SCRATCH: Final = 64 * 1024
_TOLD: Final = 300

log = logging.getLogger(__name__)


class Ground(Protocol):
    """The backbone, as lines see it."""

    @property
    def machine(self) -> str:
        """Who we are."""

    @property
    def epoch(self) -> str:
        """Our word for this stay; empty: we are not there."""

    def met(self, machine: str) -> Peer | None:
        """Return a machine that we have to do with and that is there; None: there is no such."""

    def news(self) -> None:
        """What others may know of us has changed."""


class DirectLines:
    """All direct lines.

    Attributes:
        why: by machine, why there is no line to it although it was dialled, for people.
    """

    def __init__(self, ground: Ground, ledger: Ledger, turns: Turns, room: Room, inbound: Room) -> None:
        self.turns, self.room, self.inbound = turns, room, inbound
        self.scratch = memoryview(bytearray(_SCRATCH))
        self.why: dict[str, str] = {}
        self._ground = ground
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._joining: Joining | None = None
        self._client: ssl.SSLContext | None = None
        self._server: ssl.SSLContext | None = None
        self._listeners: list[socket.socket] = []
        self._rest: asyncio.TimerHandle | None = None
        self._pace = Pace()
        self._coming: dict[DirectLine, str] = {}
        self._standing: dict[str, DirectLine] = {}
        self._dialled: dict[str, DirectLine] = {}
        self._keeping: dict[str, tuple[tuple[str, Meeting], asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # What the controller says.

    def become(self, joining: Joining | None) -> None:
        """Be met as is said; certificates count from the next line on, and none is cut for them."""
        before, self._joining = self._joining, joining
        if joining is None or joining.meeting is None:
            self._client = self._server = None
            return
        if before is not None and _papers(before) == _papers(joining) and self._client is not None:
            return
        try:
            self._client, self._server = credentials.dialling(joining), credentials.meeting(joining)
        except Unavailable as error:
            self._client = self._server = None
            log.warning("no direct lines: %s", error)

    def listen(self, listeners: Sequence[socket.socket]) -> None:
        """Let in who comes to these sockets instead of any before; those who are in stay."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        for one in self._listeners:
            self._loop.remove_reader(one)
            one.close()
        self._listeners = list(listeners)
        for one in self._listeners:
            one.setblocking(False)
            self._loop.add_reader(one, self._accept, one)
        self._ground.news()

    # What the backbone says.

    @property
    def meeting(self) -> Meeting | None:
        """How we can be met, as others are told."""
        joining = self._joining
        if joining is None or joining.meeting is None or self._client is None:
            return None
        said = joining.meeting
        return Meeting(said.identity, said.host, said.port if self._listeners else 0)

    @property
    def shut(self) -> bool:
        """Others are to come to this machine directly, and cannot: its port could not be bound."""
        joining = self._joining
        meant = joining is not None and joining.meeting is not None and joining.meeting.port > 0
        return meant and joining is not None and bool(joining.listen) and not self._listeners

    def look(self, peer: Peer) -> None:
        """See to it that there is a line to a machine, if it can be met and is not to come itself."""
        ours, theirs = self.meeting, peer.meeting
        if ours is None or theirs is None or self._joining is None:
            self.part(peer, "it is not to be met directly any more")
            return
        address = address_of(theirs, self._joining.host, self._joining.listen)
        kept = self._keeping.get(peer.name)
        if kept is not None and kept[0] == (address, theirs) and not kept[1].done():
            return
        self._give_up(peer.name)
        if address is not None:
            waits = TURN if ours.port and peer.name < self._ground.machine else 0.0
            task = self._loop.create_task(self._keep(peer, address, theirs, waits))
            self._keeping[peer.name] = ((address, theirs), task)
            task.add_done_callback(partial(self._kept, peer.name))

    def part(self, peer: Peer, why: str) -> None:
        """Have no line to a machine any more: it is gone, or we have nothing to do with it."""
        self._give_up(peer.name)
        self.why.pop(peer.name, None)
        line = self._standing.get(peer.name)
        if line is not None:
            line.close(why)

    def _give_up(self, machine: str) -> None:
        kept = self._keeping.pop(machine, None)
        if kept is not None:
            kept[1].cancel()
        line = self._dialled.pop(machine, None)
        if line is not None:
            line.close("it is not wanted any more")

    def _kept(self, machine: str, task: asyncio.Task[None]) -> None:
        """Begin anew what nobody foresaw the end of; what was cancelled has ended as it should."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        log.error("the direct line to %s is not kept any more", machine, exc_info=error)
        self.why[machine] = f"it failed: {error}"[:_TOLD]
        self._loop.call_later(_RETRY_LONGEST, self._look_again, machine)

    def _look_again(self, machine: str) -> None:
        kept, peer = self._keeping.get(machine), self._ground.met(machine)
        if kept is not None and kept[1].done() and peer is not None:
            self.look(peer)

    # Dialling.

    async def _keep(self, peer: Peer, address: str, meeting: Meeting, waits: float) -> None:
        """Keep a line to a machine, until cancelled."""
        await asyncio.sleep(waits)
        pause = _RETRY_FIRST
        while True:
            standing = self._standing.get(peer.name)
            if standing is None:
                await self._dial(peer, address, meeting)
                standing = self._standing.get(peer.name)
            began = self._loop.time()
            if standing is not None:
                await asyncio.wait({standing.lost})
            pause = min(pause * 2, _RETRY_LONGEST) if self._loop.time() - began < _CALM else _RETRY_FIRST
            await asyncio.sleep(pause)

    async def _dial(self, peer: Peer, address: str, meeting: Meeting) -> None:
        """Dial a machine once."""
        line = DirectLine(self, peer.name)
        self._dialled[peer.name] = line
        try:
            async with asyncio.timeout(GREETING):
                await self._loop.create_connection(
                    lambda: line,
                    address,
                    meeting.port,
                    ssl=self._client,
                    ssl_shutdown_timeout=_GOODBYE,
                )
            either: set[asyncio.Future[Any]] = {line.stood, line.lost}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            why = line.lost.result() if line.lost.done() else ""
        except (OSError, TimeoutError, UnicodeError) as error:
            why = str(error) or "no answer"
        finally:
            if self._dialled.get(peer.name) is line:
                del self._dialled[peer.name]
            if not line.stood.done():
                line.close("it is not wanted any more")
        if why and self.why.get(peer.name) != why:
            self.why[peer.name] = why
            log.info("no direct line to %s at %s:%d: %s", peer.name, address, meeting.port, why)

    # Letting in.

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, place = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.warning("no machine can come: %s", error)
            self._pause()
            return
        host = str(place[0])
        of_one = sum(one == host for one in self._coming.values())
        if (
            self._server is None
            or len(self._coming) >= _COMING
            or of_one >= _COMING_OF_ONE
            or not self._pace.allows(self._loop.time())
        ):
            client.close()
            return
        client.setblocking(False)
        line = DirectLine(self)
        self._coming[line] = host
        task = self._loop.create_task(self._admit(client, line, self._server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pause(self) -> None:
        """Look at nobody for a moment: no descriptor is free."""
        for one in self._listeners:
            self._loop.remove_reader(one)
        self._rest = self._loop.call_later(_REST, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        for one in self._listeners:
            self._loop.add_reader(one, self._accept, one)

    async def _admit(self, client: socket.socket, line: DirectLine, tls: ssl.SSLContext) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: line, client, ssl=tls, ssl_handshake_timeout=GREETING, ssl_shutdown_timeout=_GOODBYE
            )
        except OSError as error:  # of which ssl.SSLError is one
            client.close()
            self._complain(line, f"no TLS: {error}")
            line.close("no TLS")

    # What lines say.

    def begun(self, line: DirectLine) -> None:
        """TLS stands: who dialled speaks first."""
        if not line.machine:
            return
        peer = self._ground.met(line.machine)
        if peer is None or peer.meeting is None or not shows(line.certificate, peer.meeting.identity):
            line.close("it is another machine that answers there")
        elif line.machine in self._standing:
            line.close("it came itself meanwhile")
        else:
            said = news.Hello(self._ground.machine, line.machine, self._ground.epoch, peer.epoch)
            line.say(news.hello(said))

    def introduced(self, line: DirectLine, frame: Frame) -> None:
        """The first frame came: of who dialled, or the answer to ours."""
        if not line.machine:
            self._came(line, news.hello_of(frame))
            return
        peer = self._ground.met(line.machine)
        if peer is None:
            line.close("it is not on the backbone any more")
        elif frame.kind == Kind.WELCOME:
            self._stands(line, peer)
        elif frame.kind == Kind.ERROR:
            line.close(f"it says: {frame.payload[:200].decode(errors='replace')!r}")
        else:
            raise BrokenFrame(Code.MALFORMED, "the first frame is no WELCOME")

    def _came(self, line: DirectLine, said: news.Hello) -> None:
        """Somebody dialled us: who that is has to be beyond doubt."""
        peer, dialled = self._ground.met(said.sender), self._dialled.get(said.sender)
        if said.receiver != self._ground.machine:
            self._refuse(line, f"this is not {said.receiver[:40]!r}")
        elif peer is None or peer.meeting is None or not shows(line.certificate, peer.meeting.identity):
            self._refuse(line, "the certificate is of nobody who is known here by this name")
        elif (said.epoch, said.known) != (peer.epoch, self._ground.epoch):
            line.refuse(Code.UNAVAILABLE, "we do not know of each other's stay on the backbone yet")
        elif dialled is not None and dialled.speaks and self._ground.machine < said.sender:
            line.refuse(Code.UNAVAILABLE, "it is dialled from here just now")
        else:
            line.say(Frame(Kind.WELCOME, payload=b"{}"))
            self._stands(line, peer)

    def _stands(self, line: DirectLine, peer: Peer) -> None:
        self._coming.pop(line, None)
        before = self._standing.get(peer.name)
        if before is not None:  # who says that it has no line to us is believed: that one is dead
            before.close("another took its place")
        dialled = self._dialled.get(peer.name)
        if dialled is not None and dialled is not line:
            dialled.close("it came itself meanwhile")
        line.stand(peer)
        self._standing[peer.name] = line
        self.why.pop(peer.name, None)
        log.info("a direct line to %s stands", peer.name)

    def broken(self, line: DirectLine, error: BrokenFrame) -> None:
        """It broke the rules: it ends, and what comes through the server is judged by itself."""
        self._complain(line, str(error))
        line.refuse(error.code, str(error))

    def over(self, line: DirectLine, why: str) -> None:
        """It has ended."""
        self._coming.pop(line, None)
        if line.exchange is None:
            return
        if self._standing.get(line.machine) is line:
            del self._standing[line.machine]
            self.why[line.machine] = why
            log.info("the direct line to %s fell: %s", line.machine, why)
        line.exchange.fall(why)

    def _refuse(self, line: DirectLine, why: str) -> None:
        self._complain(line, why)
        line.refuse(Code.NOT_PERMITTED, why)

    def _complain(self, line: DirectLine, why: str) -> None:
        who = f"@{line.machine}" if line.machine else "@"
        place = self._coming.get(line)
        self._ledger.fault("", who, Fault.MALFORMED, f"{place}: {why}" if place else why)


def _papers(joining: Joining) -> Mapping[str, str]:
    return {name: getattr(joining, name) for name in ("authority", "certificate", "key")}
