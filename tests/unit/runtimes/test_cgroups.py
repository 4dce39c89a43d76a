"""Both cgroup writers, against directories that mimic the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crucible.model.enforcement import Control
from crucible.model.workload import Limits
from crucible.runtimes.process.cgroups import Refused
from crucible.runtimes.process.cgroups.base import (
    cpu_quota,
    freeze,
    frozen,
    kill,
    oom_kills,
    pids,
    put_checked,
    thaw,
)
from crucible.runtimes.process.cgroups.choice import parse_mounts
from crucible.runtimes.process.cgroups.v1 import CgroupsV1
from crucible.runtimes.process.cgroups.v2 import CgroupsV2

LIMITS = Limits(cpu=500, memory=64 << 20, pids=30, disk=1, open_files=1)


def test_v2_hands_controllers_down_and_limits_the_group(tmp_path: Path) -> None:
    groups = CgroupsV2("crucible-cp", tmp_path, frozenset({"cpu", "memory", "pids"}))
    (directory,) = groups.directories("u_0-1")
    directory.mkdir(parents=True)
    (directory / "memory.swap.max").write_text("max\n")
    groups.make("u_0-1", LIMITS)
    found = {path.name: path.read_text() for path in directory.iterdir()}
    assert found == {
        "cpu.max": "50000 100000",
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "32",
    }
    for parent in (tmp_path, directory.parent):
        assert (parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert groups.controls == {Control.CPU, Control.MEMORY, Control.PIDS}


def test_v2_leaves_controllers_alone_that_are_handed_down_already(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    CgroupsV2("crucible-cp", tmp_path, frozenset({"pids"})).make("u_0-1", LIMITS)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu memory pids\n"


def test_v1_limits_each_hierarchy(tmp_path: Path) -> None:
    groups = CgroupsV1("crucible-cp", tmp_path / "cpu", tmp_path / "memory", tmp_path / "pids")
    for directory in groups.directories("u_0-1"):
        directory.mkdir(parents=True)
    (tmp_path / "memory/crucible-cp/u_0-1/memory.memsw.limit_in_bytes").write_text("")
    groups.make("u_0-1", LIMITS)
    found = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()
    }
    assert found == {
        "cpu/crucible-cp/u_0-1/cpu.cfs_period_us": "100000",
        "cpu/crucible-cp/u_0-1/cpu.cfs_quota_us": "50000",
        "memory/crucible-cp/u_0-1/memory.limit_in_bytes": "67108864",
        "memory/crucible-cp/u_0-1/memory.memsw.limit_in_bytes": "67108864",
        "pids/crucible-cp/u_0-1/pids.max": "32",
    }


@pytest.mark.parametrize(("file", "one"), [("cpu.shares", 1024), ("cpu.weight", 100)])
def test_all_plugins_together_weigh_as_two_groups_for_each_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, one: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    groups = (
        CgroupsV1("crucible-cp", tmp_path, None, None)
        if file == "cpu.shares"
        else CgroupsV2("crucible-cp", tmp_path, frozenset({"cpu"}))
    )
    (tmp_path / "crucible-cp").mkdir()
    weight = tmp_path / "crucible-cp" / file
    weight.write_text("1\n")
    groups.make("u_0-1", LIMITS)
    assert weight.read_text() == str(6 * one)
    assert not (tmp_path / "crucible-cp/u_0-1" / file).exists()
    weight.unlink()
    groups.make("u_0-2", LIMITS)
    assert not weight.exists()


def test_hierarchies_mounted_together_share_a_directory(tmp_path: Path) -> None:
    groups = CgroupsV1("crucible-cp", tmp_path, None, tmp_path)
    assert groups.directories("g") == (tmp_path / "crucible-cp/g",)
    assert groups.controls == {Control.CPU, Control.PIDS}


def test_a_limit_the_kernel_does_not_take_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pids.max"
    file.mkdir()
    with pytest.raises(Refused, match=r"pids\.max"):
        put_checked(file, "3")
    with pytest.raises(Refused, match="instead of"):
        put_checked(Path("/dev/null"), "3")


@pytest.mark.parametrize(
    ("thousandths", "quota"),
    [(2000, (200_000, 100_000)), (10, (1000, 100_000)), (1, (1000, 1_000_000)), (5, (5000, 1_000_000))],
)
def test_small_shares_get_a_longer_period(thousandths: int, quota: tuple[int, int]) -> None:
    assert cpu_quota(thousandths) == quota


def test_memory_kills_are_read_from_either_version(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 2\noom_group_kill 1\n")
    assert oom_kills((tmp_path,)) == 2
    (tmp_path / "memory.events").unlink()
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert oom_kills((tmp_path,)) == 3
    assert oom_kills((tmp_path / "gone",)) == 0
    assert pids((tmp_path / "gone",)) == frozenset()


def test_mounts_of_a_hybrid_host_are_understood() -> None:
    lines = [
        "30 1 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct",
        "31 1 0:27 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory",
        "32 1 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
    ]
    mounts = parse_mounts(lines)
    assert mounts.unified == Path("/sys/fs/cgroup/unified")
    assert mounts.split == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "memory": Path("/sys/fs/cgroup/memory"),
    }


def test_time_used_is_counted_in_a_group_of_its_own_where_it_is_mounted_apart(tmp_path: Path) -> None:
    groups = CgroupsV1("crucible-cp", tmp_path / "cpu", None, None, tmp_path / "cpuacct")
    assert groups.directories("g") == (tmp_path / "cpu/crucible-cp/g", tmp_path / "cpuacct/crucible-cp/g")
    assert groups.controls == {Control.CPU}
    together = CgroupsV1("crucible-cp", tmp_path, None, None, tmp_path)
    assert together.directories("g") == (tmp_path / "crucible-cp/g",)


@pytest.mark.parametrize(
    ("file", "words", "said", "still"),
    [
        ("freezer.state", ("FROZEN", "THAWED"), "freezer.state", "FROZEN\n"),
        ("cgroup.freeze", ("1", "0"), "cgroup.events", "populated 1\nfrozen 1\n"),
    ],
)
def test_a_group_is_held_still_by_either_version(
    tmp_path: Path, file: str, words: tuple[str, str], said: str, still: str
) -> None:
    other, group = tmp_path / "cpu", tmp_path / "group"
    other.mkdir()
    group.mkdir()
    (group / file).write_text("")
    assert not frozen((other, group))
    freeze((other, group))
    assert (group / file).read_text() == words[0]
    (group / said).write_text(still)
    assert freeze((other, group))
    assert frozen((other, group))
    thaw((other, group))
    assert (group / file).read_text() == words[1]
    with pytest.raises(Refused, match="restart it first"):
        freeze((other,))


def test_a_group_of_version_1_that_is_held_still_is_let_go_on_to_be_killed(tmp_path: Path) -> None:
    (tmp_path / "freezer.state").write_text("FROZEN\n")
    kill((tmp_path,))
    assert (tmp_path / "freezer.state").read_text() == "THAWED"
