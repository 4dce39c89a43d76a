"""``crucible seccomp`` prints what the runtimes send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from crucible.cli.seccomp import Form, profile_as
from crucible.core import bpf
from crucible.core.profiles import IN_PODS, PROFILES
from crucible.core.seccomp import ALLOW
from crucible.core.seccomp_json import document
from crucible.model.manifest import PluginType

if TYPE_CHECKING:
    from pathlib import Path


def test_json_is_what_a_container_is_sent() -> None:
    for kind in PluginType:
        for form, profiles in ((Form.DOCKER, PROFILES), (Form.KUBERNETES, IN_PODS)):
            assert profile_as(form, kind, None).decode() == document(profiles[kind.value]) + "\n"


@pytest.mark.parametrize("kind", PROFILES)
def test_on_a_node_every_type_may_connect_to_the_broker_and_none_may_more_than_that(kind: str) -> None:
    here, there = PROFILES[kind], IN_PODS[kind]
    for family, name in enumerate(("unix", "IPv4", "IPv6", "netlink")):
        arguments = ((1, 2, 10, 16)[family], 1, 0)
        met = there.action("socket", arguments) == here.action("socket", arguments)
        assert met or (kind in {"wasm", "rune"} and name in {"IPv4", "IPv6"})
    assert there.action("socket", (2, 1, 0)) == there.action("socket", (10, 1, 0)) == ALLOW
    assert there.allowed == here.allowed
    assert {rule.name for rule in there.conditional} == {rule.name for rule in here.conditional}


def test_one_machine_is_named_alone() -> None:
    found = json.loads(profile_as(Form.KUBERNETES, PluginType.RUNE, "aarch64"))
    assert found["architectures"] == ["SCMP_ARCH_AARCH64"]


@pytest.mark.parametrize("machine", sorted(bpf.AUDIT_ARCH))
def test_a_filter_program_is_the_kernels(machine: str) -> None:
    found = profile_as(Form.BPF, PluginType.WASM, machine)
    assert found == bpf.encode(bpf.program(PROFILES["wasm"], machine))
    assert len(found) // 8 < 4096  # the kernel's own bound


def test_a_folder_gets_a_file_for_each_type(crucible: Any, tmp_path: Path) -> None:
    ended = crucible("seccomp", "--directory", str(tmp_path / "new" / "crucible"))
    assert ended.code == 0
    written = sorted((tmp_path / "new" / "crucible").iterdir())
    assert [path.stem for path in written] == sorted(kind.value for kind in PluginType)
    assert all(json.loads(path.read_text())["syscalls"] for path in written)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written)


def test_a_folder_that_cannot_be_made_is_named(crucible: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = crucible("seccomp", "--directory", str(tmp_path / "file"))
    assert ended.code != 0
    assert f"--directory {tmp_path / 'file'}" in ended.err
