"""The words of a gRPC probe: one call of the standard health service, as ``grpc.health.v1`` has it. Pure.

HTTP/2 is the library's. The two messages have one field each, and are read and written here: what would read
them otherwise weighs more than all else in the controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from crucible.model.health import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from h2.events import Event

    from crucible.model.probe import GrpcProbe

MOST: Final = 16384
"""Bytes in which an answer has to end; an honest one takes some 200."""
_MOST_HEADERS: Final = 8192
"""Bytes to which headers may unfold."""
_STATUSES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING: Final = 1
_NOT_FOUND: Final = b"5"
_UNIMPLEMENTED: Final = b"12"
_PREFIX: Final = 5
"""Bytes before a message: whether it is compressed, and its length."""
_SKIPPED: Final = {1: 8, 5: 4}
"""Sizes of fields of the wire types that have one; 0 is a varint, 2 says its own."""
_MOST_VARINT: Final = 10


class Call:
    """One call. Send what :meth:`outgoing` returns, hand over what comes back, until it is ``over``."""

    def __init__(self, probe: GrpcProbe) -> None:
        """Prepare the question.

        Args:
            probe: which port, and which service's health.
        """
        self.over = False
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._read = 0
        self._greeted = False
        self._problem = ""
        self._service = probe.service
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        limits = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: _MOST_HEADERS}
        self._http.local_settings = Settings(client=True, initial_values=limits)
        self._http.decoder.max_header_list_size = _MOST_HEADERS
        self._http.initiate_connection()
        self._http.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/grpc.health.v1.Health/Check"),
                (":authority", f"localhost:{probe.port}"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", "crucible-probe"),
            ],
        )
        self._http.send_data(1, framed(request_of(probe.service)), end_stream=True)

    def outgoing(self) -> bytes:
        """Return what is to be sent now."""
        return self._http.data_to_send()

    def take(self, chunk: bytes) -> None:
        """Read what came back; nothing is the end."""
        if not chunk:
            strange = self._read and not self._greeted
            self._fail("the answer is no HTTP/2" if strange else "no answer before the end")
            return
        self._read += len(chunk)
        if self._read > MOST:
            self._fail("the answer is too long")
            return
        try:
            self._see(self._http.receive_data(chunk))
        except H2Error:
            self._fail("the answer is no HTTP/2")

    def answer(self) -> Answer:
        """Return what the call came to."""
        problem = self._problem or self._verdict()
        return Answer(ok=not problem, message=problem)

    def _fail(self, problem: str) -> None:
        self.over, self._problem = True, self._problem or problem

    def _see(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, RemoteSettingsChanged):
                self._greeted = True
            elif isinstance(event, ResponseReceived | TrailersReceived):
                self._headers |= {bytes(name): bytes(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self._body += event.data
            elif isinstance(event, StreamEnded):
                self.over = True
                return
            elif isinstance(event, StreamReset | ConnectionTerminated):
                self._fail(f"the call was ended with the HTTP/2 error {int(event.error_code or 0)}")
                return

    def _verdict(self) -> str:
        """Return what is wrong with a call that came to its end."""
        if self._headers.get(b":status") != b"200":
            return f"HTTP status {_shown(self._headers.get(b':status', b''))}"
        if not self._headers.get(b"content-type", b"").startswith(b"application/grpc"):
            return "the answer is no gRPC"
        match self._headers.get(b"grpc-status"):
            case b"0":
                pass
            case code if code == _NOT_FOUND:
                return f"it knows no service {self._service!r} (NOT_FOUND)"
            case code if code == _UNIMPLEMENTED:
                return "it has no health service (UNIMPLEMENTED)"
            case code:
                return f"gRPC status {_shown(code or b'')}"
        status = status_of(self._body)
        if status is None:
            return "the answer is no message of the health service"
        return "" if status == _SERVING else _STATUSES.get(status, f"status {status}")


def request_of(service: str) -> bytes:
    """Return a ``HealthCheckRequest``: field 1, a string of at most 255 bytes; an empty one is left out."""
    name = service.encode("ascii")
    return b"\x0a" + _varint(len(name)) + name if name else b""


def framed(message: bytes) -> bytes:
    """Return a message as it goes over the wire: not compressed, and its length first."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def status_of(body: bytes) -> int | None:
    """Return the status in a framed ``HealthCheckResponse``: field 1; None where it is none."""
    message = body[_PREFIX:]
    if len(body) < _PREFIX or body[0] != 0 or int.from_bytes(body[1:_PREFIX], "big") != len(message):
        return None
    status, at = 0, 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        if at < 0 or tag >> 3 == 0:
            return None
        value, at = _read_field(message, at, tag & 7)
        if at < 0 or at > len(message) or (tag >> 3 == 1 and tag & 7 != 0):
            return None
        if tag >> 3 == 1:
            status = value
    return status


def _read_field(message: bytes, at: int, kind: int) -> tuple[int, int]:
    """Return a field's value, where it is a number, and where the next begins; -1: it is none."""
    if kind == 0:
        return _read_varint(message, at)
    if kind == 2:  # noqa: PLR2004 - the wire type of what says its length
        size, at = _read_varint(message, at)
        return 0, at if at < 0 else at + size
    return 0, at + _SKIPPED[kind] if kind in _SKIPPED else -1


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(message[at : at + _MOST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says there is more
            return value, at + shift + 1
    return 0, -1


def _varint(value: int) -> bytes:
    """Return a number below 16384."""
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])  # noqa: PLR2004


def _shown(value: bytes) -> str:
    """Return a stranger's word, harmless and short."""
    word = "".join(char for char in value.decode("ascii", "ignore") if char.isprintable())
    return word[:20] or "missing"
