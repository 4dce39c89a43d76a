"""Usage, read from directories that mimic the kernel's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.model.usage import Usage
from crucible.runtimes.gauge import Gauge

if TYPE_CHECKING:
    from pathlib import Path

V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 1\nnr_throttled 3\nthrottled_usec 750000\n",
    "memory.current": "5000000\n",
    "memory.peak": "6000000\n",
    "memory.stat": "anon 1\ninactive_file 1000000\n",
    "pids.current": "5\n",
}
V1 = {
    "cpu/cpu.stat": "nr_periods 9\nthrottled_time 750000000\n",
    "cpuacct/cpuacct.usage": "2500000000\n",
    "memory/memory.usage_in_bytes": "5000000\n",
    "memory/memory.max_usage_in_bytes": "6000000\n",
    "memory/memory.stat": "inactive_file 1\nhierarchical_memory_limit 7\ntotal_inactive_file 1000000\n",
    "pids/pids.current": "5\n",
}
SAID = Usage(at=1.5, cpu=2.5, memory=4_000_000, memory_peak=6_000_000, pids=3, throttled=0.75)


def made(place: Path, files: dict[str, str]) -> Gauge:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return Gauge(tuple(dict.fromkeys((place / name).parent for name in files)), 2)


def without(files: dict[str, str], *names: str) -> dict[str, str]:
    return {name: text for name, text in files.items() if name not in names}


def test_both_versions_say_the_same(tmp_path: Path) -> None:
    for version, files in (("v1", V1), ("v2", V2)):
        gauge = made(tmp_path / version, files)
        assert gauge.read(1.5) == SAID
        gauge.close()
        assert gauge.read(1.5) is None


def test_every_reading_is_a_new_one(tmp_path: Path) -> None:
    gauge = made(tmp_path, V2)
    gauge.read(1.0)
    (tmp_path / "memory.current").write_text("7000000\n")
    again = gauge.read(2.0)
    assert again is not None
    assert (again.at, again.memory) == (2.0, 6_000_000)
    gauge.close()


def test_what_is_not_counted_is_not_invented(tmp_path: Path) -> None:
    assert made(tmp_path / "a", without(V1, "cpuacct/cpuacct.usage")).read(1.0) is None
    assert made(tmp_path / "b", without(V2, "memory.current")).read(1.0) is None
    older = made(tmp_path / "c", without(V2, "memory.peak")).read(1.0)
    assert older is not None
    assert older.memory_peak is None
    assert Gauge(()).read(1.0) is None


def test_processes_are_counted_one_by_one_where_the_kernel_does_not(tmp_path: Path) -> None:
    files = without(V2, "pids.current") | {"cgroup.procs": "11\n12\n13\n"}
    found = made(tmp_path, files).read(1.0)
    assert found is not None
    assert found.pids == 1
