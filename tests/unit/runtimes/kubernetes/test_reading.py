"""What a pod's status means for an instance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from crucible.model.instance import State
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.compile import pod
from crucible.runtimes.kubernetes.output import log_line
from crucible.runtimes.kubernetes.reading import instance_of, unix_time
from crucible.runtimes.kubernetes.settings import KubernetesSettings

sys.path.insert(0, str(Path(__file__).parent))

from workloads import FILES, FIRST, UID, workload

OWNER = marks.Owner("team-a", "word-count", UID)
AT = "2026-01-31T09:30:00Z"


def read(status: dict[str, Any], node: str = "", **meta: Any) -> Any:
    made = pod(workload(listen=(80,)), FIRST, KubernetesSettings(), "c", FILES)
    made["spec"] |= {"nodeName": node} if node else {}
    made["metadata"] |= {"uid": "u", "creationTimestamp": AT, **meta}
    return instance_of({**made, "status": status}, OWNER, FIRST)


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "plugin", "state": state}]}


def test_a_pod_that_nobody_looked_at_yet_is_starting() -> None:
    found = read({})
    assert found.state is State.STARTING
    assert found.revision == workload(listen=(80,)).revision
    assert found.created_at == unix_time(AT)
    assert found.endpoints == ("80 at word-count.team-a.svc:80",)


def test_readiness_is_what_the_kubelet_says() -> None:
    status = {"phase": "Running", **container(running={"startedAt": AT})}
    assert read(status).ready is None
    for ready in (True, False):
        status["containerStatuses"][0]["ready"] = ready
        assert read(status).ready is ready


def test_a_pod_whose_container_runs_is_running_and_one_that_is_deleted_is_stopping() -> None:
    status = {"phase": "Running", **container(running={"startedAt": AT})}
    assert read(status).state is State.RUNNING
    going = read(status, deletionTimestamp="2026-01-31T09:30:10Z", deletionGracePeriodSeconds=10)
    assert going.state is State.STOPPING
    assert going.stopping_at == unix_time(AT)


def test_a_pod_that_is_deleted_without_grace_is_taken_away_and_was_not_asked_to_stop() -> None:
    status = {"phase": "Running", **container(running={"startedAt": AT})}
    at_once = {"deletionTimestamp": AT, "deletionGracePeriodSeconds": 0}
    assert read(status, **at_once, node="a").stopping_at is None
    assert read(status, **at_once).stopping_at == unix_time(AT), "it is on no node: nothing of it ever ran"
    ended = {"phase": "Failed", **container(terminated={"exitCode": 143, "finishedAt": AT})}
    assert read(ended, **at_once, node="a").stopping_at == unix_time(AT), "its kubelet says that it ended"


@pytest.mark.parametrize(
    ("ended", "reason", "words"),
    [
        ({"exitCode": 0}, "Completed", "exited with status 0"),
        ({"exitCode": 3}, "Crashed", "exited with status 3"),
        ({"exitCode": 139}, "Crashed", "SIGSEGV"),
        ({"exitCode": 137, "reason": "OOMKilled"}, "OOMKilled", "memory limit"),
        ({"exitCode": 1, "reason": "OOMKilled"}, "OOMKilled", "memory limit"),
        ({"exitCode": 128, "reason": "StartError", "message": "no such file"}, "StartFailed", "no such file"),
    ],
)
def test_a_container_that_ended_says_how(ended: dict[str, Any], reason: str, words: str) -> None:
    found = read({"phase": "Failed", **container(terminated={**ended, "finishedAt": AT})})
    assert found.state is State.EXITED
    assert found.exit.reason == reason
    assert words in str(found.exit)
    assert found.exit.at == unix_time(AT)
    assert found.endpoints == ()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"reason": "Evicted", "message": "Usage of EmptyDir volume"}, "evicted by its node: Usage of"),
        ({"reason": "NodeLost"}, "lost with its node"),
        ({"reason": "OutOfcpu", "message": "Node didn't have enough"}, "refused by its node (OutOfcpu)"),
        ({"reason": "Terminated", "message": "Pod was terminated"}, "node's shutdown"),
        ({}, "nobody saw its end"),
        (
            {
                "conditions": [
                    {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
                ]
            },
            "higher priority",
        ),
    ],
)
def test_what_takes_a_pod_from_outside_is_named(status: dict[str, Any], words: str) -> None:
    found = read({"phase": "Failed", **status})
    assert found.exit.lost
    assert words in str(found.exit)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"])
def test_a_container_that_waits_for_what_will_not_come_says_why_and_the_fix(reason: str) -> None:
    found = read({"phase": "Pending", **container(waiting={"reason": reason, "message": "details"})})
    assert found.state is State.STARTING
    assert found.notices[0].startswith(f"{reason}: ")
    assert "details" in found.notices[0]


def test_a_pod_that_no_node_takes_says_so_and_one_that_is_being_made_says_nothing() -> None:
    held = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    assert "0/3 nodes" in read({"phase": "Pending", "conditions": [held]}).notices[0]
    assert read({"phase": "Pending", **container(waiting={"reason": "ContainerCreating"})}).notices == ()


def test_a_log_line_is_its_time_and_the_plugins_own_bytes() -> None:
    line = log_line(b"2026-01-31T09:30:00.123456789Z two  words\xff")
    assert line.text == b"two  words\xff"
    assert abs(line.at - unix_time(AT) - 0.123456) < 1e-5
    assert log_line(b"2026-01-31T09:30:00Z ").text == b""
    assert log_line(b"no time").text == b"no time"


def test_a_pod_whose_node_waits_for_a_secret_says_which() -> None:
    made = pod(workload(secrets=(("api", ""), ("db", ""))), FIRST, KubernetesSettings(), "c", FILES)
    made["metadata"] |= {"uid": "u", "creationTimestamp": AT}

    def notices(made: dict[str, Any], placed: str, mounted: str) -> tuple[str, ...]:
        kinds = {"PodScheduled": placed, "PodReadyToStartContainers": mounted}
        conditions = [{"type": kind, "status": status} for kind, status in kinds.items()]
        return instance_of({**made, "status": {"conditions": conditions}}, OWNER, FIRST).notices

    (notice,) = notices(made, "True", "False")
    assert notice.startswith("SecretMissing: its node waits until Secret api, db is in namespace team-a")
    assert notices(made, "False", "False") == ()
    assert notices(made, "True", "True") == ()
    plain = pod(workload(), FIRST, KubernetesSettings(), "c", FILES)
    plain["metadata"] |= {"uid": "u", "creationTimestamp": AT}
    assert notices(plain, "True", "False") == ()
