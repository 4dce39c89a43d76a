"""The socket. Whichever thread waits for something reads for all; there is no thread just for that.

A plugin that runs is one thread in ``poll``: it leads. A thread that waits for an answer reads too when
nobody else does, and otherwise waits until the one who reads puts the answer into its box. Where one thread
calls and calls and nothing else comes, who leads stands back: each answer would wake two threads, not one.
"""

from __future__ import annotations

import os
import select
import time
from _thread import allocate_lock, get_ident

from crucible_plugin import wire
from crucible_plugin.errors import BusError, Unavailable, error_of

# What `socket` and `queue` stand on themselves: those two cost an idle plugin 0.5 MB.
try:
    from _queue import Empty, SimpleQueue
    from _socket import AF_UNIX, SHUT_RDWR
    from _socket import socket as Socket  # noqa: N812 - a type
except ImportError:
    from queue import Empty, SimpleQueue
    from socket import AF_UNIX, SHUT_RDWR
    from socket import socket as Socket  # type: ignore[assignment]  # noqa: N812 - a type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from crucible_plugin.tls import TlsSocket

    Box = SimpleQueue[wire.Frame | None]
    Connected = Socket | TlsSocket

    class Desk(Protocol):
        """Whom frames are brought to."""

        def hello(self) -> bytes:
            """Return what to introduce oneself with."""

        def connected(self, welcome: wire.Frame) -> None:
            """There is a new connection; nothing was said on it yet."""

        def receive(self, frame: wire.Frame) -> None:
            """Take a frame."""

        def lost(self) -> None:
            """The connection is gone, and all that was open on it."""


_CHUNK = 65536
_HANDSHAKE = 10.0
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between two attempts to connect; the last for ever."""
_BUSY_CHECK = 1.0
_RUN = 16
"""Answers for one waiting thread, and nothing else, after which it is left to read them itself."""
_MOMENT = 0.001
"""Seconds in which nobody read, after which whoever leads does again."""


class Line:
    """One connection to the broker, made anew whenever it breaks.

    Attributes:
        lends: who leads may stand back. Not where methods are inline: those run in the thread that leads.
    """

    def __init__(self, address: str, authority: str, desk: Desk) -> None:
        self.lends = True
        self._address = address
        self._authority = authority
        self._desk = desk
        self._socket: Connected | None = None
        self._poll = select.poll()
        self._decoder = wire.Decoder()
        self._writing = allocate_lock()
        self._reading = allocate_lock()
        self._connecting = allocate_lock()
        self._reader = 0
        self._run = 0
        self._reads = 0
        self._stands_back = False
        self._waiting: dict[int, Box] = {}
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def connected(self) -> bool:
        """There is a connection."""
        return self._socket is not None

    def connect(self, patience: float = 0.0) -> None:
        """Connect unless that is done.

        Args:
            patience: seconds for which to try again.

        Raises:
            Unavailable: nobody listens.
            BusError: the broker does not take us.
        """
        until = time.monotonic() + patience
        attempt = 0
        while True:
            try:
                with self._connecting:
                    frames = self._connect() if self._socket is None else []
                break
            except Unavailable:
                if time.monotonic() >= until:
                    raise
            time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1
        if frames:
            self._desk.connected(frames[0])
        for frame in frames[1:]:
            self._desk.receive(frame)

    def _connect(self) -> list[wire.Frame]:
        """Connect and return what came first: the WELCOME, and perhaps more."""
        decoder = wire.Decoder()
        try:
            fresh = _reach(self._address, self._authority)
            try:
                frames = _greet(fresh, self._desk.hello(), decoder)
            except BaseException:
                fresh.close()
                raise
        except OSError as error:
            raise Unavailable(f"the bus is not there: {error}") from None
        self._decoder = decoder
        self._poll = select.poll()
        self._poll.register(self._wake_out, select.POLLIN)
        self._poll.register(fresh, select.POLLIN)
        self._socket = fresh
        return frames

    def send(self, frame: wire.Frame) -> None:
        """Send a frame.

        Raises:
            Unavailable: there is no connection.
            TooLarge, Malformed: it is no frame.
        """
        data = wire.encode(frame)
        current = self._socket
        if current is None:
            raise Unavailable("the bus is not there just now")
        try:
            with self._writing:
                current.sendall(data)
        except OSError as error:
            self._lost(current)
            raise Unavailable(f"the bus went away: {error}") from None

    def wait(self, box: Box, due: float | None) -> wire.Frame | None:
        """Return what comes into a box; None when it is late.

        Raises:
            RuntimeError: this thread reads for all, so nothing would ever come.
        """
        if self._reader == get_ident():
            raise RuntimeError("an inline method may not wait for the bus: leave inline out")
        self._waiting[id(box)] = box
        if len(self._waiting) > 1:
            self._recall()
        try:
            while True:
                left = None if due is None else due - time.monotonic()
                try:
                    frame = self._next(box, left)
                except Empty:
                    return None
                if frame is not None:
                    return frame
        finally:
            del self._waiting[id(box)]
            if self._waiting and not self._reading.locked():
                self._hand_over()

    def _next(self, box: Box, left: float | None) -> wire.Frame | None:
        """Return what is in a box or comes; None: look again. Raises Empty when time is over."""
        if not box.empty() or (left is not None and left <= 0):
            return box.get(block=False)
        if self._socket is None or not self._reading.acquire(blocking=False):
            return box.get(timeout=left)
        self._reader = get_ident()
        self._reads += 1
        try:
            if box.empty():
                self._read(left)
        finally:
            self._reader = 0
            self._reading.release()
        return None

    def _hand_over(self) -> None:
        """Let those who wait find out that nobody reads."""
        for box in list(self._waiting.values()):
            box.put(None)

    def lead(self, finished: Callable[[], bool], until: float | None = None) -> None:
        """Read for all until something holds, connecting anew whenever that is needed."""
        while not finished() and (until is None or time.monotonic() < until):
            if not self._reading.acquire(timeout=_BUSY_CHECK):
                continue
            self._reader = get_ident()
            try:
                self._lead(finished, until)
            finally:
                self._reader = 0
                self._reading.release()
                self._hand_over()
            if until is None and self._is_alone():
                self._stand_back(finished)

    def _is_alone(self) -> bool:
        """Say whether one thread calls and calls, and nothing else comes."""
        return self.lends and self._run >= _RUN

    def _stand_back(self, finished: Callable[[], bool]) -> None:
        """Let who waits read, until nobody did for a moment or something came for others."""
        self._stands_back = True
        while self._stands_back and self._socket is not None and not finished():
            seen = self._reads
            self.pause(_MOMENT)
            if self._reads == seen:
                break
        self._stands_back = False
        self._run = 0

    def _recall(self) -> None:
        """Have whoever leads read again."""
        self._run = 0
        if self._stands_back:
            self._stands_back = False
            self.wake()

    def _lead(self, finished: Callable[[], bool], until: float | None) -> None:
        attempt = 0
        while not finished() and (until is not None or not self._is_alone()):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            if self._socket is not None:
                attempt = 0
                self._read(left)
                continue
            try:
                self.connect()
            except BusError:
                self.pause(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1

    def pause(self, seconds: float | None) -> None:
        """Wait, or until woken."""
        waker = select.poll()
        waker.register(self._wake_out, select.POLLIN)
        if waker.poll(None if seconds is None else seconds * 1000):
            self._woken()

    def _woken(self) -> None:
        try:
            os.read(self._wake_out, _CHUNK)
        except BlockingIOError:
            return  # another thread was woken too, and quicker

    def wake(self) -> None:
        """Let whoever reads look whether it has finished. A signal handler may call it."""
        try:
            os.write(self._wake_in, b"\0")
        except BlockingIOError:
            return

    def _read(self, timeout: float | None) -> None:
        current = self._socket
        if current is None:
            return
        ready = self._poll.poll(None if timeout is None else max(timeout, 0) * 1000)
        for descriptor, _ in ready:
            if descriptor == self._wake_out:
                self._woken()
                continue
            try:
                data = current.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("the broker closed it")
                for frame in self._decoder.feed(data):
                    if frame.kind == wire.ANSWER and len(self._waiting) == 1:
                        self._run += 1
                    else:
                        self._recall()
                    self._desk.receive(frame)
            except BlockingIOError:
                continue  # part of what was encrypted together
            except (OSError, BusError):
                self._lost(current)

    def _lost(self, gone: Connected) -> None:
        with self._connecting:
            if self._socket is not gone:
                return
            self._socket = None
        # Whoever polls it sees the end; the descriptor's number stays taken until then.
        _hang_up(gone)
        gone.close()
        self._desk.lost()

    def close(self) -> None:
        """End the connection."""
        current = self._socket
        if current is not None:
            self._lost(current)


def _reach(address: str, authority: str) -> Connected:
    """Connect to a Unix socket, or by TLS to whom the authority's certificate vouches for."""
    if "://" in address:
        from crucible_plugin import tls  # noqa: PLC0415 - costs memory, and most have no use for it

        return tls.connect(address, authority, _HANDSHAKE)
    fresh = Socket(AF_UNIX)
    fresh.settimeout(_HANDSHAKE)
    try:
        fresh.connect(address)
    except BaseException:
        fresh.close()
        raise
    return fresh


def _greet(fresh: Connected, hello: bytes, decoder: wire.Decoder) -> list[wire.Frame]:
    fresh.sendall(wire.encode(wire.Frame(wire.HELLO, payload=hello)))
    frames: list[wire.Frame] = []
    while not frames:
        try:
            data = fresh.recv(_CHUNK)
        except BlockingIOError:
            continue
        if not data:
            raise Unavailable("the broker does not greet")
        frames = list(decoder.feed(data))
    fresh.settimeout(None)
    welcome = frames[0]
    if welcome.kind == wire.ERROR:
        raise error_of(welcome.name, welcome.payload, welcome.headers)
    return frames


def _hang_up(gone: Connected) -> None:
    """End a socket so that whoever polls it wakes up."""
    try:
        gone.shutdown(SHUT_RDWR)
    except OSError:
        return  # the broker was quicker
