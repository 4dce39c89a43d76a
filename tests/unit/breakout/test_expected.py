"""What the kernel says of a sandbox is compared with what was compiled: each difference is noticed alone."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from crucible.breakout.expected import from_inside, namespace_checks
from crucible.breakout.trial import LIMITS, workload
from crucible.core.scratch import scratch_sizes
from crucible.model.enforcement import Control

TMP, SHM = scratch_sizes(LIMITS)
RIGHT: dict[str, Any] = {
    "status": {
        **{kind: ["0000000000000000"] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
        "NoNewPrivs": ["1"],
        "Seccomp": ["2"],
        "Uid": ["1000"] * 4,
        "Gid": ["1000"] * 4,
    },
    "mounts": [
        {"at": "/", "options": ["ro", "nosuid"], "kind": "ext4"},
        {"at": "/proc", "options": ["rw"], "kind": "proc"},
        {"at": "/tmp", "options": ["rw", "nosuid", "nodev"], "kind": "tmpfs"},
        {"at": "/dev/shm", "options": ["rw", "nosuid", "nodev"], "kind": "tmpfs"},
    ],
    "interfaces": ["lo"],
    "devices": ["null", "zero"],
    "processes": [1, 2],
    "session": 2,
    "cgroups": ["/"],
    "limits": {
        "nofile": [str(LIMITS.open_files)] * 2, "core": ["1", "1"], "nice": ["0", "0"], "rtprio": ["0", "0"],
        "memlock": ["65536"] * 2, "msgqueue": ["65536"] * 2,
    },
    "scratch": {"/tmp": TMP, "/dev/shm": SHM},
}  # fmt: skip


def failures(readings: dict[str, Any]) -> set[Control]:
    return {check.control for check in from_inside(readings, workload(), "process") if not check.ok}


def test_what_was_compiled_passes() -> None:
    assert failures(RIGHT) == set()


@pytest.mark.parametrize(
    ("path", "value", "control"),
    [
        (("status", "CapEff"), ["0000000000000001"], Control.PRIVILEGES),
        (("status", "CapBnd"), ["000001ffffffffff"], Control.PRIVILEGES),
        (("status", "NoNewPrivs"), ["0"], Control.PRIVILEGES),
        (("status", "Seccomp"), ["0"], Control.SYSCALLS),
        (("status", "Uid"), ["1000", "0", "1000", "1000"], Control.IDENTITY),
        (("status", "Gid"), ["0"] * 4, Control.IDENTITY),
        (("mounts", 0, "options"), ["rw", "nosuid"], Control.ROOT_FS),
        (("mounts", 2, "options"), ["rw", "nodev"], Control.PRIVILEGES),
        (("interfaces",), ["eth0", "lo"], Control.NETWORK),
        (("devices",), ["null", "sda"], Control.ROOT_FS),
        (("processes",), [1, 2, 77], Control.NAMESPACES),
        (("session",), 0, Control.NAMESPACES),
        (("limits", "msgqueue"), ["unlimited"] * 2, Control.PRIVILEGES),
        (("cgroups",), ["/crucible/x"], Control.NAMESPACES),
        (("limits", "nofile"), ["1024", "1048576"], Control.OPEN_FILES),
        (("limits", "core"), ["0", "unlimited"], Control.PRIVILEGES),
        (("limits", "rtprio"), ["0", "99"], Control.PRIVILEGES),
        (("scratch", "/tmp"), TMP * 2, Control.DISK),
        (("scratch", "/dev/shm"), 0, Control.DISK),
    ],
)
def test_each_difference_is_noticed(path: tuple[str | int, ...], value: object, control: Control) -> None:
    changed = deepcopy(RIGHT)
    at: Any = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert failures(changed) == {control}


def test_a_pod_may_have_an_interface_of_its_own() -> None:
    checks = from_inside({**RIGHT, "interfaces": ["eth0", "lo"]}, workload(), "kubernetes")
    assert all(check.ok for check in checks)


def test_one_shared_namespace_is_noticed() -> None:
    ours = {name: f"{name}:[1]" for name in ("pid", "net", "mnt", "ipc", "uts", "cgroup")}
    (apart,) = namespace_checks({name: f"{name}:[2]" for name in ours}, ours)
    assert apart.ok
    for name, link in ours.items():
        (check,) = namespace_checks({**{one: f"{one}:[2]" for one in ours}, name: link}, ours)
        assert not check.ok
