"""The pure parts of the process runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crucible.core.scratch import scratch_sizes
from crucible.model.enforcement import Control, Level
from crucible.model.instance import Exit
from crucible.model.workload import Limits, Slot, Workload
from crucible.runtimes.process import argv
from crucible.runtimes.process.ending import Remains, judge
from crucible.runtimes.process.enforcement import Facts, capabilities, findings
from crucible.runtimes.process.logs import CUT, LogFiles, Reader, Unfinished, frame, numbers
from crucible.runtimes.process.output import Allowance
from crucible.runtimes.process.proc import Identity
from crucible.runtimes.process.record import Record, decode, encode, read_status, slot_of
from crucible.runtimes.process.settings import LogLimits
from crucible.runtimes.secrets import Opened
from crucible.runtimes.volumes import Shown

MIB = 1 << 20
WORKLOAD = Workload(
    namespace="default",
    plugin="word-count",
    plugin_uid="u1",
    type="python",
    entrypoint=("main.py", "--fast"),
    env=(("MODE", "fast"), ("HOME", "/elsewhere")),
    config="{}",
    source="sha256:0",
    limits=Limits(cpu=500, memory=64 * MIB, pids=32, disk=64 * MIB, open_files=256),
    isolation="process",
    grace=5.0,
    restart="",
)
PYTHON = argv.Program(before=("/usr/bin/python3", "-u"))
RECORD = Record(
    control_plane="cp",
    namespace="default",
    plugin="word-count",
    plugin_uid="u1",
    slot=Slot(0, 1),
    revision="r",
    uid=1_900_000_000,
    cgroups=("/sys/fs/cgroup/a",),
    bwrap=(1, 2),
    root="python-0",
    created_at=1.5,
    monitor=Identity(1, 2, "boot"),
    exit=Exit(at=2.5, code=3),
)
REMAINS = Remains(
    at=1.0, code=None, oom_kills=0, killed=False, ran=False, rebooted=False, mark="crucible:x", last_line=b""
)


def test_the_command_line() -> None:
    assert " ".join(argv.command_line(WORKLOAD, PYTHON, "crucible:cp/u1/0-1", held=False)) == (
        "crucible:cp/u1/0-1 --unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts "
        "--unshare-cgroup --disable-userns --uid 1000 --gid 1000 --cap-drop ALL --new-session --clearenv "
        "--json-status-fd 4 --seccomp 5 --args 3 -- /usr/bin/python3 -u /plugin/main.py --fast"
    )
    assert "--block-fd 7" in " ".join(argv.command_line(WORKLOAD, PYTHON, "m", held=True))


def test_what_comes_through_the_pipe() -> None:
    found = " ".join(argv.confirmation(WORKLOAD, PYTHON, "word-count-0-1", argv.SHOWN, Opened()))
    assert found == (
        "--ro-bind /tmp/root / --ro-bind /tmp/source /plugin --proc /proc --dev-bind /dev/null /dev/null "
        "--dev-bind /dev/zero /dev/zero --dev-bind /dev/full /dev/full --dev-bind /dev/random /dev/random "
        "--dev-bind /dev/urandom /dev/urandom --perms 1777 --size 50331648 --tmpfs /tmp --perms 1777 "
        "--size 16777216 --tmpfs /dev/shm --perms 0444 --ro-bind-data 6 /config/config.json "
        "--hostname word-count-0-1 --chdir /plugin --setenv PATH /usr/local/bin:/usr/bin:/bin "
        "--setenv HOME /tmp --setenv LANG C.UTF-8 --setenv CRUCIBLE_PLUGIN word-count "
        "--setenv CRUCIBLE_NAMESPACE default --setenv CRUCIBLE_INSTANCE word-count-0-1 "
        "--setenv CRUCIBLE_CONFIG /config/config.json --setenv CRUCIBLE_SOURCE /plugin "
        "--setenv MODE fast --setenv HOME /elsewhere"
    )


def test_a_secret_is_a_file_in_memory_and_never_an_argument() -> None:
    opened = Opened({"api/token": b"hunter2", "api/user": b"x" * 5000}, (("TOKEN", "hunter2"),))
    found = " ".join(argv.confirmation(WORKLOAD, PYTHON, "word-count-0-1", argv.SHOWN, opened))
    assert (
        "--perms 0500 --size 12288 --tmpfs /secrets --perms 0500 --dir /secrets/api "
        "--perms 0400 --file 300 /secrets/api/token --perms 0400 --file 301 /secrets/api/user "
        "--remount-ro /secrets"
    ) in found
    assert found.endswith("--setenv TOKEN hunter2")
    assert "hunter2" not in found.removesuffix("--setenv TOKEN hunter2")
    assert "hunter2" not in " ".join(argv.command_line(WORKLOAD, PYTHON, "m", held=False))
    assert "hunter2" not in repr(opened)


def test_a_volume_is_bound_as_it_was_granted() -> None:
    shown = (
        Shown(Path("/srv/notes"), "/data/notes", writable=True, group=2000),
        Shown(Path("/srv/maps"), "/data/maps", writable=False, group=None),
    )
    empty = "--perms 0755 --size 4096 --tmpfs /data "
    assert " ".join(argv.volume_words(shown, own_uid=True)) == (
        f"{empty}--bind /tmp/volume-0 /data/notes --ro-bind /tmp/volume-1 /data/maps --remount-ro /data"
    )
    assert " ".join(argv.volume_words(shown, own_uid=False)) == (
        f"{empty}--bind-fd 280 /data/notes --ro-bind-fd 281 /data/maps --remount-ro /data"
    )
    assert argv.volume_words((), own_uid=True) == ()


def test_a_scratch_space_is_never_without_limit() -> None:
    for disk in (0, 1, 3, 4096, 64 * MIB):
        scratch, shared = scratch_sizes(replace(WORKLOAD.limits, disk=disk))
        assert scratch > 0
        assert shared > 0


def test_a_zero_byte_cannot_smuggle_an_argument() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        argv.encode(("--setenv", "X", "a\0--bind"))


@pytest.mark.parametrize(
    ("remains", "end"),
    [
        (replace(REMAINS, code=0), Exit(at=1.0, code=0)),
        (replace(REMAINS, code=137), Exit(at=1.0, signal=9)),
        (replace(REMAINS, code=137, oom_kills=1), Exit(at=1.0, signal=9, oom=True)),
        (replace(REMAINS, oom_kills=1), Exit(at=1.0, signal=9, oom=True)),
        (replace(REMAINS, code=1, oom_kills=1), Exit(at=1.0, code=1)),
        (replace(REMAINS, code=255), Exit(at=1.0, code=255)),
        (replace(REMAINS, killed=True), Exit(at=1.0, signal=9)),
    ],
)
def test_ends_are_judged(remains: Remains, end: Exit) -> None:
    assert judge(remains) == end


def test_ends_without_a_status_say_why() -> None:
    assert judge(replace(REMAINS, last_line=b"bwrap: no")).problem == "the sandbox could not start it: no"
    assert (
        judge(replace(REMAINS, last_line=b"crucible:x: no")).problem == "the sandbox could not start it: no"
    )
    assert "outside" in judge(replace(REMAINS, last_line=b"bwrap: lie", ran=True)).problem
    assert "restarted" in judge(replace(REMAINS, rebooted=True)).problem


def test_an_end_from_outside_is_told_from_a_start_that_failed() -> None:
    assert judge(replace(REMAINS, ran=True)).reason == "Lost"
    assert judge(replace(REMAINS, rebooted=True)).reason == "Lost"
    assert judge(replace(REMAINS, last_line=b"bwrap: no")).reason == "StartFailed"
    assert judge(replace(REMAINS, code=3, ran=True)).reason == "Crashed"


def test_output_is_framed_into_lines() -> None:
    assert frame(Unfinished(), b"a\nb\nc", 9) == ([b"a", b"b"], Unfinished(b"c"))
    assert frame(Unfinished(b"c"), b"d\n", 9) == ([b"cd"], Unfinished())
    assert frame(Unfinished(), b"x" * 12, 9) == ([b"x" * 9 + CUT], Unfinished(cut=True))
    assert frame(Unfinished(cut=True), b"more", 9) == ([], Unfinished(cut=True))
    assert frame(Unfinished(cut=True), b"more\nnext\n", 9) == ([b"next"], Unfinished())
    assert frame(Unfinished(), b"x" * 12 + b"\ny\n", 9) == ([b"x" * 9 + CUT, b"y"], Unfinished())


def test_files_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, LogLimits(files=3, file_bytes=100))
    for number in range(30):
        files.append([b"line %d" % number], 1_700_000_000.0)
    assert len(numbers(tmp_path)) == 3
    assert all((tmp_path / f"log-{number}").stat().st_size <= 100 for number in numbers(tmp_path))
    kept = [line.text for line in Reader(tmp_path).lines()]
    assert kept[-1] == b"line 29"
    assert [line.text for line in Reader(tmp_path).last(4)] == [
        b"line %d" % number for number in range(26, 30)
    ]


def test_a_reader_goes_on_where_it_was(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, LogLimits(files=3, file_bytes=60))
    reader = Reader(tmp_path)
    seen: list[bytes] = []
    for number in range(20):
        files.append([b"%d" % number], 1_700_000_000.0)
        seen += [line.text for line in reader.lines()]
    assert seen == [b"%d" % number for number in range(20)]


def test_the_allowance_fills_up_to_its_burst() -> None:
    allowance = Allowance(rate=10, burst=100, now=0.0)
    allowance.take(100)
    assert allowance.level(1.0) == 10
    assert allowance.until(30) == 2.0
    assert allowance.level(1000.0) == 100


def test_records_survive_writing() -> None:
    assert decode(encode(RECORD)) == RECORD
    assert decode(encode(replace(RECORD, monitor=None, exit=None))).monitor is None


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"version":1}', b'{"version":7}', b"\xff", b"[" * 99999]
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode(data)


def test_reports_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(
        '{"child-pid": -4}\n{"child-pid": "1"}\nnonsense\n[]\n{"child-pid": 42, "x": 1}\n{"exit-code": 3}\n'
    )
    found = read_status(tmp_path)
    assert (found.init, found.code) == (42, 3)


def test_names_of_slots() -> None:
    assert slot_of("3-14") == Slot(3, 14)
    assert [slot_of(name) for name in ("3", "3-", "-3", "a-b", "3-1-4", "\u0663-\u0661")] == [None] * 6


def test_what_is_not_held_is_said() -> None:
    facts = Facts(
        "/bwrap", root=False, cgroups=None, about="no cgroup is writable; do this", types=frozenset()
    )
    found = {entry.control: entry for entry in capabilities(facts).controls}
    assert found[Control.CPU].level is Level.UNAVAILABLE
    assert found[Control.MEMORY].level is Level.DEGRADED
    assert found[Control.IDENTITY].level is Level.DEGRADED
    assert found[Control.PIDS].level is Level.ENFORCED
    (cgroups,) = (finding for finding in findings(facts) if finding.name == "cgroups")
    assert (cgroups.ok, cgroups.fix) == (False, "do this")
