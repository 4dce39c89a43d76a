"""The pods of an examination: the operator's, under names that nobody takes for its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from crucible.breakout import expected, pods
from crucible.breakout.profile import SURELY, judged
from crucible.breakout.trial import FIRST, LIMITS, forbidden_calls
from crucible.breakout.verdict import Check
from crucible.core.scratch import scratch_sizes
from crucible.model.enforcement import Control
from crucible.runtimes.kubernetes.compile import pod
from crucible.runtimes.kubernetes.settings import KubernetesSettings

RUN = pods.Run("examined", "crucible-doctor-1", "uid-1")
SETTINGS = KubernetesSettings(seccomp="crucible/{type}.json", user_namespaces=True, pull_secret="pull")
PROGRAMS = ["main.py", "bait.py", "visitor.py", "memory.py", "share.py", "disk.py"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pod_is_held_as_the_operator_holds_one(program: str) -> None:
    asked = pods.plugin(program)
    config, made = pods.made(RUN, "x", pods.HELD, asked, SETTINGS)
    files = pods.programs(asked)
    should = pod(replace(asked, namespace="examined"), FIRST, SETTINGS, config["metadata"]["name"], files)[
        "spec"
    ]
    for spread in should["topologySpreadConstraints"]:
        spread["labelSelector"] = {"matchLabels": RUN.labels(pods.HELD)}
    assert made["spec"] == should
    assert program in files
    for each in (config, made):
        kubernetes_validate.validate(each, "1.36", strict=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_nobody_takes_what_it_makes_for_a_plugins(program: str) -> None:
    found = [
        pods.root(RUN),
        pods.policy(RUN),
        *pods.made(RUN, "x", pods.FREE, pods.plugin(program), SETTINGS),
    ]
    for each in found:
        meta = each["metadata"]
        assert "crucible.dev/" not in json.dumps(meta)
        assert meta["labels"]["app.kubernetes.io/managed-by"] == pods.MANAGER
        assert meta["namespace"] == "examined"
    assert all(each["metadata"]["ownerReferences"] == [RUN.owner] for each in found[1:])


def test_its_policy_denies_everything_to_those_who_are_held_and_to_no_others() -> None:
    spec = pods.policy(RUN)["spec"]
    assert (spec["policyTypes"], spec["ingress"], spec["egress"]) == (["Ingress", "Egress"], [], [])
    selector = spec["podSelector"]["matchLabels"].items()
    held, free = (
        pods.made(RUN, "x", part, pods.plugin("bait.py"), SETTINGS)[1] for part in (pods.HELD, pods.FREE)
    )
    assert selector <= held["metadata"]["labels"].items()
    assert not selector <= free["metadata"]["labels"].items()


def test_the_suite_fits_into_one_config_map() -> None:
    config, _ = pods.made(RUN, "x", pods.HELD, pods.plugin("main.py"), SETTINGS)
    assert len(json.dumps(config["data"])) < 256 << 10


def test_calls_are_numbered_for_each_machine_that_a_node_may_be() -> None:
    found = forbidden_calls("x86_64", "aarch64")
    assert found["x86_64"]["bpf"] == 321
    assert found["aarch64"]["bpf"] == 280
    assert {*found["x86_64"], *found["aarch64"]} >= SURELY


def check(name: str, *, ok: bool = False, control: Control = Control.SYSCALLS) -> Check:
    return Check(control, name, ok, "")


def test_a_nodes_own_profile_may_let_through_what_only_ours_denies_and_that_is_said() -> None:
    wider = [check("call io_uring_setup"), check("open a cipher socket")]
    bad = [
        *(check("call bpf"), check("unshare a user namespace"), check("clone into a mount namespace")),
        check("open a raw socket", control=Control.PRIVILEGES),
    ]
    good = [check("call kcmp", ok=True)]
    kept, said = judged([*wider, *bad, *good], ours=False)
    assert list(kept) == [*bad, *good]
    assert "lets 2 through" in said[0].detail
    assert "io_uring_setup, open a cipher socket" in said[0].detail
    assert judged([*wider, *bad], ours=True) == ((*wider, *bad), ())
    assert judged(good, ours=False) == (tuple(good), ())


def test_a_right_pod_passes_and_one_that_is_not_does_not() -> None:
    _, shared = scratch_sizes(LIMITS)
    right: dict[str, Any] = {
        "status": {
            **{kind: ["0"] for kind in expected.CAPABILITY_SETS},
            "NoNewPrivs": ["1"],
            "Seccomp": ["2"],
            "Uid": ["10001"],
            "Gid": ["10001"],
        },
        "mounts": [
            {"at": "/", "options": ["ro"], "kind": "overlay"},
            {"at": "/tmp", "options": ["rw"], "kind": "ext4"},
            {"at": "/dev/shm", "options": ["rw"], "kind": "tmpfs"},
            {"at": "/etc/hosts", "options": ["rw"], "kind": "ext4"},
            {"at": "/dev/termination-log", "options": ["rw"], "kind": "ext4"},
        ],
        "interfaces": ["eth0", "lo"],
        "devices": ["null"],
        "processes": [1],
        "session": 1,
        "cgroups": ["/"],
        "limits": {
            "nofile": ["1048576"] * 2,
            "core": ["unlimited"] * 2,
            "nice": ["0"] * 2,
            "rtprio": ["0"] * 2,
        },
        "scratch": {"/tmp": 100 << 30, "/dev/shm": shared},
    }
    failed = [
        each for each in expected.from_inside(right, pods.plugin("main.py"), expected.POD) if not each.ok
    ]
    assert {each.control for each in failed} == {Control.OPEN_FILES}, failed
    wrong = {
        **right,
        "scratch": {"/tmp": 1, "/dev/shm": shared << 4},
        "mounts": [{"at": "/", "options": ["rw"]}],
    }
    failed = [
        each for each in expected.from_inside(wrong, pods.plugin("main.py"), expected.POD) if not each.ok
    ]
    assert {each.control for each in failed} == {Control.OPEN_FILES, Control.DISK, Control.ROOT_FS}


def test_all_that_run_at_once_fit_on_a_small_node_beside_what_runs_there() -> None:
    _, pod = pods.made(RUN, "x", pods.HELD, pods.plugin("disk.py"), SETTINGS)
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "100m"
