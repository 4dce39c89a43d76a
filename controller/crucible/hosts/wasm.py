"""Runs one WebAssembly program as a plugin: a WASI command, within a budget of fuel, memory and time.

Takes a module for WASI preview 1, in binary or as text, or a component for ``wasi:cli``. It sees ``/plugin``
and ``/config``, which it cannot change, ``/tmp``, its arguments and its environment, and nothing else; a
module may import the bus from ``crucible``.

It is run by file name, in a Python that has ``wasmtime`` and the standard library and nothing besides.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import wasmtime
from wasmtime import ExitTrap, Trap, TrapCode, WasmtimeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Made = TypeVar("Made")

USAGE: Final = """\
usage: crucible-wasm [--fuel N] [--memory BYTES] [--time SECONDS] [--root DIR] [--] PROGRAM [ARGUMENT...]
  --fuel N        end after N units of fuel, about one for each instruction (exit code 71)
  --memory BYTES  let the program hold BYTES and no more (72)
  --time SECONDS  end after SECONDS, asleep or not (73)
  --root DIR      look for /plugin, /config and /tmp in DIR
What is not given is not limited."""

WRONG_USE: Final = 64
INVALID: Final = 65
UNREADABLE: Final = 66
TRAPPED: Final = 70
OUT_OF_FUEL: Final = 71
OUT_OF_MEMORY: Final = 72
OUT_OF_TIME: Final = 73
ASKED: Final = 128 + signal.SIGTERM

_MAGIC: Final = b"\0asm"
_COMPONENT: Final = b"\0asm\x0d\0\x01\0"
_RUN: Final = tuple(f"wasi:cli/run@0.2.{patch}" for patch in range(12, -1, -1))
_NEARLY: Final = 16  # the part of the limit that is next to nothing
_FRAMES: Final = 16
_TRAP: Final = "wasm trap: "
_BEYOND_LIMITS: Final = ("exceeds memory limits", "exceeds table limits", "resource limit exceeded")
_MOST_FUEL: Final = (1 << 63) - 1
_TABLES: Final = 4
_BYTES_FOR_ENTRY: Final = 64  # of the limit; an entry of a table takes eight
# A module is one instance with one memory. A component is several, which share what they are made of.
_MODULE: Final = (1, 1)
_COMPONENT_PARTS: Final = (32, 2)
_MOMENT: Final = 0.5  # seconds a program has to stop by itself when its time is over


class Ended(Exception):
    """The program ended, or cannot be run.

    Attributes:
        code: the exit code.
        lines: what to say; the first line says why.
    """

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__(*lines)
        self.code = code
        self.lines = lines


class Options(NamedTuple):
    """What to run, and within which limits; none where there is None."""

    program: str
    arguments: tuple[str, ...] = ()
    fuel: int | None = None
    memory: int | None = None
    time: float | None = None
    root: str = "/"


def parse(words: Sequence[str]) -> Options:
    """Read the words after the program's name.

    Raises:
        Ended: they are wrong.
    """
    values: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name = rest.pop(0)
        if name == "--":
            break
        if name not in ("--fuel", "--memory", "--time", "--root"):
            raise Ended(WRONG_USE, f"unknown option {name}", USAGE)
        if not rest:
            raise Ended(WRONG_USE, f"{name} needs a value", USAGE)
        values[name] = rest.pop(0)
    if not rest:
        raise Ended(WRONG_USE, "no program is named", USAGE)
    return Options(
        program=rest[0],
        arguments=tuple(rest[1:]),
        fuel=_whole("--fuel", values.get("--fuel")),
        memory=_whole("--memory", values.get("--memory")),
        time=_seconds("--time", values.get("--time")),
        root=values.get("--root", "/"),
    )


def run(options: Options) -> NoReturn:
    """Run a program to its end.

    Raises:
        Ended: always.
    """
    engine = _engine(options)
    over = threading.Event()
    if options.time is not None:
        watch = threading.Thread(target=_watch, args=(engine, options.time, over), daemon=True)
        watch.start()
    binary = _binary(Path(options.root, options.program.lstrip("/")))
    store = _store(engine, options, _COMPONENT_PARTS if binary.startswith(_COMPONENT) else _MODULE)
    start = _component if binary.startswith(_COMPONENT) else _module
    try:
        start(store, binary, options.memory)
    except ExitTrap as trap:
        raise Ended(trap.code) from None
    except Trap as trap:
        raise _trapped(trap, 0, options.memory) from None
    except WasmtimeError as error:
        raise _refused(error) from None
    finally:
        over.set()
    raise Ended(0)


def _engine(options: Options) -> wasmtime.Engine:
    config = wasmtime.Config()
    config.parallel_compilation = False  # threads count against the limit of the sandbox
    config.wasm_multi_memory = False
    config.wasm_gc = False
    config.consume_fuel = options.fuel is not None
    config.epoch_interruption = options.time is not None
    return wasmtime.Engine(config)


def _store(engine: wasmtime.Engine, options: Options, parts: tuple[int, int]) -> wasmtime.Store:
    store = wasmtime.Store(engine)
    if options.fuel is not None:
        store.set_fuel(min(options.fuel, _MOST_FUEL))
    if options.time is not None:
        store.set_epoch_deadline(1)
    if options.memory is not None:
        instances, memories = parts
        entries = options.memory // _BYTES_FOR_ENTRY
        store.set_limits(options.memory, entries, instances, max(_TABLES, instances), memories)
    wasi = wasmtime.WasiConfig()
    wasi.argv = [options.program, *options.arguments]
    wasi.env = list(os.environ.items())
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for name, changeable in (("plugin", False), ("config", False), ("tmp", True)):
        folder = Path(options.root, name)
        if folder.is_dir():
            wasi.preopen_dir(str(folder), f"/{name}", changeable)
    store.set_wasi(wasi)
    return store


def _binary(path: Path) -> bytes:
    """Read a program, and turn text into what it stands for.

    Raises:
        Ended: it cannot be read, or is neither.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Ended(UNREADABLE, f"cannot read {path}: {error.strerror}") from None
    if content.startswith(_MAGIC):
        return content
    try:
        return bytes(wasmtime.wat2wasm(content.decode()))
    except UnicodeDecodeError:
        raise Ended(INVALID, f"{path} is neither WebAssembly nor its text format") from None
    except WasmtimeError as error:
        raise Ended(INVALID, *_lines(f"not WebAssembly: {error}")) from None


def _module(store: wasmtime.Store, binary: bytes, limit: int | None) -> None:
    module = _made(wasmtime.Module, store, binary)
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    if any(one.module == "crucible" for one in module.imports):
        _lend_the_bus(linker)
    exports = linker.instantiate(store, module).exports(store)
    start, memory = exports.get("_start"), exports.get("memory")
    if not isinstance(start, wasmtime.Func):
        raise Ended(INVALID, "the module exports no function _start: build it as a command, not as a library")
    try:
        start(store)
    except Trap as trap:
        held = memory.data_len(store) if isinstance(memory, wasmtime.Memory) else 0
        raise _trapped(trap, held, limit) from None


def _lend_the_bus(linker: wasmtime.Linker) -> None:
    """Define the functions of ``crucible``: the package beside this file, loaded where a program wants it."""
    beside = Path(__file__).with_name(f"{Path(__file__).stem}_bus")
    found = importlib.util.spec_from_file_location(
        "crucible_wasm_bus", beside / "__init__.py", submodule_search_locations=[str(beside)]
    )
    if found is None or found.loader is None:
        raise Ended(INVALID, f"cannot load {beside}")
    bus = importlib.util.module_from_spec(found)
    sys.modules[found.name] = bus
    found.loader.exec_module(bus)
    bus.define(linker, bus.own())


def _component(store: wasmtime.Store, binary: bytes, _: int | None) -> None:
    from wasmtime import component  # noqa: PLC0415 - most programs are none, and start sooner

    made = _made(component.Component, store, binary)
    linker = component.Linker(store.engine)
    linker.add_wasip2()
    instance = linker.instantiate(store, made)
    for name in _RUN:
        inside = instance.get_export_index(store, name)
        index = inside and instance.get_export_index(store, "run", inside)
        function = index and instance.get_func(store, index)
        if function:
            result = function(store)
            raise Ended(int(getattr(result, "tag", "ok") == "err"))
    raise Ended(INVALID, "the component does not export wasi:cli/run@0.2: only commands can be run")


def _made(kind: Callable[[wasmtime.Engine, bytes], Made], store: wasmtime.Store, binary: bytes) -> Made:
    try:
        return kind(store.engine, binary)
    except WasmtimeError as error:
        raise Ended(INVALID, *_lines(f"not valid: {error}")) from None


def _trapped(trap: Trap, held: int, limit: int | None) -> Ended:
    """Tell what a program trapped for.

    A program whose memory may not grow is told so, and mostly gives up by a trap of its own: one with next to
    nothing left of its memory is taken to be out of it.
    """
    frames = [f"  at {frame.func_name or f'function {frame.func_index}'}" for frame in trap.frames[:_FRAMES]]
    code = trap.trap_code
    if code is TrapCode.OUT_OF_FUEL:
        return Ended(OUT_OF_FUEL, "out of fuel: the limit is used up", *frames)
    if code is TrapCode.INTERRUPT:
        return Ended(OUT_OF_TIME, "out of time: the limit is used up", *frames)
    if limit is not None and held and limit - held < limit // _NEARLY:
        return Ended(OUT_OF_MEMORY, f"out of memory: it held {held} bytes of {limit}", *frames)
    what = code.name.lower().replace("_", " ") if code else _lines(trap.message)[-1]
    return Ended(TRAPPED, f"trapped: {what}; it held {held} bytes of memory", *frames)


def _refused(error: WasmtimeError) -> Ended:
    """Tell why a program did not start, or what a component trapped for: that comes as text alone."""
    lines = _lines(str(error))
    trap = next((line.removeprefix(_TRAP) for line in lines if line.startswith(_TRAP)), None)
    match trap:
        case "all fuel consumed by WebAssembly":
            return Ended(OUT_OF_FUEL, "out of fuel: the limit is used up")
        case "interrupt":
            return Ended(OUT_OF_TIME, "out of time: the limit is used up")
        case str():
            return Ended(TRAPPED, f"trapped: {trap}")
    if any(sign in line for line in lines for sign in _BEYOND_LIMITS):
        return Ended(OUT_OF_MEMORY, "out of memory: the program begins with more than the limit")
    return Ended(INVALID, f"cannot start: {lines[0]}", *lines[1:])


def _watch(engine: wasmtime.Engine, seconds: float, over: threading.Event) -> None:
    """End the program when its time is over: by itself, or, where it compiles or sleeps, at once."""
    if over.wait(min(seconds, threading.TIMEOUT_MAX)):
        return
    engine.increment_epoch()
    if not over.wait(_MOMENT):
        _say("out of time: the limit is used up")
        os._exit(OUT_OF_TIME)


def _listen() -> None:
    """Let SIGTERM end the first process of a container too, which ignores what it does not handle."""
    if os.getpid() != 1:
        return
    told, bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(told, True)
    signal.set_wakeup_fd(bell)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def end() -> None:
        os.read(told, 1)
        os._exit(ASKED)

    threading.Thread(target=end, daemon=True).start()


def _whole(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isascii() or not value.isdigit():
        raise Ended(WRONG_USE, f"{name} {value}: not a whole number", USAGE)
    return int(value)


def _seconds(name: str, value: str | None) -> float | None:
    with contextlib.suppress(ValueError):
        if value is None or float(value) > 0:
            return None if value is None else float(value)
    raise Ended(WRONG_USE, f"{name} {value}: not a number of seconds", USAGE)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()][:_FRAMES] or ["no reason was given"]


def _say(*lines: str) -> None:
    sys.stderr.write("crucible-wasm: " + "\n".join(lines) + "\n")
    sys.stderr.flush()


def main() -> NoReturn:
    """Run what the command line names, and end with its exit code."""
    _listen()
    try:
        run(parse(sys.argv[1:]))
    except Ended as ended:
        if ended.lines:
            _say(*ended.lines)
        sys.stdout.flush()
        os._exit(ended.code)


if __name__ == "__main__":
    main()
