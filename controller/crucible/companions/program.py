"""The companion's end: what every companion program does around what it serves.

A companion's ``__main__.py`` is two lines::

    from crucible.companions.program import run
    run("egress", EgressProxy)

The controller starts it as ``python -I -m crucible.NAME MARK --socket 5 --folder 6 …``. It
leaves the controller's session, gives up what it does not need, listens, and serves until it is told to end,
or until nobody is left who could: its folder is gone, or it holds no door and no controller comes.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures.thread  # noqa: F401 - names are resolved in threads, and nothing can be imported later
import contextlib
import functools
import os
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible import __version__
from crucible.companions.confine import confine
from crucible.companions.link import KEYS, Link
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

MEMORY: Final = 512 << 20
"""Bytes of data a companion may have."""
NICENESS: Final = -5
"""Of a companion that many wait for."""
REST: Final = 0.25
"""Seconds for which the socket is not looked at after nobody could be let in."""
_QUEUE: Final = 4


class Service(Protocol):
    """What a companion does for those behind its doors."""

    def admit(self, doorway: Doorway, grant: Mapping[str, Any], listeners: Sequence[socket.socket]) -> None:
        """Serve a door, or hold whoever comes through it to a new grant.

        Args:
            doorway: the door and who is behind it.
            grant: what that one may do; empty: nothing.
            listeners: the door's listening sockets, which belong to the service from now on, instead of any
                that it had; none where only the grant is new.
        """
        ...

    def dismiss(self, key: str) -> None:
        """Forget a door, and end what goes on through it."""
        ...

    async def answer(self, words: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer a question of the controller."""
        ...


def run(
    name: str,
    make: Callable[..., Service],
    *,
    urgent: bool = False,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Be a companion until the end.

    Args:
        name: of the companion.
        make: makes the service, in a running event loop; is given a way to tell the controller something, and
            as ``data`` the descriptor of a folder of its own, where the program has one.
        urgent: many wait for it at every step: it is to wait for others less.
        loop: makes its event loop; None: Python's own does.
    """
    parser = argparse.ArgumentParser(prog=f"crucible-{name}")
    parser.add_argument("mark", help="shows whose it is")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the socket to listen on")
    parser.add_argument("--folder", type=int, required=True, help="descriptor of the folder it lies in")
    parser.add_argument("--data", type=int, help="descriptor of the folder in which it keeps what must last")
    parser.add_argument("--uid", type=int, help="user and group to become")
    parser.add_argument("--alone", type=float, required=True, help="seconds to stay when nobody comes")
    options = parser.parse_args()
    ready = _leave()
    if urgent:
        hasten()
    try:
        confine(options.uid, MEMORY, options.data)
        one = socket.socket(fileno=options.socket)
        if options.data is not None:
            make = functools.partial(make, data=options.data)
        one.listen(_QUEUE)  # the kernel tells who connects that it is this process
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(_serve(_Companion(name), make, one, options, ready))
    except Exception:  # noqa: BLE001 - whatever it is, the controller reads it in the log
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _leave() -> int:
    """Go on as an orphan in a session of its own; the parent ends once this is ready, or has failed.

    Returns:
        A descriptor that tells the parent, by a byte written to it.
    """
    hear, ready = os.pipe()
    if os.fork():
        os.close(ready)
        os._exit(0 if os.read(hear, 1) else 1)
    os.close(hear)
    os.setsid()
    os.chdir("/")
    return ready


def hasten() -> None:
    """Weigh three times as much as an ordinary session, where the kernel lets us: only root may ask for it.

    The niceness of a process counts among those of its session, that of the session (its "autogroup") among
    sessions; where the controller has a control group of its own, as a service has, only the first counts.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


async def _serve(
    companion: _Companion,
    make: Callable[[Callable[[Mapping[str, Any]], None]], Service],
    listener: socket.socket,
    options: argparse.Namespace,
    ready: int,
) -> None:
    companion.service = make(companion.tell)
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    accepting = loop.create_task(companion.accept(listener))
    os.write(ready, b"1")
    os.close(ready)
    while not companion.ended.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.alone):
                await companion.ended.wait()
        alone = companion.link is None and (not companion.served or os.fstat(options.folder).st_nlink == 0)
        if alone and companion.was_alone:
            break
        companion.was_alone = alone
    accepting.cancel()


class _Companion:
    def __init__(self, name: str) -> None:
        self.name = name
        self.service: Service
        self.served: set[str] = set()
        self.link: Link | None = None
        self.ended = asyncio.Event()
        self.was_alone = False
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, words: Mapping[str, Any]) -> None:
        """Tell the controller something, if there is one."""
        self._send({"tell": words})

    async def accept(self, listener: socket.socket) -> None:
        """Let controllers in, one at a time: a new one means that the old is gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                one, _ = await loop.sock_accept(listener)
            except OSError as error:  # it gave up, or no descriptor is free: it waits in the queue
                print(f"nobody can connect: {error}", file=sys.stderr, flush=True)  # noqa: T201 - its log
                await asyncio.sleep(REST)
                continue
            if self.link is not None:
                self.link.close()
            self.link = link = Link(one, self._heard, self._lost)
            keys = sorted(self.served)
            with contextlib.suppress(OSError):
                for first in range(0, len(keys), KEYS):
                    await link.send({"serves": keys[first : first + KEYS]})
                await link.send({"hello": {"name": self.name, "version": __version__}})

    def _lost(self) -> None:
        self.link = None

    def _heard(self, packet: Mapping[str, Any], sockets: tuple[socket.socket, ...]) -> None:
        match packet:
            case {"admit": dict(found), "grant": dict(grant)}:
                doorway = Doorway(**{**found, "door": Door(found["door"])})
                self.served.add(doorway.key)
                self.service.admit(doorway, grant, sockets)
            case {"dismiss": str(key)}:
                self.served.discard(key)
                self.service.dismiss(key)
            case {"ask": int(number), "words": dict(words)}:
                self._spawn(self._answer(number, words))
            case {"end": True}:
                self.ended.set()
            case _:
                print(f"an unknown packet: {sorted(packet)}", file=sys.stderr)  # noqa: T201 - its log

    async def _answer(self, number: int, words: Mapping[str, Any]) -> None:
        answer = await self.service.answer(words)
        self._send({"answer": number, "words": answer})

    def _send(self, packet: Mapping[str, Any]) -> None:
        if self.link is not None:
            self._spawn(_quietly(self.link, packet))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            traceback.print_exception(error)  # its log


async def _quietly(link: Link, packet: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the controller is gone; its successor is told what matters to it
        await link.send(packet)


def peer_of(caller: socket.socket) -> int:
    """Return the user id of whoever is at the other end of a Unix socket, as the kernel knows it."""
    data = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", data)
    return int(uid)
