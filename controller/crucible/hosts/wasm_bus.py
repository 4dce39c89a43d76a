"""The bus, as functions that a WebAssembly module imports from ``crucible``.

A module has one thread, so there is one thing at a time: it asks and waits, or takes what comes next. While
it waits for anything here, calls and messages that come in line up for ``bus_next``, and pings are answered.
What it may do is judged by the broker alone.

Stands by itself beside the host, in the same Python: the standard library and nothing besides.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from wasmtime import FuncType, Memory, Trap, ValType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wasmtime import Caller, Linker

CODES: Final = (
    *("", "Malformed", "UnsupportedVersion", "NotPermitted", "NoSuchPlugin", "NoSuchMethod", "Unavailable"),
    *("Overloaded", "DeadlineExceeded", "Cancelled", "TooLarge", "Conflict", "NotFound", "StoreFull"),
    "Failed",
)
"""An error is the negative of its place here; one that has none is ``Failed``."""
NOTHING, CALLED, TOLD, CONFIGURED = range(4)
"""What ``bus_next`` returns."""
WINDOW: Final = 8
"""Calls that line up at most; the broker holds back further ones."""
MESSAGES: Final = 64
"""Messages that line up at most; later ones are lost, and counted."""
NUMBERS: Final = {"store_revision": "revision", "event_sequence": "sequence", "bus_missed": "missed"}
"""Functions that return a number which came with what is looked at, by its header."""
GRACE: Final = 1.0
"""Seconds by which the broker may be late with its word that a call is."""
_HELLO, _CALL, _ANSWER, _ERROR, _CANCEL = 1, 3, 4, 5, 6
_PUBLISH, _SUBSCRIBE, _MESSAGE = 9, 10, 12
_HEAD: Final = struct.Struct(">IBBBBIIHH")
_LARGEST: Final = 16 + 255 + 4096 + 1024 * 1024
_HANDSHAKE: Final = 10.0
_PAUSE: Final = 0.2
_PAYLOAD, _NAME, _FROM = range(3)  # of bus_take
_UNSIGNED: Final = 0xFFFFFFFF
_CONFIG: Final = 1  # of bus_open's flags: the program takes new configurations


class Frame(NamedTuple):
    """One message of the wire, as docs/wire.md has it."""

    kind: int
    id: int = 0
    name: str = ""
    payload: bytes = b""
    headers: Mapping[str, str] = {}
    priority: int = 2
    deadline: int = 0

    @property
    def caller(self) -> bytes:
        """Who sent it."""
        return self.headers.get("from", "").encode()


class Failure(Exception):
    """Something was not done; the code, and why."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    pairs = b"".join(
        bytes((len(key),)) + key.encode() + len(value.encode()).to_bytes(2, "big") + value.encode()
        for key, value in frame.headers.items()
    )
    name = frame.name.encode()
    length = 16 + len(name) + len(pairs) + len(frame.payload)
    if len(name) > 255 or len(pairs) > 4096 or length > _LARGEST:  # noqa: PLR2004 - the wire's figures
        raise Failure("TooLarge", "name, headers and payload: 255, 4096 and 1048576 bytes at most")
    numbers = (length, frame.kind, frame.priority, 0, 0, frame.id, frame.deadline, len(name), len(pairs))
    return _HEAD.pack(*numbers) + name + pairs + frame.payload


def decode(kept: bytearray) -> Frame | None:
    """Take the first frame from what came in; None while it is not whole."""
    if len(kept) < _HEAD.size:
        return None
    length, kind, priority, _, _, ident, deadline, name_size, headers_size = _HEAD.unpack_from(kept)
    if length > _LARGEST or len(kept) < 4 + length:
        return None
    names = _HEAD.size + name_size
    payload = names + headers_size
    pairs, headers = bytes(kept[names:payload]), {}
    while pairs:
        value = 3 + pairs[0]
        end = value + int.from_bytes(pairs[value - 2 : value], "big")
        headers[pairs[1 : value - 2].decode()] = pairs[value:end].decode()
        pairs = pairs[end:]
    name = bytes(kept[_HEAD.size : names]).decode()
    frame = Frame(kind, ident, name, bytes(kept[payload : 4 + length]), headers, priority, deadline)
    del kept[: 4 + length]
    return frame


class Bus:
    """One connection to the broker, made anew when it breaks."""

    def __init__(self, address: str, authority: str = "") -> None:
        self.got = Frame(_ANSWER)
        """What the functions that read look at: the last answer, call, message or error."""
        self._address = address
        self._authority = authority
        self._socket: socket.socket | None = None
        self._methods: list[str] = []
        self._flags = 0
        self._patterns: dict[int, str] = {}
        self._kept = bytearray()
        self._answers: dict[int, Frame | None] = {}
        self._events: deque[Frame] = deque()
        self._missed = 0
        self._serving = 0
        self._last = -1

    def open(self, methods: str, flags: int) -> int:
        """Connect, and say which methods there are."""
        self._methods, self._flags = methods.split(), flags
        self._hang_up()
        self._connect()
        return 0

    def call(self, name: str, payload: bytes, time_left: int = 0, headers: Mapping[str, str] = {}) -> int:
        """Call a method and wait for its answer, 30 s unless milliseconds are given."""
        frame = Frame(_CALL, self._id(), name, payload, headers, deadline=max(time_left, 0))
        left = time_left / 1000 if time_left > 0 else 30.0
        self.got = self._ask(frame, time.monotonic() + left + GRACE)
        return 0

    def publish(self, subject: str, payload: bytes) -> int:
        """Tell whoever listens; return how many do."""
        self.got = self._ask(Frame(_PUBLISH, self._id(), subject, payload), time.monotonic() + _HANDSHAKE)
        return int(self.got.headers.get("reached", "0"))

    def subscribe(self, pattern: str) -> int:
        """Listen from now on."""
        ident = self._id()
        self.got = self._ask(Frame(_SUBSCRIBE, ident, pattern), time.monotonic() + _HANDSHAKE)
        self._patterns[ident] = pattern
        return 0

    def take_event(self, pattern: str, subscription: str, done: int, time_left: int) -> int:
        """Take the oldest durable event that fits; return 1, or 0 when none came in time."""
        headers = {"pattern": pattern, **({"subscription": subscription} if subscription else {})}
        if done > 0:
            headers["done"] = str(done)
        try:
            self.call("$events.take", b"", time_left, headers)
        except Failure as failure:
            if failure.code != "DeadlineExceeded":
                raise
            return NOTHING
        return 1

    def number(self, header: str) -> int:
        """Return a number that came with what is looked at; 0: none did."""
        return int(self.got.headers.get(header, "0"))

    def next(self, milliseconds: int) -> int:
        """Take the call, message or configuration that came first; wait for it as long as is said."""
        due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
        self._refuse("the program went on without an answer")
        while not self._events:
            left = None if due is None else due - time.monotonic()
            if left is not None and left < 0:
                return NOTHING
            try:
                self._connect()
                self._read(left)
            except Failure:
                time.sleep(_PAUSE if left is None else min(_PAUSE, left))
        self.got = self._events.popleft()
        if self.got.kind == _MESSAGE:
            return TOLD
        self._serving = self.got.id
        return CONFIGURED if self.got.name == "$config" else CALLED

    def answer(self, frame: Frame) -> int:
        """Answer the call that was taken last."""
        if self._serving:
            ident, self._serving = self._serving, 0
            self._send(frame._replace(id=ident, priority=self.got.priority))
        return 0

    def _refuse(self, why: str) -> None:
        if self._serving:
            self.answer(Frame(_ERROR, name="Failed", payload=why.encode()))

    def _id(self) -> int:
        self._last = (self._last + 2) & 0xFFFFFFFF
        return self._last

    def _ask(self, frame: Frame, due: float) -> Frame:
        self._connect()
        self._answers[frame.id] = None
        try:
            self._send(frame)
            while (answer := self._answers[frame.id]) is None:
                left = due - time.monotonic()
                if left <= 0:
                    raise Failure("DeadlineExceeded", "no answer came in time")
                self._read(left)
        finally:
            del self._answers[frame.id]
        if answer.kind == _ERROR:
            raise Failure(answer.name, answer.payload.decode(errors="replace"))
        return answer

    def _connect(self) -> None:
        if self._socket is not None:
            return
        if not self._address:
            raise Failure("Unavailable", "this plugin has no bus: grant it something under capabilities.bus")
        try:
            self._socket = _reach(self._address, self._authority)
        except (OSError, ValueError) as error:
            raise Failure("Unavailable", f"the bus is not there: {error}") from None
        hello = {"wire": [1], "client": "crucible-wasm/1", "methods": self._methods, "window": WINDOW}
        self._send(Frame(_HELLO, payload=json.dumps(hello).encode()))
        self._answers[0] = None
        while (welcome := self._answers[0]) is None:
            self._read(_HANDSHAKE, late="the broker does not greet")
        del self._answers[0]
        if welcome.kind == _ERROR:
            self._hang_up()
            raise Failure(welcome.name, welcome.payload.decode(errors="replace"))
        for ident, pattern in self._patterns.items():
            self._send(Frame(_SUBSCRIBE, ident, pattern))

    def _send(self, frame: Frame) -> None:
        data = encode(frame)
        if self._socket is None:
            raise Failure("Unavailable", "the bus is not there just now")
        try:
            self._socket.settimeout(_HANDSHAKE)
            self._socket.sendall(data)
        except OSError as error:
            self._hang_up()
            raise Failure("Unavailable", f"the bus went away: {error}") from None

    def _read(self, seconds: float | None, late: str = "") -> None:
        """Take in what comes within so many seconds, or nothing."""
        current = self._socket
        if current is None:
            raise Failure("Unavailable", "the bus went away")
        current.settimeout(None if seconds is None else max(seconds, 0.001))
        try:
            data = current.recv(65536)
        except TimeoutError:
            if late:
                self._hang_up()
                raise Failure("Unavailable", late) from None
            return
        except OSError as error:
            self._hang_up()
            raise Failure("Unavailable", f"the bus went away: {error}") from None
        if not data:
            self._hang_up()
            raise Failure("Unavailable", "the bus went away; it is not known whether the call was done")
        self._kept += data
        while (frame := decode(self._kept)) is not None:
            self._receive(frame)

    def _receive(self, frame: Frame) -> None:
        if frame.id in self._answers and frame.kind not in (_CALL, _MESSAGE):
            self._answers[frame.id] = frame
        elif frame.kind == _MESSAGE:
            self._told(frame)
        elif frame.kind == _CANCEL:
            self._serving = 0 if self._serving == frame.id else self._serving
            self._events = deque(one for one in self._events if one.id != frame.id or one.kind != _CALL)
        elif frame.kind == _CALL:
            self._called(frame)

    def _told(self, frame: Frame) -> None:
        missed = self._missed + int(frame.headers.get("missed", "0"))
        if len(self._events) >= MESSAGES:
            self._missed = missed + 1
            return
        self._missed = 0
        self._events.append(frame._replace(headers={**frame.headers, "missed": str(missed)}))

    def _called(self, frame: Frame) -> None:
        if frame.name == "$ping":
            self._send(Frame(_ANSWER, frame.id, payload=frame.payload, priority=frame.priority))
        elif frame.name.startswith("$") and not (frame.name == "$config" and self._flags & _CONFIG):
            self._send(Frame(_ERROR, frame.id, "NoSuchMethod", priority=frame.priority))
        else:
            self._events.append(frame)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._serving = None, 0
        self._kept.clear()
        self._events = deque(one for one in self._events if one.kind == _MESSAGE)


def _reach(address: str, authority: str) -> socket.socket:
    """Connect to a Unix socket; or by TLS 1.3, to whom the authority vouches for by its name."""
    scheme, found, rest = address.rpartition("://")
    if not found:
        return _unix(address)
    path = rest if rest.startswith("/") else ""
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    named = host and "/" not in host and port.isascii() and port.isdigit()
    if scheme != "tls" or not authority or not (path or named):
        raise ValueError("CRUCIBLE_BUS is tls://HOST:PORT or tls:///PATH, and CRUCIBLE_BUS_CA a certificate")
    import ssl  # noqa: PLC0415 - most have no use for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    context.load_verify_locations(cafile=authority)
    plain = _unix(path) if path else socket.create_connection((host, int(port)), _HANDSHAKE)
    try:
        if not path:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="crucible-bus" if path else host)
    except BaseException:
        plain.close()
        raise


def _unix(path: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.settimeout(_HANDSHAKE)
    try:
        found.connect(path)
    except BaseException:
        found.close()
        raise
    return found


class _Within:
    """The calling module's memory, read and written within its bounds."""

    def __init__(self, caller: Caller) -> None:
        memory = caller.get("memory")
        if not isinstance(memory, Memory):
            raise Trap("the module exports no memory")
        self._caller = caller
        self._memory = memory

    def piece(self, at: int, size: int) -> bytes:
        at, size = at & _UNSIGNED, size & _UNSIGNED
        if at + size > self._memory.data_len(self._caller):
            raise Trap("what a function of crucible was given lies outside of the memory")
        return bytes(self._memory.read(self._caller, at, at + size))

    def text(self, at: int, size: int) -> str:
        try:
            return self.piece(at, size).decode()
        except UnicodeDecodeError:
            raise Failure("Malformed", "not UTF-8") from None

    def put(self, data: bytes, at: int, size: int) -> int:
        at, size = at & _UNSIGNED, size & _UNSIGNED
        if at + size > self._memory.data_len(self._caller):
            raise Trap("what a function of crucible was given lies outside of the memory")
        self._memory.write(self._caller, data[:size], at)
        return len(data)


def define(linker: Linker, bus: Bus) -> None:
    """Let a module import all of it: numbers and pieces of its memory in, numbers out."""
    i32, i64 = ValType.i32(), ValType.i64()
    one, two = [i32, i32], [i32, i32, i32, i32]

    def offer(name: str, parameters: list[ValType], work: Callable[..., int]) -> None:
        def called(caller: Caller, *numbers: int) -> int:
            try:
                return work(_Within(caller), *numbers)
            except Failure as failure:
                bus.got = Frame(_ERROR, name=failure.code, payload=str(failure).encode())
                return -(CODES.index(failure.code) if failure.code in CODES else len(CODES) - 1)

        linker.define_func("crucible", name, FuncType(parameters, [i32]), called, access_caller=True)

    def take(memory: _Within, what: int, at: int, size: int) -> int:
        got = bus.got
        fields = {
            _PAYLOAD: got.payload,
            _NAME: (got.name or got.headers.get("subject", "")).encode(),
            _FROM: got.headers.get("from", "").encode(),
        }
        return memory.put(fields.get(what, b""), at, size)

    offer("bus_open", [*one, i32], lambda m, at, size, flags: bus.open(m.text(at, size), flags))
    offer("bus_call", [*two, i32], lambda m, a, b, c, d, time: bus.call(m.text(a, b), m.piece(c, d), time))
    offer("bus_publish", two, lambda m, a, b, c, d: bus.publish(m.text(a, b), m.piece(c, d)))
    offer("bus_subscribe", one, lambda m, at, size: bus.subscribe(m.text(at, size)))
    offer("bus_next", [i32], lambda _, time: bus.next(time))
    offer("bus_answer", one, lambda m, at, size: bus.answer(Frame(_ANSWER, payload=m.piece(at, size))))
    offer(
        "bus_fail",
        one,
        lambda m, at, size: bus.answer(Frame(_ERROR, name="Failed", payload=m.piece(at, size))),
    )
    offer("bus_ready", [], lambda _: bus.call("$bus.ready", b""))
    offer("bus_unready", one, lambda m, at, size: bus.call("$bus.unready", m.piece(at, size)))
    offer("bus_take", [i32, *one], take)
    offer("store_get", one, lambda m, at, size: bus.call("$store.get", b"", 0, {"key": m.text(at, size)}))
    offer(
        "store_put",
        [*two, i64],
        lambda m, a, b, c, d, old: bus.call("$store.put", m.piece(c, d), 0, _store(m.text(a, b), old)),
    )
    offer(
        "store_delete",
        [*one, i64],
        lambda m, at, size, old: bus.call("$store.delete", b"", 0, _store(m.text(at, size), old)),
    )
    offer(
        "store_list",
        two,
        lambda m, a, b, c, d: bus.call(
            "$store.list", b"", 0, {"prefix": m.text(a, b), "after": m.text(c, d)}
        ),
    )
    offer(
        "event_put",
        [*two, *one],
        lambda m, a, b, c, d, e, f: bus.call(
            "$events.put", m.piece(c, d), 0, _event(m.text(a, b), m.text(e, f))
        ),
    )
    offer(
        "event_take",
        [*two, i64, i32],
        lambda m, a, b, c, d, done, time: bus.take_event(m.text(a, b), m.text(c, d), done, time),
    )
    for name, header in NUMBERS.items():
        work = partial(bus.number, header)
        linker.define_func("crucible", name, FuncType([], [i64]), work)


def own() -> Bus:
    """Return this plugin's."""
    return Bus(os.environ.get("CRUCIBLE_BUS", ""), os.environ.get("CRUCIBLE_BUS_CA", ""))


def _store(key: str, revision: int) -> dict[str, str]:
    """Return the headers of a change; a negative revision: whichever is there."""
    return {"key": key} if revision < 0 else {"key": key, "revision": str(revision)}


def _page(prefix: str, after: str) -> dict[str, str]:
    """Return the headers of a list of keys."""
    return {"prefix": prefix, "after": after}


def _event(subject: str, ident: str) -> dict[str, str]:
    """Return the headers of a durable event; without an identifier it is kept as often as it is put."""
    return {"subject": subject, "id": ident} if ident else {"subject": subject}
