"""A WebAssembly program that does on the bus whatever a test asks it to: every function, by its number.

Its imports are what the reference in plugin-images/wasm/README.md says, word for word: where that is wrong,
the program cannot be loaded. The call ``driver.do`` brings a script, made by :func:`script`; the answer says
what each step returned. What else ``bus_next`` brings it publishes to ``heard.WHAT``.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from sandboxless import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

_REFERENCE = REPOSITORY / "plugin-images/wasm/README.md"
_FUNCTION = re.compile(r"`([a-z]+_[a-z_]+)\(([^)`]*)\)( -> i64)?`")
_SCRIPT, _OUTPUT, _ROOM = 0x10000, 0x200000, 0x100000
_COPY = 254


class Function(NamedTuple):
    """One function: a piece of memory is ``p``, numbers are ``i32`` and ``i64``."""

    name: str
    kinds: tuple[str, ...]
    result: str

    @property
    def parameters(self) -> list[str]:
        return [part for kind in self.kinds for part in (["i32", "i32"] if kind == "p" else [kind])]


def reference() -> dict[str, Function]:
    """Return the functions that the reference names."""
    found = {}
    for name, inside, wide in _FUNCTION.findall(_REFERENCE.read_text()):
        kinds = [part.strip() for part in inside.split(",")] if inside else []
        kinds = ["p" if one.endswith(": p n") else "i64" if one.endswith(": i64") else "i32" for one in kinds]
        found[name] = Function(name, tuple(kinds), "i64" if wide else "i32")
    return found


def script(*steps: Sequence[object]) -> bytes:
    """Return the payload that makes the program do some steps: a function's name, then its arguments.

    ``("copy", what)`` is ``bus_take``: the result is the bytes.
    """
    functions = list(reference().values())
    names = [one.name for one in functions]
    sizes = [_size(functions[names.index(str(step[0]))]) if step[0] != "copy" else 5 for step in steps]
    data_at = _SCRIPT + sum(sizes) + 1
    code, data = b"", b""
    for name, *arguments in steps:
        if name == "copy":
            code += bytes((_COPY,)) + struct.pack("<i", arguments[0])
            continue
        number = names.index(str(name))
        code += bytes((number,))
        for kind, value in zip(functions[number].kinds, arguments, strict=True):
            if kind == "p":
                piece = value if isinstance(value, bytes) else str(value).encode()
                found = data.find(piece)
                code += struct.pack("<ii", data_at + (len(data) if found < 0 else found), len(piece))
                data += piece if found < 0 else b""
            else:
                code += struct.pack("<i" if kind == "i32" else "<q", value)
    return code + b"\xff" + data


def results(answer: bytes, *steps: Sequence[object]) -> list[int | bytes]:
    """Return what each step of a script returned."""
    found: list[int | bytes] = []
    for step in steps:
        (number,) = struct.unpack_from("<q", answer)
        answer = answer[8:]
        found.append(answer[:number] if step[0] == "copy" else number)
        answer = answer[number:] if step[0] == "copy" else answer
    return found


def program(pattern: str = "", flags: int = 3) -> str:
    """Return the program, in the text format; it listens to a pattern unless that is empty."""
    functions = list(reference().values())
    imports = "\n".join(
        f'(import "crucible" "{one.name}" (func ${one.name} '
        f"{''.join(f'(param {kind})' for kind in one.parameters)} (result {one.result})))"
        for one in functions
    )
    steps = "\n".join(_step(number, one) for number, one in enumerate(functions))
    listening = f"(drop (call $bus_subscribe (i32.const 32) (i32.const {len(pattern)})))" if pattern else ""
    return f"""(module
{imports}
(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
(memory (export "memory") 64)
(data (i32.const 16) "do")
(data (i32.const 32) "{pattern}")
(data (i32.const 64) "heard.0")
(global $out (mut i32) (i32.const 0))
(func $say (param $number i64)
  (i64.store (global.get $out) (local.get $number))
  (global.set $out (i32.add (global.get $out) (i32.const 8))))
(func $copy (param $what i32) (local $size i32)
  (local.set $size
    (call $bus_take (local.get $what) (i32.add (global.get $out) (i32.const 8)) (i32.const {_ROOM})))
  (call $say (i64.extend_i32_s (local.get $size)))
  (global.set $out (i32.add (global.get $out) (local.get $size))))
(func $run (local $pc i32) (local $op i32)
  (global.set $out (i32.const {_OUTPUT}))
  (drop (call $bus_take (i32.const 0) (i32.const {_SCRIPT}) (i32.const {_ROOM})))
  (local.set $pc (i32.const {_SCRIPT}))
  (loop $next
    (local.set $op (i32.load8_u (local.get $pc)))
    (local.set $pc (i32.add (local.get $pc) (i32.const 1)))
    {steps}
    (if (i32.eq (local.get $op) (i32.const {_COPY})) (then
      (call $copy (i32.load (local.get $pc)))
      (local.set $pc (i32.add (local.get $pc) (i32.const 4)))
      (br $next))))
  (drop (call $bus_answer
    (i32.const {_OUTPUT}) (i32.sub (global.get $out) (i32.const {_OUTPUT})))))
(func $tell (param $what i32)
  (i32.store8 (i32.const 70) (i32.add (i32.const 48) (local.get $what)))
  (global.set $out (i32.const {_OUTPUT}))
  (call $copy (i32.const 1))
  (call $copy (i32.const 0))
  (call $copy (i32.const 3))
  (drop (call $bus_publish (i32.const 64) (i32.const 7)
    (i32.const {_OUTPUT}) (i32.sub (global.get $out) (i32.const {_OUTPUT})))))
(func (export "_start") (local $what i32)
  (if (call $bus_open (i32.const 16) (i32.const 2) (i32.const {flags})) (then (call $exit (i32.const 9))))
  {listening}
  (drop (call $bus_ready))
  (loop $forever
    (local.set $what (call $bus_next (i32.const -1)))
    (if (i32.eq (local.get $what) (i32.const 1)) (then (call $run)))
    (if (i32.gt_s (local.get $what) (i32.const 1)) (then (call $tell (local.get $what))))
    (if (i32.eq (local.get $what) (i32.const 4)) (then (call $exit (i32.const 7))))
    (br $forever))))"""


def _size(function: Function) -> int:
    return 1 + sum(4 if kind == "i32" else 8 for kind in (*function.parameters,))


def _step(number: int, function: Function) -> str:
    at, arguments = 0, []
    for kind in function.parameters:
        arguments.append(f"({kind}.load (i32.add (local.get $pc) (i32.const {at})))")
        at += 4 if kind == "i32" else 8
    called = f"(call ${function.name} {' '.join(arguments)})"
    wide = called if function.result == "i64" else f"(i64.extend_i32_s {called})"
    return f"""(if (i32.eq (local.get $op) (i32.const {number})) (then
      (call $say {wide})
      (local.set $pc (i32.add (local.get $pc) (i32.const {at})))
      (br $next)))"""
