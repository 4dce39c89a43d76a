from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from crucible.runtimes.docker.groups import Groups

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = "a" * 64, "b" * 64
SOCKET = "unix:///var/run/docker.sock"


def grow(path: Path, held: int = 4096) -> None:
    """Make a version 2 group as the kernel would."""
    path.mkdir(parents=True)
    (path / "cpu.stat").write_text("usage_usec 2000000\nthrottled_usec 0\n")
    (path / "memory.current").write_text(str(held))
    (path / "memory.stat").write_text("inactive_file 1024\n")
    (path / "pids.current").write_text("3\n")


@pytest.mark.parametrize("place", ["docker/{}", "system.slice/docker-{}.scope", "a/b/c/{}"])
def test_a_container_is_found_wherever_the_engine_puts_it_and_the_next_beside_it(
    tmp_path: Path, place: str
) -> None:
    groups = Groups(SOCKET, tmp_path)
    for container in (ONE, OTHER):
        grow(tmp_path / place.format(container))
        gauge = groups.gauge(container)
        assert gauge is not None
        used = gauge.read(1.0)
        assert used is not None
        assert (used.cpu, used.memory, used.pids) == (2.0, 3072, 2)  # the engine's init is not the plugin's
    groups.close()


@pytest.mark.parametrize("url", ["tcp://far:2376", "ssh://far"])
def test_an_engine_elsewhere_has_no_groups_here(tmp_path: Path, url: str) -> None:
    grow(tmp_path / "docker" / ONE)
    assert Groups(url, tmp_path).gauge(ONE) is None


def test_groups_that_cannot_be_seen_are_searched_for_only_so_often(tmp_path: Path) -> None:
    groups = Groups(SOCKET, tmp_path)
    for _ in range(8):
        assert groups.gauge(ONE) is None
    grow(tmp_path / "docker" / ONE)
    assert groups.gauge(ONE) is None


def test_a_container_that_has_just_ended_hides_no_other(tmp_path: Path) -> None:
    groups = Groups(SOCKET, tmp_path)
    for container in ("c" * 64, ONE, *(f"{n:064x}" for n in range(20)), OTHER):
        if container in {ONE, OTHER}:
            grow(tmp_path / "docker" / container)
        assert (groups.gauge(container) is not None) == (container in {ONE, OTHER})
    groups.close()


def test_a_process_that_begins_no_namespace_is_not_a_containers_first(tmp_path: Path) -> None:
    grow(tmp_path / "docker" / ONE)
    (tmp_path / "docker" / ONE / "cgroup.procs").write_text(f"0\n{os.getpid()}\n")
    assert Groups(SOCKET, tmp_path).first(ONE) is None


@pytest.mark.parametrize(
    ("file", "text", "over"),
    [
        ("memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n", True),
        ("memory.events", "low 0\noom 4\noom_kill 0\n", False),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", True),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", None),
        ("memory.oom_control", "", None),
    ],
)
def test_whether_the_kernel_killed_for_memory_is_read(
    tmp_path: Path, file: str, text: str, *, over: bool | None
) -> None:
    groups = Groups(SOCKET, tmp_path)
    grow(tmp_path / "docker" / ONE)
    assert groups.gauge(ONE) is not None
    (tmp_path / "docker" / ONE / file).write_text(text)
    assert groups.over_memory(ONE) is over
    groups.close()


def test_a_dropped_container_answers_no_more(tmp_path: Path) -> None:
    groups = Groups(SOCKET, tmp_path)
    grow(tmp_path / "docker" / ONE)
    assert groups.gauge(ONE) is not None
    groups.drop(ONE)
    for file in (tmp_path / "docker" / ONE).iterdir():
        file.unlink()
    (tmp_path / "docker" / ONE).rmdir()
    gauge = groups.gauge(ONE)
    assert gauge is None or gauge.read(1.0) is None
    groups.close()


def test_containers_that_end_at_once_leave_those_that_run_to_be_found(tmp_path: Path) -> None:
    """A plugin that crashes again and again would have all others asked about by the slow way."""
    groups = Groups(SOCKET, tmp_path)
    for number in range(20):
        assert groups.first(f"{number:064x}") is None
    grow(tmp_path / "docker" / ONE)
    assert groups.gauge(ONE) is not None
    groups.close()
