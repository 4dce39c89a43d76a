"""One connection of a plugin, from its first byte to its end."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from crucible.core.egress import Denial, judge_addresses, judge_name
from crucible.egress import heads, socks
from crucible.egress.bodies import Body
from crucible.egress.heads import Malformed, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crucible.core.egress import Address
    from crucible.egress.account import Account
    from crucible.egress.dial import Network

_CHUNK: Final = 1 << 12
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REASONS: Final = {
    400: "Bad Request",
    403: "Forbidden",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
}
_FORBIDDEN, _BAD_GATEWAY = 403, 502


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the proxy waits, in seconds.

    Attributes:
        head: for the whole request.
        dial: for a name's addresses and for somebody to answer there.
        idle: for a byte in either direction.
    """

    head: float = 15.0
    dial: float = 15.0
    idle: float = 300.0


class Refused(Exception):
    """The connection is not made: why, and how that is said in HTTP and in SOCKS."""

    def __init__(self, why: str, status: int, code: int) -> None:
        super().__init__(why)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Way:
    """Where a conversation went: what was asked for, and the address that was dialled."""

    target: Target
    address: Address


class Conversation:
    """Reads what is wanted, judges, dials, and pours until the end."""

    def __init__(
        self,
        account: Account,
        network: Network,
        patience: Patience,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Begin with a connection that came through one of the account's doors."""
        self.heard_at = account.now()
        self._account = account
        self._network = network
        self._patience = patience
        self._reader, self._writer = streams
        self._way: Way | None = None
        self._task: asyncio.Task[object] | None = None

    async def run(self) -> None:
        """Do all of it; whatever strangers do, this returns."""
        self._task = asyncio.current_task()
        self._account.conversations.add(self)
        try:
            await self._run()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise
        finally:
            self._account.conversations.discard(self)
            self._writer.close()

    def judge_again(self) -> None:
        """Cut what the account's grant does not allow any more."""
        way = self._way
        if way is None:
            return  # it is judged after the dialling too
        try:
            allowed = not isinstance(self._judge(way.target, (way.address,)), Denial)
        except Refused:
            allowed = False
        if not allowed:
            self.cut()

    def cut(self) -> None:
        """End it now."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        async with asyncio.timeout(self._patience.head):
            first = await self._reader.read(_CHUNK)
        if not first:
            return
        if first[0] == socks.VERSION:
            await self._socks(first)
        else:
            await self._http(first)

    async def _http(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._patience.head):
                while (found := heads.read_head(data)) is None:
                    data += await self._more()
            head, rest = found
            reader, writer = await self._dial(head.target)
        except Malformed as error:
            await self._say(_page(error.status, str(error)))
            return
        except Refused as error:
            await self._say(_page(error.status, str(error)))
            return
        with _closing(writer):
            if head.tunnel:
                await self._say(_ESTABLISHED)
                await self._pour(reader, writer, rest, None)
            else:
                await self._write(writer, head.onward, self._count_sent)
                await self._pour(reader, writer, rest, Body(head.length))

    async def _socks(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._patience.head):
                while (greeting := socks.read_greeting(data)) is None:
                    data += await self._more()
                offered, data = greeting
                if socks.NO_AUTHENTICATION not in offered.methods:
                    await self._say(socks.method(socks.NO_METHOD))
                    return
                await self._say(socks.method(socks.NO_AUTHENTICATION))
                while (request := socks.read_request(data)) is None:
                    data += await self._more()
            target, rest = request
            reader, writer = await self._dial(target)
        except Malformed as error:
            await self._say(socks.reply(error.status))
            return
        except Refused as error:
            await self._say(socks.reply(error.code))
            return
        with _closing(writer):
            await self._say(socks.reply(socks.OK))
            await self._pour(reader, writer, rest, None)

    async def _more(self) -> bytes:
        chunk = await self._reader.read(_CHUNK)
        if not chunk:
            raise ConnectionResetError("it ended before it had said what it wants")
        return chunk

    async def _say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _dial(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to where the account may go.

        Raises:
            Refused: it may not, or nobody answers there.
        """
        try:
            async with asyncio.timeout(self._patience.dial):
                addresses = await self._addresses(target)
                for address in addresses:
                    with contextlib.suppress(OSError):
                        reader, writer = await self._network.connect(address, target.port)
                        break
                else:
                    raise Refused(f"nobody answers at {target}", _BAD_GATEWAY, socks.REFUSED)
        except TimeoutError:
            raise Refused(f"{target} does not answer", _BAD_GATEWAY, socks.UNREACHABLE) from None
        try:
            verdict = self._judge(target, (address,), writer)
            if isinstance(verdict, Denial):  # the rules changed on the way, or the host's addresses
                self._refuse(verdict)
        except Refused:
            writer.transport.abort()
            raise
        self._way = Way(target, address)
        self._account.counters.connections += 1
        return reader, writer

    async def _addresses(self, target: Target) -> tuple[Address, ...]:
        if isinstance(target.host, str):
            denial = judge_name(self._account.grant.rules, target.host, target.port)
            if denial is not None:
                self._refuse(denial)
            async with self._account.lookups:
                try:
                    found = tuple(await self._network.resolve(target.host))
                except OSError:
                    raise Refused(
                        f"the name {target.host} cannot be resolved", _BAD_GATEWAY, socks.UNREACHABLE
                    ) from None
        else:
            found = (target.host,)
        verdict = self._judge(target, found)
        if isinstance(verdict, Denial):
            self._refuse(verdict)
        return verdict

    def _judge(
        self, target: Target, addresses: tuple[Address, ...], connection: asyncio.StreamWriter | None = None
    ) -> tuple[Address, ...] | Denial:
        """Judge addresses, and the connection to one of them that is made already.

        Raises:
            Refused: nobody can say whether an address is this host's own.
        """
        rules = self._account.grant.rules

        def own(address: Address) -> bool:
            try:
                return self._network.leads_here(address, connection)
            except OSError as error:
                why = f"it cannot be told whether {address} is this host's own: {error}"
                raise Refused(why, _BAD_GATEWAY, socks.FAILED) from None

        if not isinstance(target.host, str):
            return judge_addresses(rules, addresses, target.port, own=own)
        return judge_name(rules, target.host, target.port) or judge_addresses(
            rules, addresses, target.port, name=target.host, own=own
        )

    def _refuse(self, denial: Denial) -> NoReturn:
        self._account.deny(denial)
        how = f"; to allow it, add {denial.grant!r} to capabilities.network.connect" if denial.grant else ""
        raise Refused(f"{denial.reason}{how}", _FORBIDDEN, socks.NOT_ALLOWED)

    async def _pour(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, body: Body | None
    ) -> None:
        """Pass on what either side says until both have ended; of one request, until the server has."""
        up = asyncio.get_running_loop().create_task(self._up(writer, first, body))
        try:
            await self._move(reader, self._writer, self._count_received)
            if body is None:
                await up
        finally:
            up.cancel()  # what a client says after its request is heard by nobody
            await asyncio.gather(up, return_exceptions=True)

    async def _up(self, writer: asyncio.StreamWriter, first: bytes, body: Body | None) -> None:
        """Pass on what the plugin says; when that cannot be, end the way out, which ends the way back."""
        try:
            if body is None:
                if first:
                    await self._write(writer, first, self._count_sent)
                await self._move(self._reader, writer, self._count_sent)
            else:
                await self._one_request(writer, first, body)
        except (OSError, Malformed):
            writer.transport.abort()

    async def _one_request(self, writer: asyncio.StreamWriter, data: bytes, body: Body) -> None:
        """Pass on the body of a request, and nothing after it."""
        while not body.ended:
            data = data or await self._read(self._reader)
            if not data:
                raise ConnectionResetError("the body is cut short")
            await self._write(writer, body.feed(data), self._count_sent)
            data = b""

    async def _move(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        while data := await self._read(reader):
            await self._write(writer, data, count)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(self._account.bucket.step)
        self.heard_at = self._account.now()
        return data

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, count: Callable[[int], None]) -> None:
        writer.write(data)
        count(len(data))
        pause = self._account.bucket.take(len(data), self.heard_at)
        await writer.drain()
        if pause > 0:
            await asyncio.sleep(pause)

    def _count_sent(self, size: int) -> None:
        self._account.counters.sent += size

    def _count_received(self, size: int) -> None:
        self._account.counters.received += size


def _page(status: int, why: str) -> bytes:
    """Answer an HTTP request with a reason that a person can act on."""
    text = f"crucible egress proxy: {why}\n".encode(errors="replace")
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    ).encode() + text


@contextlib.contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Close the way out whatever happens; at once where it is not over."""
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise
    finally:
        writer.close()
