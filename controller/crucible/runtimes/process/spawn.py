"""The controller's end of the spawner."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAM = Path(__file__).with_name("spawner.py")
_MAX_ANSWER = 4096
_ANSWER_SECONDS = 15.0
_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Launch:
    """One program to start.

    Attributes:
        argv: its arguments, the name it shows first.
        program: descriptor of the executable.
        descriptors: the descriptor behind each number, from 0 on, of the new program.
        uid: user and group to become; None to stay.
        groups: files to write a 0 to, to join cgroups.
        rlimits: resource, soft limit, hard limit.
        views: directories to show it at another path; to it alone, and only where the controller is root.
        env: environment of bubblewrap itself.
        further: more descriptors, and the number each has in the new program.
        volumes: as views, and whether each may be written to; opened without following a link.
        supplementary: groups that it is a member of beside its own, where it becomes another user.
    """

    argv: tuple[str, ...]
    program: int
    descriptors: tuple[int, ...]
    uid: int | None
    groups: tuple[Path, ...]
    rlimits: tuple[tuple[int, int, int], ...]
    views: tuple[tuple[str, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    further: tuple[tuple[int, int], ...] = ()
    volumes: tuple[tuple[str, str, bool], ...] = ()
    supplementary: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Spawned:
    """A started process.

    Attributes:
        pid: on this host.
        started: its start time in clock ticks since boot.
        pidfd: refers to exactly this process; the receiver closes it.
    """

    pid: int
    started: int
    pidfd: int


class Spawner:
    """Starts programs through one small process, which is started anew when it has died."""

    def __init__(self) -> None:
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sending = asyncio.Lock()
        self._waiting: deque[asyncio.Future[Spawned | str]] = deque()

    async def launch(self, launch: Launch) -> tuple[Spawned | str, int]:
        """Start a program.

        Returns:
            What was started, or why nothing was; and a pipe that ends once the program runs and holds why if
            it never will. The caller closes the pipe.

        Raises:
            Unavailable: the spawner died on the way; nothing that was started stays alive, because what it
                waits for never comes.
        """
        told, tell = os.pipe2(os.O_CLOEXEC)
        try:
            return await self._ask(launch, tell), told
        except BaseException:
            os.close(told)
            raise
        finally:
            os.close(tell)

    def close(self) -> None:
        """End the spawner, by force where it does not end by itself. What it started lives on."""
        loop = asyncio.get_running_loop()
        if self._link is not None:
            loop.remove_reader(self._link)
            self._link.close()
            self._link = None
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(Unavailable("the spawner ended; it will be started again"))

    async def _ask(self, launch: Launch, tell: int) -> Spawned | str:
        further = [descriptor for descriptor, _ in launch.further]
        descriptors = [*launch.descriptors, *further, launch.program, tell]
        request = {
            "argv": launch.argv,
            "targets": [*range(len(launch.descriptors)), *(number for _, number in launch.further)],
            "exec": len(descriptors) - 2,
            "problem": len(descriptors) - 1,
            "uid": launch.uid,
            "groups": [str(path) for path in launch.groups],
            "rlimits": launch.rlimits,
            "views": launch.views,
            "volumes": launch.volumes,
            "supplementary": launch.supplementary,
            "env": dict(launch.env),
        }
        packet = json.dumps(request).encode()
        async with self._sending:
            try:
                future = await self._send(self._link or self._open_or_say(), packet, descriptors)
            except OSError:
                # It had died, and this request never reached it.
                self.close()
                future = await self._send(self._open_or_say(), packet, descriptors)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await asyncio.shield(future)
        except TimeoutError:
            self._kill()
            raise Unavailable("the spawner does not answer; it will be started again") from None

    def _kill(self) -> None:
        """End a spawner that hangs. Whatever it had begun ends too: what it waits for never comes."""
        if self._process is not None:
            self._process.kill()
        self.close()

    async def _send(
        self, link: socket.socket, packet: bytes, descriptors: list[int]
    ) -> asyncio.Future[Spawned | str]:
        """Send one request, and return what its answer will be put into. Answers come in the same order."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        loop = asyncio.get_running_loop()
        while True:
            try:
                link.sendmsg([packet], rights)
            except BlockingIOError:
                writable: asyncio.Future[None] = loop.create_future()
                loop.add_writer(link, settle, writable)
                try:
                    await writable
                finally:
                    loop.remove_writer(link)
            else:
                future: asyncio.Future[Spawned | str] = loop.create_future()
                self._waiting.append(future)
                return future

    def _open_or_say(self) -> socket.socket:
        try:
            return self._open()
        except OSError as error:
            raise Unavailable(f"the spawner cannot be started now: {error}") from error

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [os.path.realpath("/proc/self/exe"), "-I", "-S", str(_PROGRAM)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        self._link = ours
        asyncio.get_running_loop().add_reader(ours, self._hear, ours)
        return ours

    def _hear(self, link: socket.socket) -> None:
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        try:
            packet, ancillary, _, _ = link.recvmsg(_MAX_ANSWER, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            packet, ancillary = b"", []
        if not packet or not self._waiting:
            self.close()
            return
        future = self._waiting.popleft()
        try:
            answer = _answer(json.loads(packet), ancillary)
        except Unavailable as error:
            if not future.done():
                future.set_exception(error)
            return
        if not future.done():
            future.set_result(answer)
        elif isinstance(answer, Spawned):
            os.close(answer.pidfd)


def _answer(answer: dict[str, Any], ancillary: list[tuple[int, int, bytes]]) -> Spawned | str:
    """Read an answer.

    Raises:
        Unavailable: this host cannot start anything now; of what was started nothing goes on.
    """
    if "unavailable" in answer:
        raise Unavailable(str(answer["unavailable"]))
    if "problem" in answer:
        return str(answer["problem"])
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    if not descriptors:
        # The kernel drops what it cannot hand over. The process waits for what it will not be sent, and ends.
        raise Unavailable("no descriptor is left to hold a new process by: raise the limit on open files")
    return Spawned(pid=answer["pid"], started=answer["started"], pidfd=descriptors[0])


def settle(future: asyncio.Future[None]) -> None:
    """Let whoever waits for a future go on, if that has not happened."""
    if not future.done():
        future.set_result(None)


async def read_to_end(pipe: int) -> str:
    """Read a pipe until its writers are gone, close it, and return what it held."""
    loop = asyncio.get_running_loop()
    os.set_blocking(pipe, False)
    ended: asyncio.Future[None] = loop.create_future()
    held = bytearray()

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(pipe, 4096)
            held.extend(chunk)
            if not chunk:
                settle(ended)

    loop.add_reader(pipe, read)
    try:
        await ended
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)
    return held.decode(errors="replace")
