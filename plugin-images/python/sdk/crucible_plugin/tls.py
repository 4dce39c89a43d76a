"""A connection to a broker by TLS: version 1.3, and nobody but whom the sandbox's own authority vouches for.

Loaded only where ``CRUCIBLE_BUS`` begins with ``tls://``, because ``ssl`` weighs more than all the rest.
"""

from __future__ import annotations

import socket
import ssl
from _thread import allocate_lock
from typing import NamedTuple

from crucible_plugin.errors import Unavailable

LOCAL_NAME = "crucible-bus"
"""What a broker behind a Unix socket is called in its certificate."""
_CHUNK = 65536


class Place(NamedTuple):
    """Where a broker listens, by path or by host and port; and what it is called in its certificate."""

    path: str
    host: str
    port: int
    name: str


def place_of(address: str) -> Place:
    """Read ``tls://HOST:PORT``, or ``tls:///PATH`` for a Unix socket.

    Raises:
        Unavailable: it is neither.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "tls" and rest.startswith("/"):
        return Place(rest, "", 0, LOCAL_NAME)
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if scheme != "tls" or not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise Unavailable(f"CRUCIBLE_BUS is {address}: it should be a path, tls://HOST:PORT or tls:///PATH")
    return Place("", host, int(port), host)


def context_of(authority: str) -> ssl.SSLContext:
    """Return how to speak, and whom to believe.

    Args:
        authority: path of a certificate in PEM. It is read anew each time: it may have been renewed.

    Raises:
        OSError: it cannot be read.
        Unavailable: none is named.
    """
    if not authority:
        raise Unavailable("CRUCIBLE_BUS_CA is not set: whom to believe at the other end is not known")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    context.load_verify_locations(cafile=authority)
    return context


def connect(address: str, authority: str, seconds: float) -> TlsSocket:
    """Connect, and see to it that it is who it should be.

    Args:
        address: as in :func:`place_of`.
        authority: as in :func:`context_of`.
        seconds: that each step may take.

    Raises:
        OSError: it is not there, or is somebody else.
        Unavailable: what is said of it is not enough.
    """
    place, context = place_of(address), context_of(authority)
    if place.path:
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(seconds)
    else:
        found = socket.create_connection((place.host, place.port), seconds)
    try:
        if place.path:
            found.connect(place.path)
        else:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsSocket(found, context, place.name)
    except BaseException:
        found.close()
        raise


class TlsSocket:
    """What a :class:`crucible_plugin.line.Line` uses of a socket, encrypted.

    One thread may read while others write: what OpenSSL keeps is touched only under a lock, and nobody waits
    for the network with it.
    """

    def __init__(self, found: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Do the handshake.

        Raises:
            OSError: it is somebody else, or speaks something else.
        """
        self._socket = found
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._state = allocate_lock()
        self._writing = allocate_lock()
        self.settimeout = found.settimeout
        self.fileno = found.fileno
        self.shutdown = found.shutdown
        self.close = found.close
        self._shake_hands()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._take():
                    raise ConnectionResetError("the broker closed it") from None
            except ssl.SSLError:
                self._flush()  # tells the other side why
                raise
            else:
                return self._flush()

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        rest = memoryview(data)
        with self._state:
            while rest:
                rest = rest[self._tls.write(rest) :]  # one record at a time
        self._flush()

    def recv(self, _size: int) -> bytes:
        """Return all that came; empty once nothing more does.

        Raises:
            BlockingIOError: something came, and nothing of it is whole yet.
        """
        if not self._take():
            return b""
        with self._state:
            parts = self._read()
        if self._outgoing.pending:
            self._flush()
        return b"".join(parts)

    def _read(self) -> list[bytes]:
        parts: list[bytes] = []
        try:
            while part := self._tls.read(_CHUNK):
                parts.append(part)
        except ssl.SSLWantReadError:
            if not parts:
                raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            return parts
        return parts

    def _take(self) -> bool:
        """Take in what comes; False at the end."""
        data = self._socket.recv(_CHUNK)
        with self._state:
            self._incoming.write(data)
        return bool(data)

    def _flush(self) -> None:
        """Send what is encrypted, in its order: whoever comes first sends for all."""
        with self._writing:
            with self._state:
                data = self._outgoing.read()
            self._socket.sendall(data)
