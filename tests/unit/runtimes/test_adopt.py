"""A pid is never believed: pid, start, boot, program, mark and place together are an instance's monitor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from crucible.model.workload import Slot
from crucible.runtimes.process import proc
from crucible.runtimes.process.adopt import monitor_runs
from crucible.runtimes.process.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = Record(
    control_plane="plane",
    namespace="here",
    plugin="notes",
    plugin_uid="uid",
    slot=Slot(0, 1),
    revision="r",
    uid=1_800_000_001,
    cgroups=(),
    bwrap=(7, 9),
    root="python-1",
    created_at=1.0,
    monitor=proc.Identity(41, 500, "this-boot"),
)
Facts = dict[str, object]
AS_RECORDED: Facts = {
    "boot_id": "this-boot",
    "started": 500,
    "executable": (7, 9),
    "arguments": (RECORD.mark.encode(), b"--unshare-all"),
    "pids_by_namespace": (41,),
}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the kernel say these things of the process."""

    def says(**changes: object) -> None:
        for name, answer in (AS_RECORDED | changes).items():
            monkeypatch.setattr(proc, name, lambda *_, answer=answer: answer)

    return says


def test_the_very_process_is_known_again(kernel: Callable[..., None]) -> None:
    kernel()
    assert monitor_runs(RECORD)
    assert not monitor_runs(replace(RECORD, monitor=None))


def test_one_whose_program_cannot_be_seen_is_known_by_the_rest(kernel: Callable[..., None]) -> None:
    kernel(executable=None)
    assert monitor_runs(RECORD)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("boot_id", "another-boot"),
        ("started", 501),
        ("started", None),
        ("executable", (7, 10)),
        ("arguments", (b"crucible:plane/uid/0-2",)),
        ("arguments", (b"bwrap", RECORD.mark.encode())),
        ("arguments", ()),
        ("pids_by_namespace", (41, 2)),
        ("pids_by_namespace", ()),
    ],
)
def test_one_that_differs_in_any_one_thing_is_another(
    kernel: Callable[..., None], name: str, answer: object
) -> None:
    kernel(**{name: answer})
    assert not monitor_runs(RECORD)
