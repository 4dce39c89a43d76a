"""What the controller and a companion speak: JSON packets, some with sockets attached.

The socket is of type ``SOCK_SEQPACKET``: a packet comes whole or not at all. From the companion::

    {"serves": ["uid/0-1/egress", …]}              which doors it holds; as often as that takes
    {"hello": {"name": "egress", "version": "…"}}  once, after those
    {"tell": {…}}                                  something for the controller, in the companion's own words
    {"answer": 7, "words": {…}}                    to the question of that number

From the controller::

    {"admit": {"door": "egress", …}, "grant": {…}}  a door and what comes through it; with its listening
                                                    sockets attached, or with none where only the grant is new
    {"dismiss": "uid/0-1/egress"}                   a door is gone
    {"ask": 7, "words": {…}}                        a question
    {"end": true}                                   nothing needs the companion any more
"""

from __future__ import annotations

import array
import asyncio
import itertools
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PACKET: Final = 1 << 17
"""Bytes of the largest packet."""
SOCKETS: Final = 8
"""How many sockets one packet may carry."""
KEYS: Final = 400
"""How many doors one packet names."""
PAGE: Final = 100_000
"""Bytes of a list that one packet tells, beside what stands around it."""
_BUFFER: Final = 1 << 20


class Link:
    """One end of the socket."""

    def __init__(
        self,
        one: socket.socket,
        heard: Callable[[Mapping[str, Any], tuple[socket.socket, ...]], None],
        ended: Callable[[], None],
    ) -> None:
        """Begin to hear.

        Args:
            one: the socket; it belongs to the link from now on.
            heard: called with each packet and the sockets that came with it, which belong to it then.
            ended: called once the other end is gone, or says what no end of this release would.
        """
        self._socket = one
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._loop.add_reader(one, self._hear)

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._socket.fileno() < 0

    async def send(self, packet: Mapping[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
        """Send a packet; returns once it is on its way.

        Raises:
            OSError: the other end is gone, or the packet is too large.
        """
        data = json.dumps(packet, separators=(",", ":")).encode()
        numbers = array.array("i", [one.fileno() for one in sockets])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []
        async with self._turn:
            while True:
                if self.closed:
                    raise BrokenPipeError("the link is closed")
                try:
                    self._socket.sendmsg([data], rights)
                except BlockingIOError:
                    await self._writable()
                else:
                    return

    def close(self) -> None:
        """Close this end."""
        if not self.closed:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def _writable(self) -> None:
        free: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._socket, _settle, free)
        try:
            await free
        finally:
            if not self.closed:
                self._loop.remove_writer(self._socket)

    def _hear(self) -> None:
        try:
            packet, sockets = receive(self._socket)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self.close()
            self._ended()
            return
        self._heard(packet, sockets)


def page_of(things: Sequence[Mapping[str, Any]], first: int) -> tuple[list[Mapping[str, Any]], bool]:
    """Return as many things of a list, from one on, as fit a packet, at least one, and if there are more."""
    page: list[Mapping[str, Any]] = []
    size = 0
    for thing in itertools.islice(things, first, None):
        size += len(json.dumps(thing, separators=(",", ":"))) + 1
        if page and size > PAGE:
            return page, True
        page.append(thing)
    return page, False


def receive(one: socket.socket) -> tuple[Mapping[str, Any], tuple[socket.socket, ...]]:
    """Take one packet.

    Raises:
        BlockingIOError: there is none yet.
        ConnectionResetError: the other end is gone.
        ValueError: it is no packet of ours.
    """
    room = socket.CMSG_SPACE(SOCKETS * array.array("i").itemsize)
    data, ancillary, flags, _ = one.recvmsg(PACKET, room, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, found in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(found[: len(found) - len(found) % numbers.itemsize])
    try:
        packet = decode(data, cut=bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)))
    except (OSError, ValueError):
        for number in numbers:
            os.close(number)
        raise
    return packet, tuple(socket.socket(fileno=number) for number in numbers)


def decode(data: bytes, *, cut: bool = False) -> Mapping[str, Any]:
    """Read a packet; ``cut`` when some of it did not fit.

    Raises:
        ConnectionResetError: there is none: the other end is gone.
        ValueError: it is no packet of ours.
    """
    if not data:
        raise ConnectionResetError("the other end is gone")
    if cut:
        raise ValueError("the packet is too large")
    try:
        packet = json.loads(data)
    except RecursionError as error:
        raise ValueError("the packet is too deep") from error
    if not isinstance(packet, dict):
        raise ValueError("the packet is no object")  # noqa: TRY004 - of bytes, this says which they may not be
    return packet


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
