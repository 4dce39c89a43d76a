"""Whatever a plugin, an engine or a cluster says, reading it ends and yields a value, or one error."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crucible.core.admission import admit, violations_of
from crucible.errors import InvalidManifest
from crucible.model.instance import Instance
from crucible.model.workload import Slot
from crucible.runtimes.docker.held import exit_of_inspection
from crucible.runtimes.docker.streams import LONGEST, lines_of
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.reading import instance_of
from crucible.runtimes.process.logs import CUT, LogFiles, Reader, Unfinished, frame, read_line
from crucible.runtimes.process.record import Record, Status, decode, read_status
from crucible.runtimes.process.settings import LogLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
REPORTS = st.dictionaries(
    st.sampled_from(["child-pid", "exit-code", "cgroup-namespace", "x"]), JSON, max_size=3
)
ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
LIMITS = LogLimits(files=3, file_bytes=256, line_bytes=32)


@given(data=st.binary(max_size=200) | st.lists(REPORTS, max_size=4).map(
    lambda said: b"\n".join(json.dumps(one).encode() for one in said)
))  # fmt: skip
@ONCE
def test_any_report_of_a_sandbox_is_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "status.json").write_bytes(data)
    found = read_status(tmp_path)
    assert type(found.init) in {int, type(None)}
    assert found.init is None or 0 < found.init <= 1 << 22
    assert found.code is None or (type(found.code) is int and 0 <= found.code <= 255)


def shapes(place: Path) -> Iterator[Path]:
    """Put odd things in a report's place."""
    report = place / "status.json"
    for line in (
        b"[" * 60_000,
        b'{"child-pid":' * 4000,
        b'{"child-pid": 1' + b"0" * 50_000,
        b"x" * (1 << 22),
    ):
        report.write_bytes(line)
        yield report
    report.unlink()
    secret = place / "secret"
    secret.write_text('{"child-pid": 7, "exit-code": 0}')
    report.symlink_to(secret)
    yield report
    report.unlink()
    report.symlink_to("/dev/zero")
    yield report
    report.unlink()
    os.mkfifo(report)
    yield report
    report.unlink()
    report.mkdir()
    yield report


def test_deep_huge_and_misplaced_reports_say_nothing(tmp_path: Path) -> None:
    seen = 0
    for _ in shapes(tmp_path):
        assert read_status(tmp_path) == Status()
        seen += 1
    assert seen == 8


@given(st.binary(max_size=300) | JSON.map(lambda said: json.dumps(said).encode()) | st.just(b"[" * 100_000))
def test_any_record_is_one_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(decode(data), Record)


@given(st.lists(st.binary(max_size=80) | st.just(b"\n") | st.just(b"y" * 200), max_size=12))
def test_any_output_becomes_lines_that_are_kept_whole_or_cut(chunks: list[bytes]) -> None:
    lines: list[bytes] = []
    rest = Unfinished()
    for chunk in chunks:
        more, rest = frame(rest, chunk, LIMITS.line_bytes)
        lines += more
        assert len(rest.text) <= LIMITS.line_bytes
    assert all(len(line) <= LIMITS.line_bytes + len(CUT) and b"\n" not in line for line in lines)
    whole = b"".join(chunks).split(b"\n")[:-1]
    expected = [line if len(line) <= LIMITS.line_bytes else line[: LIMITS.line_bytes] + CUT for line in whole]
    assert lines[: len(expected)] == expected


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=40))
@ONCE
def test_kept_output_is_read_back_and_bounded(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    place = tmp_path_factory.mktemp("kept")
    files = LogFiles(place, LIMITS)
    for line in lines:
        files.append([line], 1.5)
    kept = [line.text for line in Reader(place).lines()]
    assert kept == lines[len(lines) - len(kept) :]
    assert kept
    stored = sum(path.stat().st_size for path in place.iterdir())
    assert stored <= LIMITS.files * LIMITS.file_bytes + 100


@given(st.binary(max_size=100))
def test_any_stored_line_is_read(stored: bytes) -> None:
    line = read_line(stored)
    assert stored.endswith(line.text)


@given(st.lists(st.binary(max_size=60) | st.just(b"2026-01-01T00:00:00Z " + b"z" * 70_000), max_size=8))
def test_any_frames_of_an_engine_become_bounded_lines(frames: list[bytes]) -> None:
    for line in lines_of(frames):
        assert isinstance(line.at, float)
        assert len(line.text) <= LONGEST + 64


@given(state=st.fixed_dictionaries({}, optional={
    "ExitCode": st.integers(-(2**31), 2**31), "OOMKilled": st.booleans(), "Error": st.text(max_size=40),
    "FinishedAt": st.text(max_size=40),
}))  # fmt: skip
def test_any_end_an_engine_tells_of_is_an_end(state: dict[str, Any]) -> None:
    ended = exit_of_inspection({"State": {"ExitCode": 0} | state}, 1.0)
    assert ended.code is None or ended.signal is None


TERMINATED = st.fixed_dictionaries(
    {}, optional={
        "exitCode": st.integers(-(2**31), 2**31), "reason": st.text(max_size=20),
        "message": st.text(max_size=3000),
        "finishedAt": st.text(max_size=30) | st.none(), "signal": st.integers(0, 255),
    }
)  # fmt: skip
STATUSES = st.fixed_dictionaries({}, optional={
    "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown", "odd"]),
    "reason": st.text(max_size=20),
    "message": st.text(max_size=20),
    "conditions": st.lists(
        st.fixed_dictionaries({"type": st.text(max_size=15), "status": st.sampled_from(["True", "False"])}),
        max_size=2,
    ) | st.none(),
    "containerStatuses": st.lists(st.fixed_dictionaries(
        {"name": st.sampled_from(["plugin", "other"])},
        optional={"ready": st.booleans(), "state": st.fixed_dictionaries({}, optional={
            "terminated": TERMINATED,
            "waiting": st.fixed_dictionaries({}, optional={"reason": st.text(max_size=15)}),
            "running": st.just({}),
        })},
    ), max_size=2) | st.none(),
})  # fmt: skip


@given(status=STATUSES | st.none())
def test_any_status_of_a_pod_is_an_instance(status: dict[str, Any] | None) -> None:
    owner = marks.Owner("default", "p", "uid")
    pod = {"metadata": {"name": "p-0-1", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status}
    found = instance_of(pod, owner, Slot(0, 1))
    assert isinstance(found, Instance)
    assert (found.exit is None) == found.alive


@given(spec=JSON | st.dictionaries(
    st.sampled_from(["version", "type", "source", "entrypoint", "config", "configSchema", "capabilities",
                     "resources", "health", "env", "sandbox", "recovery", "update", "dependencies",
                     "replicas"]),
    JSON, max_size=8,
))  # fmt: skip
def test_any_manifest_is_admitted_or_refused_with_its_fields(spec: Any) -> None:
    plugin = {"metadata": {"name": "p"}, "spec": spec}
    violations = violations_of(plugin)
    assert all(violation.field and violation.message for violation in violations)
    if violations:
        with pytest.raises(InvalidManifest):
            admit(plugin)
