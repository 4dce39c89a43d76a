"""Turns a seccomp profile into the kernel's filter program (classic BPF)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from crucible.core.seccomp import KILL, NOT_PERMITTED, Action
from crucible.core.syscalls import numbers
from crucible.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.core.seccomp import Case, Conditional, Profile

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# On x86_64 this bit marks the x32 ABI: the same calls by other numbers, which would slip past an allow-list.
X32_BIT: Final = 0x40000000

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
GREATER: Final = 0x25  # BPF_JMP | BPF_JGT | BPF_K
AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

# Offsets in struct seccomp_data; both machines are little-endian, so an argument's low half comes first.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16


class Instruction(NamedTuple):
    """One ``struct sock_filter``: operation, steps to skip when true and when false, operand."""

    code: int
    yes: int
    no: int
    operand: int


def program(profile: Profile, machine: str) -> tuple[Instruction, ...]:
    """Compile a profile for ``x86_64`` or ``aarch64``.

    Raises:
        Unsupported: no filter is known for that machine.
    """
    if machine not in AUDIT_ARCH:
        raise Unsupported(f"no system call filter is known for {machine}; x86_64 and aarch64 have one")
    table = numbers(machine)
    out = [
        Instruction(LOAD, 0, 0, _ARCHITECTURE),
        Instruction(EQUAL, 1, 0, AUDIT_ARCH[machine]),
        _answer(KILL),
        Instruction(LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        out += [Instruction(AT_LEAST, 0, 1, X32_BIT), _answer(NOT_PERMITTED)]
    for rule in profile.conditional:
        if rule.name in table:
            out += _judge(table[rule.name], rule)
    judged = {rule.name for rule in profile.conditional}
    plain = {number: profile.action(name) for name, number in table.items() if name not in judged}
    for first, last, action in _ranges({n: a for n, a in plain.items() if a != profile.default}):
        out += [Instruction(AT_LEAST, 0, 2, first), Instruction(GREATER, 1, 0, last), _answer(action)]
    return (*out, _answer(profile.default))


def encode(instructions: tuple[Instruction, ...]) -> bytes:
    """Return the program as the kernel and bubblewrap read it."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def _answer(action: Action) -> Instruction:
    return Instruction(RETURN, 0, 0, action)


def _judge(number: int, rule: Conditional) -> list[Instruction]:
    body = [step for case in rule.cases for step in _case(case)]
    body.append(_answer(rule.otherwise))
    return [Instruction(EQUAL, 0, len(body), number), *body]


def _case(case: Case) -> list[Instruction]:
    steps: list[Instruction] = []
    for left, check in zip(range(len(case.checks) - 1, -1, -1), case.checks, strict=True):
        # On a mismatch skip what is left of this case: three steps for each later check, and the answer.
        steps += [
            Instruction(LOAD, 0, 0, _ARGUMENTS + 8 * check.argument),
            Instruction(AND, 0, 0, check.mask),
            Instruction(EQUAL, 0, 3 * left + 1, check.value),
        ]
    return [*steps, _answer(case.action)]


def _ranges(actions: dict[int, Action]) -> Iterator[tuple[int, int, Action]]:
    """Join neighbouring numbers that get the same answer."""
    first = last = -1
    action = Action(0)
    for number in sorted(actions):
        if first >= 0 and number == last + 1 and actions[number] == action:
            last = number
            continue
        if first >= 0:
            yield first, last, action
        first, last, action = number, number, actions[number]
    if first >= 0:
        yield first, last, action
