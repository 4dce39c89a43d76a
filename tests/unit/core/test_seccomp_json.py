"""The JSON that an engine is sent means what the profile says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.bpf import AUDIT_ARCH
from crucible.core.profiles import PROFILES
from crucible.core.seccomp import ALLOW, KILL, PROFILE, Action, Case, Check, Conditional, Profile
from crucible.core.seccomp_json import cubes, document
from crucible.core.syscalls import numbers

SENT = json.loads(document(PROFILE))
WASM = json.loads(document(PROFILES["wasm"]))
WORD = st.integers(0, 2**64 - 1)
# What the rules look at, and its neighbours: a number at random would seldom meet a rule.
NEAR = st.sampled_from(
    sorted(
        {
            (check.value ^ flip) & 0xFFFFFFFF
            for rule in PROFILE.conditional
            for case in rule.cases
            for check in case.checks
            for flip in (0, 1, 2, 8, 0x10000000, 0x40000000)
        }
    )
)
ARGUMENTS = st.tuples(*[st.one_of(NEAR, WORD, NEAR.map(lambda low: low | 1 << 40))] * 6)
CHECKS = st.builds(
    lambda argument, mask, value: Check(argument, value & mask, mask),
    st.integers(0, 1),
    st.integers(0, 15),
    st.integers(0, 15),
)
CASES = st.builds(
    Case,
    st.lists(CHECKS, min_size=1, max_size=2, unique_by=lambda check: check.argument).map(tuple),
    st.sampled_from([ALLOW, Action(0x00050001), Action(0x00050026)]),
)


def meets(arguments: tuple[int, ...], entry: dict[str, Any]) -> bool:
    return all(
        check["op"] == "SCMP_CMP_MASKED_EQ"
        and arguments[check["index"]] & check["value"] == check["valueTwo"]
        for check in entry.get("args", ())
    )


def meaning(sent: dict[str, Any], name: str, arguments: tuple[int, ...]) -> Action:
    """Answer as an engine does; two entries that both match would leave it to the order of its filter."""
    found = [entry for entry in sent["syscalls"] if name in entry["names"] and meets(arguments, entry)]
    assert len(found) <= 1, (name, arguments, found)
    if not found:
        return Action(0x00050000 | sent["defaultErrnoRet"])
    match found[0]["action"]:
        case "SCMP_ACT_ALLOW":
            return ALLOW
        case "SCMP_ACT_KILL_PROCESS":
            return KILL
        case _:
            return Action(0x00050000 | found[0]["errnoRet"])


@pytest.mark.parametrize("name", [rule.name for rule in PROFILE.conditional])
@given(arguments=ARGUMENTS)
def test_a_call_judged_by_its_arguments_is_answered_alike(name: str, arguments: tuple[int, ...]) -> None:
    assert meaning(SENT, name, arguments) == PROFILE.action(name, arguments)


@given(arguments=ARGUMENTS)
def test_the_narrower_rule_for_sockets_is_answered_alike(arguments: tuple[int, ...]) -> None:
    assert meaning(WASM, "socket", arguments) == PROFILES["wasm"].action("socket", arguments)


@pytest.mark.parametrize("kind", PROFILES)
def test_every_other_call_is_answered_alike(kind: str) -> None:
    profile, sent = PROFILES[kind], json.loads(document(PROFILES[kind]))
    judged = {rule.name for rule in profile.conditional}
    for name in {name for machine in AUDIT_ARCH for name in numbers(machine)} - judged:
        assert meaning(sent, name, (0,) * 6) == profile.action(name), name
    assert meaning(sent, "no_such_call", (0,) * 6) == profile.default


def test_it_is_for_both_machines_or_the_one_that_is_named() -> None:
    assert SENT["defaultAction"] == "SCMP_ACT_ERRNO"
    assert SENT["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    assert json.loads(document(PROFILE, ("aarch64",))) == SENT | {"architectures": ["SCMP_ARCH_AARCH64"]}


@pytest.mark.parametrize("kind", PROFILES)
def test_few_sets_of_arguments_are_spelled_out(kind: str) -> None:
    """Every start of a container compiles them all."""
    sent = json.loads(document(PROFILES[kind]))
    assert sum("args" in entry for entry in sent["syscalls"]) < 100


@given(cases=st.lists(CASES, max_size=4).map(tuple))
def test_the_cubes_of_any_rule_cover_everything_once(cases: tuple[Case, ...]) -> None:
    rule = Conditional("call", cases, Action(0x00050002))
    found = list(cubes(rule))
    profile = Profile(frozenset(), frozenset(), (rule,))
    for first in range(16):
        for second in range(16):
            arguments = (first, second)
            met = [
                action
                for cube, action in found
                if all(arguments[index] & mask == value for index, (mask, value) in cube.items())
            ]
            assert met == [profile.action("call", arguments)]
