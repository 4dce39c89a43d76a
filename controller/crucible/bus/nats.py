"""One connection to a NATS server over mutual TLS: what is published on it goes in order of urgency.

TLS begins with the first byte (the server's ``handshake_first``), so nothing at all is said in plain text.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import natswire
from crucible.bus.natswire import Asked, BrokenLine, Info, Message, Parser, Reached, Refusal
from crucible.bus.pipe import Pipe
from crucible.bus.queue import Bounds, FairQueue
from crucible.bus.turns import Turns
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE: Final = 10.0
"""Seconds for the server to let us in."""
ALIVE: Final = 2.0
"""Seconds between two questions whether it is there; one that leaves two unanswered is not."""
REFUSALS: Final = 16
"""Different things that a server refuses and that are remembered."""
_HIGH_WATER: Final = 256 * 1024
_ROOM: Final = 64 * 1024
"""Bytes that are read at once."""
_OUTBOX: Final = Bounds(2048, 4 * 1024 * 1024, 8192, 16 * 1024 * 1024)

log = logging.getLogger(__name__)


class Nats(Pipe):
    """One connection.

    Attributes:
        lost: why it ended; unset while it lasts.
        payload_limit: bytes that the server takes in one message.
        refused: what its permissions do not let us do, in its words, each once.
    """

    def __init__(self, name: str, heard: Callable[[Message], None], turns: Turns) -> None:
        """Prepare; :func:`connect` does the rest.

        Args:
            name: under which the server lists us, and whose answers are ours.
            heard: called with every message but the answers to :meth:`request`.
            turns: when what is said is written.
        """
        super().__init__(turns, FairQueue(_OUTBOX), _HIGH_WATER)
        self.payload_limit = 0
        self.refused: dict[str, None] = {}
        self._name = name
        self._heard = heard
        self._room = memoryview(bytearray(_ROOM))
        self._parser = Parser()
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        self._reached: list[asyncio.Future[None]] = []
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._taken: dict[int, asyncio.Future[Message]] = {}
        self._followers: dict[int, Callable[[Message], None]] = {}
        self._past: set[int] = set()
        """Takes that ended, until the server has said what it says after all that comes for them."""
        self._inbox = f"_INBOX.{name}.{secrets.token_hex(8)}"
        self._number = 0
        self._sid = 0
        self._unanswered = 0
        self._timer: asyncio.TimerHandle | None = None

    # What asyncio calls.

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - its name is asyncio's
        """Return where to put what comes; without it, each record of TLS would be given a new 256 KiB."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """The server said something."""
        self._unanswered = 0
        with self._turns:
            try:
                for said in self._parser.feed(bytes(self._room[:nbytes])):
                    self._take(said)
            except BrokenLine as error:
                self.close(f"the server does not speak NATS: {error}")

    # What others call.

    async def enter(self) -> None:
        """Wait until the server has let us in.

        Raises:
            Unavailable: it does not.
        """
        self._write(natswire.connect(self._name))
        try:
            async with asyncio.timeout(PATIENCE):
                await self._or_lost(self._welcome)
        except TimeoutError:
            self.close("it did not let us in in time")
        if self.lost.done():
            raise Unavailable(self.lost.result())
        self._sid = 1
        self._write(natswire.subscribe(f"{self._inbox}.*", self._sid))
        self._timer = self._loop.call_later(ALIVE, self._look)

    def subscribe(self, subject: str) -> int:
        """Hear of a subject; return the number by which its messages can be told."""
        self._sid += 1
        self._write(natswire.subscribe(subject, self._sid))
        return self._sid

    def unsubscribe(self, sid: int) -> None:
        """Hear of it no more."""
        self._write(natswire.unsubscribe(sid))

    def follow(self, heard: Callable[[Message], None]) -> tuple[int, str]:
        """Hear of what a stream delivers; return the number by which that ends, and the subject for it."""
        self._number += 1
        subject = f"{self._inbox}-{self._number}"
        sid = self.subscribe(subject)
        self._followers[sid] = heard
        return sid, subject

    def leave(self, sid: int) -> None:
        """Follow it no more."""
        if self._followers.pop(sid, None) is not None and not self.lost.done():
            self.unsubscribe(sid)

    def publish(self, sender: str, priority: int, subject: str, payload: bytes) -> bool:
        """Publish on somebody's behalf; False when too much of theirs waits already."""
        return self._send(sender, priority, natswire.publish(subject, payload))

    async def request(
        self, subject: str, payload: bytes, seconds: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Publish something and wait for the answer.

        Args:
            subject: to which.
            payload: what.
            seconds: to wait.
            headers: how a stream is to take it.

        Raises:
            Unavailable: the connection ended, or nobody answered.
        """
        self._number += 1
        reply = f"{self._inbox}.{self._number}"
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._answers[reply] = answer
        words = (
            natswire.publish_with(subject, payload, reply, headers)
            if headers
            else natswire.publish(subject, payload, reply)
        )
        try:
            if not self._send("", 1, words):
                raise Unavailable("too much waits for the backbone already")
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise Unavailable(f"the backbone does not answer on {subject}") from None
        finally:
            self._answers.pop(reply, None)

    async def take(self, subject: str, payload: bytes, seconds: float) -> Message | None:
        """Ask a stream for its next message; None when there is none in this time.

        It comes under the subject that it was published to, so it is told by the subscription alone.

        Raises:
            Unavailable: the connection ended, or nobody answers on this subject.
        """
        self._number += 1
        reply = f"{self._inbox}-{self._number}"
        sid = self.subscribe(reply)
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._taken[sid] = answer
        try:
            if not self._send("", 1, natswire.publish(subject, payload, reply)):
                raise Unavailable("too much waits for the backbone already")
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._taken[sid]
            self._past.add(sid)
            self._write(natswire.unsubscribe(sid))

    async def flush(self) -> None:
        """Wait until the server has done all that was said before.

        Raises:
            Unavailable: the connection ended.
        """
        reached: asyncio.Future[None] = self._loop.create_future()
        self._reached.append(reached)
        self._write(natswire.PING)
        await self._or_lost(reached)
        if not reached.done():
            raise Unavailable(self.lost.result())

    async def _or_lost(self, event: asyncio.Future[None]) -> None:
        """Wait for something, or for the end of the connection."""
        either: set[asyncio.Future[Any]] = {event, self.lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    # How it goes on inside.

    def _take(self, said: natswire.Said) -> None:
        match said:
            case Message():
                self._hand(said)
            case Asked():
                self._write(natswire.PONG)
            case Reached():
                self._told_that_it_is_there()
            case Info():
                self.payload_limit = int(said.fields.get("max_payload", 0))
            case Refusal():
                self._refused(said.why)

    def _hand(self, message: Message) -> None:
        follower = self._followers.get(message.sid)
        if follower is not None:
            follower(message)
            return
        answer = self._taken.get(message.sid) or self._answers.get(message.subject)
        if answer is not None and not answer.done():
            answer.set_result(message)
        elif message.sid in self._past or message.sid in self._taken:
            if message.reply and not message.status:
                self._write(natswire.publish(message.reply, b"-NAK"))  # too late for who asked: give it back
        elif answer is None:
            self._heard(message)

    def _told_that_it_is_there(self) -> None:
        if not self._welcome.done():
            self._welcome.set_result(None)
        elif self._reached:
            reached = self._reached.pop(0)
            if not reached.done():
                reached.set_result(None)

    def _refused(self, why: str) -> None:
        """The server refused one thing, or all of us."""
        if not why.lower().startswith("permissions violation"):
            self.close(f"the server says: {why}")
        elif why not in self.refused and len(self.refused) < REFUSALS:
            self.refused[why] = None
            log.warning("the backbone's server refuses: %s", why)

    def _look(self) -> None:
        """Find out whether the server is still there."""
        if self.lost.done():
            return
        if self._unanswered >= 2:  # noqa: PLR2004 - as ALIVE says
            self.close("the server does not answer any more")
            return
        self._unanswered += 1
        past, reached = frozenset(self._past), self._loop.create_future()
        reached.add_done_callback(lambda _: self._past.difference_update(past))
        self._reached.append(reached)
        self._write(natswire.PING)
        self._timer = self._loop.call_later(ALIVE, self._look)

    def _end(self, why: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._end(why)
        for answer in (*self._answers.values(), *self._taken.values()):
            if not answer.done():
                answer.set_exception(Unavailable(f"the backbone is gone: {why}"))


async def connect(  # noqa: PLR0913 - whom, as whom, and how
    host: str,
    port: int,
    context: ssl.SSLContext,
    name: str,
    heard: Callable[[Message], None],
    *,
    turns: Turns | None = None,
) -> Nats:
    """Return a connection that the server let in.

    Raises:
        Unavailable: it cannot be reached, is not who it should be, or does not let us in.
    """
    loop = asyncio.get_running_loop()
    made = Nats(name, heard, turns or Turns(loop))
    try:
        async with asyncio.timeout(PATIENCE):
            await loop.create_connection(
                lambda: made, host, port, ssl=context, ssl_handshake_timeout=PATIENCE
            )
    except ssl.SSLError as error:
        raise Unavailable(f"{host}:{port}: {_told(error)}") from error
    except (OSError, TimeoutError, UnicodeError) as error:  # the last: of a host that can be no name
        raise Unavailable(f"{host}:{port}: {str(error) or 'no answer'}") from error
    try:
        await made.enter()
    except BaseException:
        with contextlib.suppress(OSError):
            made.close()
        raise
    return made


def _told(error: ssl.SSLError) -> str:
    """Return why there is no TLS, with what to do about it where that is known."""
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it speaks before TLS does: write handshake_first: true under tls in its settings"
    return str(error)
