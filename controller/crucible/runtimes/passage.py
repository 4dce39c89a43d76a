"""Connections from the controller to ports on the loopback of instances on this host.

The sockets come from the program in ``usher.py``, two at a time, and are used again: a TCP socket that is
connected to nobody any more can be connected anew, and is still in the namespace where it was made. So a
connection costs no process, however often an instance is asked.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import Unavailable, Unsupported
from crucible.runtimes.base import Connected

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_PROGRAM: Final = Path(__file__).with_name("usher.py")
_AT_ONCE: Final = 2
_MAX_ANSWER: Final = 4096
_PATIENCE: Final = 10.0
_QUEUE: Final = 128
_FREEBIND: Final = 15
_LOOPBACK: Final = "127.0.0.1"
_NOBODY: Final = socket.AF_UNSPEC.to_bytes(2, sys.byteorder) + bytes(14)
"""A ``struct sockaddr`` of no family: connecting to it ends a connection (connect(2))."""
NEW_USER: Final = 0x10000000
NEW_NET: Final = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class House:
    """Where to make sockets.

    Attributes:
        key: names the instance.
        hold: returns a pidfd of one of its processes, which the caller closes; None when there is none.
        namespaces: which of that process's to enter: ``NEW_NET``, with ``NEW_USER`` where that is another.
        uid: whom to become first; None to stay.
    """

    key: str
    hold: Callable[[], int | None]
    namespaces: int
    uid: int | None = None


@dataclass(slots=True)
class _Idle:
    """The sockets of one instance that nobody uses now."""

    sockets: list[socket.socket] = field(default_factory=list)
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Lent:
    """A socket, and those it belongs to."""

    door: socket.socket
    idle: _Idle

    def give_back(self, *, whole: bool) -> None:
        """Have it used again; whoever was cancelled midway may have left the event loop watching it."""
        if whole and not self.idle.gone and _disconnect(self.door):
            self.idle.sockets.append(self.door)
        else:
            self.door.close()


class Passing:
    """One connection. A class, because a generator costs a third of what connecting does."""

    __slots__ = ("_house", "_lent", "_passage", "_port")

    def __init__(self, passage: Passage, house: House, port: int) -> None:
        self._passage = passage
        self._house = house
        self._port = port

    async def __aenter__(self) -> Connected:
        """Connect."""
        self._lent = await self._passage.lend(self._house)
        try:
            await _connect(self._lent.door, self._port)
        except BaseException as error:
            self._lent.give_back(whole=isinstance(error, OSError))
            raise
        return Connected(self._lent.door)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Be connected no more."""
        self._lent.give_back(whole=kind is None or issubclass(kind, OSError))


class Passage:
    """Makes and keeps sockets in the namespaces of instances."""

    def __init__(self) -> None:
        self._idle: dict[str, _Idle] = {}
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = asyncio.Lock()

    def connect(self, house: House, port: int) -> Passing:
        """Connect to a port, for as long as the context lasts.

        Raises:
            OSError: nobody listens there.
            Unsupported: the kernel does not let this controller in.
            Unavailable: the usher died on the way.
        """
        return Passing(self, house, port)

    async def lend(self, house: House) -> Lent:
        """Return a socket of an instance that nobody uses, and where it belongs."""
        idle = self._idle.setdefault(house.key, _Idle())
        return Lent(idle.sockets.pop() if idle.sockets else await self._make(house, idle), idle)

    async def listen(self, house: House, host: str, port: int) -> socket.socket:
        """Return a socket that listens at an address of the instance's own, whether that is up yet or not.

        Raises:
            OSError: somebody listens there.
            Unsupported: the kernel does not let this controller in.
            Unavailable: it does not run, or the usher died on the way.
        """
        idle = _Idle()
        door = await self._make(house, idle)
        for other in idle.sockets:
            other.close()
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            door.bind((host, port))
            door.listen(_QUEUE)
        except OSError:
            door.close()
            raise
        return door

    def forget(self, key: str) -> None:
        """Close the sockets of an instance that is gone: they would keep its network alive."""
        idle = self._idle.pop(key, None)
        if idle is not None:
            idle.gone = True
            while idle.sockets:
                idle.sockets.pop().close()

    def close(self) -> None:
        """Close all, and end the usher."""
        for key in tuple(self._idle):
            self.forget(key)
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    async def _make(self, house: House, idle: _Idle) -> socket.socket:
        async with self._asking:
            if idle.sockets:  # made for another who then did not need both
                return idle.sockets.pop()
            held = house.hold()
            if held is None:
                raise Unavailable("it does not run")
            try:
                first, *others = await self._ask(house, held)
            finally:
                os.close(held)
            idle.sockets += others
            return first

    async def _ask(self, house: House, held: int) -> list[socket.socket]:
        request = {"uid": house.uid, "namespaces": house.namespaces, "sockets": _AT_ONCE}
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [held]))]
        try:
            async with asyncio.timeout(_PATIENCE):
                link = self._link or self._open()
                link.sendmsg([json.dumps(request).encode()], rights)
                packet, made = await _answer(link)
        except (OSError, TimeoutError) as error:
            self._abandon()
            raise Unavailable(f"no way into the instance's network: {error or 'no answer'}") from error
        except asyncio.CancelledError:
            self._abandon()  # its answer would be taken for the next one's
            raise
        if not packet:
            self._abandon()
            raise Unavailable("no way into the instance's network: the usher died")
        answer = json.loads(packet)
        if answer.get("gone"):
            raise Unavailable("it does not run")
        if answer.get("problem"):
            raise Unsupported(f"no way into the instance's network: {answer['problem']}")
        return made

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [os.path.realpath("/proc/self/exe"), "-I", "-S", str(_PROGRAM)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        self._link = ours
        return ours

    def _abandon(self) -> None:
        """End a usher that is of no use any more; the next request starts another."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


async def _answer(link: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """Take one answer, and the sockets that came with it."""
    loop = asyncio.get_running_loop()
    room = socket.CMSG_SPACE(_AT_ONCE * array.array("i").itemsize)
    while True:
        try:
            packet, ancillary, _, _ = link.recvmsg(_MAX_ANSWER, room, socket.MSG_CMSG_CLOEXEC)
            break
        except BlockingIOError:
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(link, _settle, readable)
            try:
                await readable
            finally:
                loop.remove_reader(link)
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    made = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for each in made:
        each.setblocking(False)
    return packet, made


async def _connect(door: socket.socket, port: int) -> None:
    """Connect on a loopback, where the answer is mostly there before one could wait for it."""
    problem = door.connect_ex((_LOOPBACK, port))
    if problem == errno.EINPROGRESS:
        problem = door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not problem and not _is_connected(door):
            loop = asyncio.get_running_loop()
            writable: asyncio.Future[None] = loop.create_future()
            loop.add_writer(door, _settle, writable)
            try:
                await writable
            finally:
                loop.remove_writer(door)
            problem = door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if problem:
        raise OSError(problem, os.strerror(problem))


def _is_connected(door: socket.socket) -> bool:
    try:
        door.getpeername()
    except OSError:
        return False
    return True


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _disconnect(door: socket.socket) -> bool:
    """Have a socket be connected to nobody; False where it cannot be used again."""
    with contextlib.suppress(OSError):
        door.shutdown(socket.SHUT_RDWR)
    done: bool = _libc.connect(door.fileno(), _NOBODY, len(_NOBODY)) == 0
    door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # reading it clears it
    return done
