"""What an engine says of itself, and what the core may count on because of it."""

from __future__ import annotations

from typing import Any

import pytest

from crucible.model.enforcement import Control, Level
from crucible.runtimes.docker.enforcement import ASSUMED, VM_RUNTIMES, capabilities, vm_runtime


def levels(info: dict[str, Any], no_memory: str = "") -> dict[Control, Level]:
    return {one.control: one.level for one in capabilities(info, no_memory).controls}


@pytest.mark.parametrize("name", VM_RUNTIMES)
def test_isolation_vm_is_a_runtime_by_one_of_its_names(name: str) -> None:
    info = ASSUMED | {"Runtimes": {"runc": {}, "io.containerd.runc.v2": {}, name: {}}}
    assert vm_runtime(info) == name
    assert "vm" in capabilities(info).isolation


@pytest.mark.parametrize("runtimes", [{}, None, {"runc": {}}, {"runsc-like": {}, "crun": {}}])
def test_isolation_vm_is_not_offered_by_an_engine_without_one(runtimes: Any) -> None:
    info = ASSUMED | {"Runtimes": runtimes}
    assert vm_runtime(info) == ""
    assert capabilities(info).isolation == {"process", "container", "language"}


@pytest.mark.parametrize(
    ("lacks", "control", "level"),
    [
        ({"CpuCfsQuota": False}, Control.CPU, Level.UNAVAILABLE),
        ({"MemoryLimit": False}, Control.MEMORY, Level.UNAVAILABLE),
        ({"SwapLimit": False}, Control.MEMORY, Level.DEGRADED),
        ({"PidsLimit": False}, Control.PIDS, Level.UNAVAILABLE),
        ({"SecurityOptions": ["name=apparmor"]}, Control.SYSCALLS, Level.UNAVAILABLE),
        ({"SecurityOptions": None}, Control.SYSCALLS, Level.UNAVAILABLE),
    ],
)
def test_what_an_engine_lacks_is_said_of_that_control_and_of_no_other(
    lacks: dict[str, Any], control: Control, level: Level
) -> None:
    usual, found = levels(dict(ASSUMED)), levels(ASSUMED | lacks)
    assert usual[control] is Level.ENFORCED
    assert found == usual | {control: level}


def test_without_memory_for_them_secrets_are_not_offered() -> None:
    usual, found = levels(dict(ASSUMED)), levels(dict(ASSUMED), "no tmpfs here")
    assert found == usual | {Control.SECRETS: Level.UNAVAILABLE}
    assert usual[Control.SECRETS] is Level.ENFORCED
    assert usual[Control.SECRET_ENV] is Level.UNAVAILABLE
