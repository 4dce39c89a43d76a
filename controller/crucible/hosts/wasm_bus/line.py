"""One connection to the broker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from . import wire
from .reach import HANDSHAKE, reach
from .wire import Away, Failure, Frame

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .stop import Stop

_REST: Final = 0.05  # seconds in which the rest of a record of TLS comes


class Line:
    """Frames to the broker and from it, over a connection that is made anew when it is wanted again."""

    def __init__(self, address: str, authority: str, stop: Stop, lost: Callable[[], None]) -> None:
        """Keep in mind where the broker is; ``lost`` hears of every connection that ends."""
        self._address = address
        self._authority = authority
        self._stop = stop
        self._lost = lost
        self._socket: socket.socket | None = None
        self._kept = bytearray()

    @property
    def connected(self) -> bool:
        """There is a connection."""
        return self._socket is not None

    def connect(self, hello: bytes) -> list[Frame]:
        """Connect and introduce the program; return what was said right after the greeting.

        Raises:
            Failure: the broker is not there, or does not take it.
        """
        if not self._address:
            raise Failure("Unavailable", "this plugin has no bus: grant it something under capabilities.bus")
        try:
            self._socket = reach(self._address, self._authority)
        except ValueError as error:  # which a certificate that is not believed is, too
            raise Failure("Unavailable", f"the bus is not there: {error}") from None
        except OSError as error:
            raise Away(f"the bus is not there: {error}") from None
        self.send(Frame(wire.HELLO, payload=hello))
        due = time.monotonic() + HANDSHAKE
        while not (frames := self.read(due - time.monotonic())):
            if time.monotonic() >= due:
                self.hang_up()
                raise Failure("Unavailable", "the broker does not greet")
        welcome, *rest = frames
        if welcome.kind != wire.WELCOME:
            self.hang_up()
            raise wire.failure_of(welcome)
        return rest

    def send(self, frame: Frame) -> None:
        """Send a frame.

        Raises:
            Failure: there is no connection, or the frame is none.
        """
        data = wire.encode(frame)
        if self._socket is None:
            raise Failure("Unavailable", "the bus is not there just now")
        try:
            self._socket.settimeout(HANDSHAKE)
            self._socket.sendall(data)
        except OSError as error:
            self.hang_up()
            raise Failure("Unavailable", f"the bus went away: {error}") from None

    def read(self, seconds: float | None) -> list[Frame]:
        """Return what comes within so many seconds, after one look; nothing too when SIGTERM comes.

        Raises:
            Failure: the connection ended.
        """
        current = self._socket
        if current is None:
            raise Failure("Unavailable", "the bus went away")
        kept_by_tls = getattr(current, "pending", int)()
        if not kept_by_tls and not self._stop.wait(seconds, current.fileno()):
            return []
        try:
            current.settimeout(_REST)
            data = current.recv(65536)
        except TimeoutError:
            return []
        except OSError as error:
            self.hang_up()
            raise Failure("Unavailable", f"the bus went away: {error}") from None
        if not data:
            self.hang_up()
            raise Failure("Unavailable", "the bus went away; it is not known whether the call was done")
        self._kept += data
        return self._frames()

    def _frames(self) -> list[Frame]:
        found: list[Frame] = []
        try:
            while (frame := wire.decode(self._kept)) is not None:
                found.append(frame)
        except Failure:
            self.hang_up()
            raise
        return found

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._kept.clear()
            self._lost()
