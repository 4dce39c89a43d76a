"""The functions of ``crucible``: what each takes, and what does it."""

from __future__ import annotations

import json
import os
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from wasmtime import FuncType, ValType

from . import kept, streams, wire
from .bus import Bus
from .log import LEVELS, Log
from .memory import Within
from .stop import Stop
from .wire import Failure, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from wasmtime import Caller, Linker

    Work = Callable[..., int]

CODES: Final = (
    *("", "Malformed", "UnsupportedVersion", "NotPermitted", "NoSuchPlugin", "NoSuchMethod", "Unavailable"),
    *("Overloaded", "DeadlineExceeded", "Cancelled", "TooLarge", "Conflict", "NotFound", "StoreFull"),
    "Failed",
)
"""An error is the negative of its place here; one that has none is ``Failed``."""


class Kind(Enum):
    """What a function takes, and by which numbers."""

    TEXT = "text"
    BYTES = "bytes"
    ROOM = "room"
    NUMBER = "i32"
    LONG = "i64"


T, B, R, N, L = Kind


def copy(bus: Bus, what: int, room: Callable[[bytes], int]) -> int:
    """Copy a part of what came last as much as fits; return how long it is."""
    got = bus.got
    match what:
        case 0:
            return room(got.payload)
        case 1:
            return room((got.name or got.headers.get("subject", "")).encode())
        case 2:
            return room(got.headers.get("from", "").encode())
        case 3:
            return room(json.dumps(dict(got.headers), ensure_ascii=False).encode())
        case 4:
            return room((bus.trace.parent if bus.trace else "").encode())
        case _:
            return room(b"")


def fail_as(bus: Bus, code: int, why: str) -> int:
    """End the call with a code by its place."""
    return bus.fail(CODES[code] if 0 < code < len(CODES) else "Failed", why)


def write_log(bus: Bus, level: int, message: str, fields: bytes) -> int:
    """Write a line of the log."""
    try:
        told = json.loads(fields) if fields else {}
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Failure("Malformed", "the fields of a line are an object of JSON")
    bus.log.write(min(max(level, 0), len(LEVELS) - 1), message, told, bus.trace)
    return 0


FUNCTIONS: Final[Mapping[str, tuple[Sequence[Kind], Work]]] = {
    "bus_open": ((T, N), Bus.open),
    "bus_call": ((T, B, N), Bus.call),
    "bus_stream": ((T, B, N), streams.begin),
    "stream_next": ((N, N), streams.take),
    "stream_put": ((N, B), streams.give),
    "stream_finish": ((N,), streams.finish),
    "stream_close": ((N,), streams.close),
    "bus_header": ((T, T), Bus.set_header),
    "bus_priority": ((N,), Bus.set_priority),
    "bus_publish": ((T, B), Bus.publish),
    "bus_subscribe": ((T,), Bus.subscribe),
    "bus_next": ((N,), Bus.next),
    "bus_answer": ((B,), Bus.answer),
    "bus_fail": ((T,), lambda bus, why: bus.fail("Failed", why)),
    "bus_fail_as": ((N, T), fail_as),
    "bus_ready": ((), Bus.say_ready),
    "bus_unready": ((T,), Bus.say_unready),
    "bus_take": ((N, R), copy),
    "store_get": ((T,), kept.get),
    "store_put": ((T, B, L), kept.put),
    "store_delete": ((T, L), kept.delete),
    "store_list": ((T, T), kept.keys),
    "store_watch": ((T,), streams.watch),
    "event_put": ((T, B, T), kept.put_event),
    "event_take": ((T, T, L, N), kept.take_event),
    "log_write": ((N, T, B), write_log),
}
"""By name: they return 0 or more, or the negative of an error's place among :data:`CODES`."""

NUMBERS: Final[Mapping[str, Callable[[Bus], int]]] = {
    "store_revision": lambda bus: _header(bus, "revision"),
    "store_deleted": lambda bus: int(bus.got.headers.get("op") == "delete"),
    "event_sequence": lambda bus: _header(bus, "sequence"),
    "bus_missed": lambda bus: _header(bus, "missed"),
    "bus_remaining": lambda bus: bus.remaining(),
    "bus_streams": lambda bus: int(bus.served is not None and bus.served.streams),
    "bus_cancelled": lambda bus: int(bus.is_unwanted()),
}
"""Functions that take nothing and return an ``i64``: of what came last, or of the call being served."""


_DIGITS: Final = 18  # fit into an i64


def _header(bus: Bus, name: str) -> int:
    """Return a number that came with what is looked at; 0: none did, or what another plugin says is none."""
    text = bus.got.headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else 0


def define(linker: Linker, bus: Bus) -> None:
    """Let a module import all of it: numbers and pieces of its memory in, numbers out."""
    for name, (kinds, work) in FUNCTIONS.items():
        parameters = [kind for each in kinds for kind in _numbers(each)]
        function = FuncType(parameters, [ValType.i32()])
        linker.define_func("crucible", name, function, _called(bus, kinds, work), access_caller=True)
    for name, number in NUMBERS.items():
        linker.define_func("crucible", name, FuncType([], [ValType.i64()]), _told(bus, number))


def _numbers(kind: Kind) -> list[ValType]:
    match kind:
        case Kind.NUMBER:
            return [ValType.i32()]
        case Kind.LONG:
            return [ValType.i64()]
        case Kind.TEXT | Kind.BYTES | Kind.ROOM:
            return [ValType.i32(), ValType.i32()]


def _called(bus: Bus, kinds: Sequence[Kind], work: Work) -> Callable[..., int]:
    def called(caller: Caller, *numbers: int) -> int:
        try:
            return int(work(bus, *_arguments(Within(caller), kinds, iter(numbers))))
        except Failure as failure:
            bus.got = Frame(wire.ERROR, 0, failure.code, str(failure).encode(), failure.headers)
            return -(CODES.index(failure.code) if failure.code in CODES else len(CODES) - 1)

    return called


def _arguments(memory: Within, kinds: Sequence[Kind], numbers: Iterator[int]) -> Iterator[Any]:
    for kind in kinds:
        first = next(numbers)
        match kind:
            case Kind.NUMBER | Kind.LONG:
                yield first
            case Kind.TEXT:
                yield memory.text(first, next(numbers))
            case Kind.BYTES:
                yield memory.piece(first, next(numbers))
            case Kind.ROOM:
                yield _room(memory, first, next(numbers))


def _room(memory: Within, at: int, size: int) -> Callable[[bytes], int]:
    return lambda data: memory.put(data, at, size)


def _told(bus: Bus, number: Callable[[Bus], int]) -> Callable[[], int]:
    def told() -> int:
        try:
            return number(bus)
        except Failure:
            return 0

    return told


def own() -> Bus:
    """Return this plugin's."""
    log = Log(os.environ.get("CRUCIBLE_LOG_LEVEL", "info"))
    return Bus(os.environ.get("CRUCIBLE_BUS", ""), os.environ.get("CRUCIBLE_BUS_CA", ""), log, Stop())
