"""The profile of each type: narrower than the general one, and never wider."""

from __future__ import annotations

import pytest

from crucible.core.profiles import PROFILES, profile_of
from crucible.core.seccomp import ALLOW, NO_SUCH_FAMILY, PROFILE
from crucible.core.syscalls import numbers
from crucible.model.manifest import PluginType
from crucible.model.workload import Limits, Workload

INTERPRETED = ("python", "javascript", "wasm", "rune")
STARTS = ("execve", "clone", "wait4", "rt_sigtimedwait", "kill", "exit_group", "mmap", "openat", "write")
"""What every runtime needs to bring a program up and to end it: bubblewrap's and Docker's first process."""


def workload(kind: str, image: str = "") -> Workload:
    limits = Limits(cpu=1, memory=1, pids=1, disk=1, open_files=1)
    return Workload(*("n", "p", "u", kind, ("main",), (), "{}", "d", limits, "process", 1.0, ""), image=image)


def test_every_type_has_one() -> None:
    assert set(PROFILES) == {kind.value for kind in PluginType}


@pytest.mark.parametrize("kind", PROFILES)
def test_no_profile_allows_what_the_general_one_does_not(kind: str) -> None:
    for name in numbers("x86_64"):
        for family in (0, 1, 2, 10, 16):
            arguments = (family, 0, 0, 0, 0, 0)
            if PROFILES[kind].action(name, arguments) == ALLOW:
                assert PROFILE.action(name, arguments) == ALLOW, (name, family)
    assert PROFILES[kind].denied == PROFILE.denied


@pytest.mark.parametrize("kind", INTERPRETED)
def test_an_interpreted_type_loses_what_its_runtime_never_calls(kind: str) -> None:
    lost = PROFILE.allowed - PROFILES[kind].allowed
    assert len(lost) > 40
    assert lost <= set(numbers("x86_64"))
    assert all(PROFILES[kind].action(name) == PROFILE.default for name in lost)


@pytest.mark.parametrize("kind", PROFILES)
def test_every_program_can_still_be_started_and_ended(kind: str) -> None:
    assert {PROFILES[kind].action(name, (0,) * 6) for name in STARTS} == {ALLOW}


@pytest.mark.parametrize("kind", ["wasm", "rune"])
def test_a_guests_host_has_unix_sockets_and_no_others(kind: str) -> None:
    assert PROFILES[kind].action("socket", (1, 1, 0)) == ALLOW
    assert {PROFILES[kind].action("socket", (family, 1, 0)) for family in (2, 10, 16)} == {NO_SUCH_FAMILY}


def test_a_whole_image_may_hold_any_program_and_gets_the_general_one() -> None:
    assert profile_of(workload("rune", image="sha256:0")) is PROFILE
    assert profile_of(workload("rune")) is PROFILES["rune"]
