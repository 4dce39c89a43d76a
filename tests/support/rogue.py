"""A machine of the backbone that keeps to no rules of ours, on the server and on direct lines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from backboned import DEADLINE, until

from crucible.backbone.authority import utc_now
from crucible.bus import news
from crucible.bus.credentials import dialling, meeting
from crucible.bus.wire import Decoder, Frame, Kind, encode
from crucible.core import backbone as rules
from crucible.model.backbone import Joining, Meeting

if TYPE_CHECKING:
    import ssl

    from backboned import Backbone, Joined

    from crucible.backbone.authority import Authority
    from crucible.bus.nats import Nats
    from crucible.bus.natswire import Message


class Speech:
    """What one says and hears on a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.frames: list[Frame] = []
        self._decoder = Decoder()

    def say(self, *frames: Frame) -> None:
        self.writer.write(b"".join(map(encode, frames)))

    async def hear(self) -> Frame | None:
        """Return the next frame; None once it is cut off."""
        async with asyncio.timeout(DEADLINE):
            while not self.frames:
                try:
                    data = await self.reader.read(65536)
                except OSError:
                    data = b""
                if not data:
                    return None
                self.frames += self._decoder.feed(data)
        return self.frames.pop(0)

    def close(self) -> None:
        self.writer.transport.abort()


class Rogue:
    """It says on the server what it likes, and is known to who listens as ``gamma``."""

    def __init__(self, backbone: Backbone, name: str = "gamma") -> None:
        self.backbone, self.name = backbone, name
        self.epoch = "rogue"
        self.told: dict[str, news.News] = {}
        self.nats: Nats | None = None
        self.speeches: list[Speech] = []
        self._beating: asyncio.Task[None] | None = None

    async def join(self, says: Meeting | None) -> Self:
        """Be on the backbone, and say of oneself how one can be met."""
        self.nats = await self.backbone.client(self.name, self._heard)
        self.nats.subscribe(rules.to(self.name, "*"))
        self.tell(says)
        self._beating = asyncio.create_task(self._beat())
        return self

    async def _beat(self) -> None:
        """Be heard of, or one is given up however long a test takes."""
        while self.nats is not None:
            self.nats.publish("", 0, rules.here(self.name), news.beat(self.epoch, 1))
            await asyncio.sleep(0.5)

    def tell(self, says: Meeting | None, *machines: str) -> None:
        assert self.nats is not None
        self.nats.publish("", 0, rules.here(self.name), news.beat(self.epoch, 1))
        for machine in machines or ("alpha", "beta"):
            said = news.news(self.epoch, 1, [], says)
            self.nats.publish("", 0, rules.to(machine, self.name), said)

    def _heard(self, message: Message) -> None:
        machine = message.subject.rpartition(".")[2]
        for frame in Decoder().feed(message.payload):
            if frame.kind == Kind.WELCOME:
                self.told[machine] = news.news_of(frame.payload, machine)

    async def knows(self, other: Joined) -> None:
        """Wait until both know each other."""
        await until(lambda: other.name in self.told and self.told[other.name].meeting is not None)
        await until(
            lambda: (peer := other.far._peers.get(self.name)) is not None and peer.meeting is not None
        )

    def joining(self, identity: str, authority: Authority | None = None) -> Joining:
        """Return what shows somebody's certificate."""
        issued = (authority or self.backbone.authority).machine(identity, utc_now())
        known = self.backbone.authority.certificate
        return Joining(self.name, "127.0.0.1", 1, known, issued.certificate, issued.key)

    def hello(self, other: Joined, **changes: str) -> Frame:
        words = {"sender": self.name, "receiver": other.name, "epoch": self.epoch, "known": other.far.epoch}
        return news.hello(news.Hello(**{**words, **changes}))

    async def dial(self, port: int, joining: Joining | None = None) -> Speech:
        context = dialling(joining or self.joining(f"{self.name}.test"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        self.speeches.append(Speech(reader, writer))
        return self.speeches[-1]

    async def line(self, other: Joined, port: int) -> Speech:
        """Have a line that stands."""
        await self.knows(other)
        speech = await self.dial(port)
        speech.say(self.hello(other))
        welcome = await speech.hear()
        assert welcome is not None
        assert welcome.kind == Kind.WELCOME
        return speech

    async def serve(self, joining: Joining) -> tuple[asyncio.Server, asyncio.Queue[Speech]]:
        """Let others come, as whoever the certificate is made out to."""
        came: asyncio.Queue[Speech] = asyncio.Queue()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.speeches.append(Speech(reader, writer))
            came.put_nowait(self.speeches[-1])

        context: ssl.SSLContext = meeting(joining)
        return await asyncio.start_server(begin, "127.0.0.1", 0, ssl=context), came

    def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        for speech in self.speeches:
            speech.close()
        if self.nats is not None:
            self.nats.close()
