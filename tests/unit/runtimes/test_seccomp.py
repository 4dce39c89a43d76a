"""The compiled filter answers as the profile says: it is run here, instruction by instruction."""

from __future__ import annotations

import struct
from itertools import product

import pytest

from crucible.core.bpf import (
    AND,
    AT_LEAST,
    AUDIT_ARCH,
    EQUAL,
    GREATER,
    LOAD,
    RETURN,
    X32_BIT,
    Instruction,
    encode,
    program,
)
from crucible.core.profiles import PROFILES
from crucible.core.seccomp import (
    ALLOW,
    KILL,
    NAMESPACE_FLAGS,
    NOT_IMPLEMENTED,
    NOT_PERMITTED,
    NOTHING_TO_DO,
    PROFILE,
    RLIMIT_CORE,
    Profile,
)
from crucible.core.syscalls import numbers
from crucible.errors import Unsupported

MACHINES = sorted(AUDIT_ARCH)
ARGUMENTS = [(0,) * 6, (1, 0, 0, 0, 0, 0), (2**64 - 1,) * 6]


def run(instructions: tuple[Instruction, ...], number: int, machine: str, arguments: tuple[int, ...]) -> int:
    """Interpret a filter as the kernel does."""
    data = struct.pack("<IIQ6Q", number, AUDIT_ARCH[machine], 0, *arguments)
    register, at = 0, 0
    while True:
        code, yes, no, operand = instructions[at]
        at += 1
        match code:
            case _ if code == LOAD:
                (register,) = struct.unpack_from("<I", data, operand)
            case _ if code == AND:
                register &= operand
            case _ if code == EQUAL:
                at += yes if register == operand else no
            case _ if code == GREATER:
                at += yes if register > operand else no
            case _ if code == AT_LEAST:
                at += yes if register >= operand else no
            case _ if code == RETURN:
                return operand
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_is_answered_as_the_profile_says(machine: str, kind: str) -> None:
    profile = PROFILES[kind]
    compiled = program(profile, machine)
    for (name, number), arguments in product(numbers(machine).items(), ARGUMENTS):
        assert run(compiled, number, machine, arguments) == profile.action(name, arguments), (name, arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_nobody_knows_are_not_implemented(machine: str) -> None:
    compiled = program(PROFILE, machine)
    for number in set(range(1200)) - set(numbers(machine).values()):
        assert run(compiled, number, machine, ARGUMENTS[0]) == NOT_IMPLEMENTED


def test_another_architecture_is_killed() -> None:
    assert run(program(PROFILE, "x86_64"), 0, "aarch64", ARGUMENTS[0]) == KILL


def test_x32_is_refused() -> None:
    compiled = program(PROFILE, "x86_64")
    for number in (0, 39, 512, 547):
        assert run(compiled, X32_BIT | number, "x86_64", ARGUMENTS[0]) == NOT_PERMITTED


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        *(("clone", (1 << bit, 0), NOT_PERMITTED) for bit in range(32) if NAMESPACE_FLAGS >> bit & 1),
        ("clone", (0x3D0F00, 0), ALLOW),
        ("clone3", (0, 0), NOT_IMPLEMENTED),
        ("ioctl", (0, 0x5412), NOT_PERMITTED),
        ("ioctl", (0, 0xFFFFFFFF_00005412), NOT_PERMITTED),
        ("ioctl", (0, 0x5401), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x40000,), NOT_IMPLEMENTED),
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (16, 3, 0), ALLOW),
        ("socket", (16, 3, 9), NOT_IMPLEMENTED),
        ("socket", (17, 3, 0), 0x50061),
        ("socket", (63, 3, 0), 0x50061),
        ("socket", (64, 3, 0), NOT_IMPLEMENTED),
        ("socketpair", (2, 1, 0), 0x50061),
        ("setrlimit", (RLIMIT_CORE,), NOT_PERMITTED),
        ("setrlimit", (1 << 32 | RLIMIT_CORE,), NOT_PERMITTED),
        ("setrlimit", (15,), ALLOW),
        ("setrlimit", (16,), NOT_IMPLEMENTED),
        ("prlimit64", (0, RLIMIT_CORE), NOT_PERMITTED),
        ("prlimit64", (0, 7), ALLOW),
        ("socketpair", (1, 1, 0), ALLOW),
    ],
)
def test_calls_judged_by_their_arguments(
    machine: str, name: str, arguments: tuple[int, ...], action: int
) -> None:
    full = (*arguments, *(0,) * (6 - len(arguments)))
    assert run(program(PROFILE, machine), numbers(machine)[name], machine, full) == action


def test_every_name_is_one_the_kernel_knows() -> None:
    named = PROFILE.allowed | PROFILE.denied | {rule.name for rule in PROFILE.conditional}
    assert named <= set(numbers("x86_64"))


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_fits_the_kernel(machine: str) -> None:
    compiled = program(PROFILE, machine)
    assert len(compiled) < 4096
    assert all(step.yes < 256 and step.no < 256 for step in compiled)
    assert len(encode(compiled)) == 8 * len(compiled)


def test_a_profile_cannot_answer_a_call_twice() -> None:
    with pytest.raises(ValueError, match="mount"):
        Profile(allowed=frozenset({"mount"}), denied=frozenset({"mount"}), conditional=())


def test_other_machines_are_refused() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        program(PROFILE, "riscv64")


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("io_setup", (), NOT_IMPLEMENTED),  # its slots are counted for the whole host
        ("sync", (), NOTHING_TO_DO),
        ("syncfs", (3,), NOTHING_TO_DO),
        ("fsync", (3,), ALLOW),
        ("setrlimit", (RLIMIT_CORE, 0), NOT_PERMITTED),
        ("setrlimit", (7, 0), ALLOW),
        ("prlimit64", (0, RLIMIT_CORE, 2**32, 0), NOT_PERMITTED),
        ("prlimit64", (0, 7, 0, 0), ALLOW),
    ],
)
def test_what_would_reach_the_whole_host_does_not(name: str, arguments: tuple[int, ...], answer: int) -> None:
    assert PROFILE.action(name, arguments) == answer
