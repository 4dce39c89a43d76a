"""What people read, word for word: every rung of the ladder has its phase, reasons, messages and events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import DIGEST, capabilities, ended, identity, instance, world

from crucible.core.decide import decide
from crucible.core.enforce import enforcement_of
from crucible.core.render import render
from crucible.errors import Violation
from crucible.model.enforcement import Level
from crucible.model.instance import Exit, State
from crucible.model.manifest import PluginSpec
from crucible.model.status import PluginStatus, Replica, SourceReport

if TYPE_CHECKING:
    from crucible.model.world import World


def revision_of(of: World) -> str:
    assert isinstance(of.spec, PluginSpec)
    return render(of.identity, of.spec, SourceReport(digest=DIGEST, resolved_for="inline")).revision


REVISION = revision_of(world())
STOPPING = instance(revision=REVISION, state=State.STOPPING, stopping_at=999.0)
WRONG = (Violation("spec.type", "is required"), Violation("spec.version", "is required"))
LOST = Violation("spec.source", "path /x cannot be opened")
SIXTH = Replica(
    ordinal=0, attempt=5, revision=REVISION, crashes=(995.0, 996.0, 997.0, 998.0, 998.5), restarts=5
)


def said(of: World) -> dict[str, Any]:
    """Return all that a person can read of a decision."""
    decision = decide(of)
    status = decision.status
    return {
        "phase": status.phase.value,
        "conditions": [f"{entry.type}={entry.status} {entry.reason}" for entry in status.conditions],
        "messages": sorted({entry.message for entry in status.conditions}),
        "events": [f"{event.type} {event.reason}: {event.message}" for event in decision.events],
        "counts": (status.replicas, status.ready_replicas, status.restarts, status.attempts),
    }


CASES: dict[str, tuple[World, dict[str, Any]]] = {
    "starting": (
        world(spec={"replicas": 2}),
        {
            "phase": "Starting",
            "conditions": [
                "Ready=False Starting",
                "Progressing=True Starting",
                "Degraded=False AsExpected",
                "Stalled=False Starting",
            ],
            "messages": ["0 of 2 replicas running", "every control holds and nothing crashed lately"],
            "events": ["Normal Started: started echo-0-1", "Normal Started: started echo-1-2"],
            "counts": (0, 0, 0, 2),
        },
    ),
    "running": (
        world(instance(revision=REVISION)),
        {
            "phase": "Running",
            "conditions": [
                "Ready=True Running",
                "Progressing=False Running",
                "Degraded=False AsExpected",
                "Stalled=False Running",
            ],
            "messages": ["1 of 1 replica running", "every control holds and nothing crashed lately"],
            "events": [],
            "counts": (1, 1, 0, 1),
        },
    ),
    "replacing": (
        world(instance(revision="older")),
        {
            "phase": "Stopping",
            "conditions": [
                "Ready=False Replacing",
                "Progressing=True Replacing",
                "Degraded=False AsExpected",
                "Stalled=False Replacing",
            ],
            "messages": [
                "0 of 1 replica running; instances of another revision or replica are stopping",
                "every control holds and nothing crashed lately",
            ],
            "events": [],
            "counts": (1, 0, 0, 1),
        },
    ),
    "backing off": (
        world(
            ended(2, at=1000.0, revision=REVISION, exit=Exit(at=1000.0, signal=9, oom=True)),
            status=PluginStatus(
                instances=(Replica(ordinal=0, attempt=1, revision=REVISION, crashes=(990.0,), restarts=1),)
            ),
        ),
        {
            "phase": "BackOff",
            "conditions": [
                "Ready=False BackOff",
                "Progressing=False BackOff",
                "Degraded=True BackOff",
                "Stalled=False BackOff",
            ],
            "messages": [
                "replica 0 was killed by the kernel: it went over its memory limit; crash 2, "
                "started again at 1970-01-01T00:16:40.091786Z"
            ],
            "events": ["Warning OOMKilled: echo-0-2 was killed by the kernel: it went over its memory limit"],
            "counts": (0, 0, 1, 2),
        },
    ),
    "quarantined": (
        world(
            ended(6, at=999.0, revision=REVISION, exit=Exit(at=999.0, code=3)),
            status=PluginStatus(instances=(SIXTH,)),
        ),
        {
            "phase": "Quarantined",
            "conditions": [
                "Ready=False CrashLoop",
                "Progressing=False CrashLoop",
                "Degraded=True CrashLoop",
                "Stalled=True CrashLoop",
            ],
            "messages": [
                "replica 0 ended 6 times within the recovery window, the last time it exited with status 3; "
                "mend the plugin and apply it again, or run 'crucible restart'"
            ],
            "events": [
                "Warning Crashed: echo-0-6 exited with status 3",
                "Warning Quarantined: replica 0 ended 6 times: it is not started again",
            ],
            "counts": (0, 0, 5, 6),
        },
    ),
    "limited": (
        world(instance(revision=REVISION, notices=("output is held to 1 MiB/s", "and more"))),
        {
            "phase": "Running",
            "conditions": [
                "Ready=True Running",
                "Progressing=False Running",
                "Degraded=True Limited",
                "Stalled=False Running",
            ],
            "messages": ["1 of 1 replica running", "echo-0-1: output is held to 1 MiB/s; and more"],
            "events": [],
            "counts": (1, 1, 0, 1),
        },
    ),
    "weaker than promised": (
        world(
            instance(revision=REVISION),
            capabilities=capabilities(MEMORY=Level.DEGRADED, PIDS=Level.UNAVAILABLE),
            spec={"sandbox": {"allowDegraded": ["memory", "pids"]}},
        ),
        {
            "phase": "Running",
            "conditions": [
                "Ready=True Running",
                "Progressing=False Running",
                "Degraded=True WeakerThanPromised",
                "Stalled=False Running",
            ],
            "messages": [
                "1 of 1 replica running",
                "memory is degraded: how memory holds; pids is unavailable: how pids holds",
            ],
            "events": [],
            "counts": (1, 1, 0, 1),
        },
    ),
    "not enforceable": (
        world(instance(revision=REVISION), capabilities=capabilities(CPU=Level.UNAVAILABLE)),
        {
            "phase": "Refused",
            "conditions": [
                "Ready=False NotEnforceable",
                "Progressing=True NotEnforceable",
                "Degraded=True NotEnforceable",
                "Stalled=True NotEnforceable",
            ],
            "messages": [
                "cpu is unavailable: how cpu holds. Mend the host, or accept it with "
                "spec.sandbox.allowDegraded: [cpu]"
            ],
            "events": [
                "Warning NotEnforceable: cpu is unavailable: how cpu holds. Mend the host, or accept it with "
                "spec.sandbox.allowDegraded: [cpu]"
            ],
            "counts": (1, 0, 0, 1),
        },
    ),
    "type unavailable": (
        world(capabilities=replace(capabilities(), types=frozenset({"binary", "javascript"}))),
        {
            "phase": "Refused",
            "conditions": [
                "Ready=False TypeUnavailable",
                "Progressing=False TypeUnavailable",
                "Degraded=True TypeUnavailable",
                "Stalled=True TypeUnavailable",
            ],
            "messages": [
                "spec.type: the process runtime of this host does not offer python; it offers "
                "binary, javascript (see 'crucible doctor')"
            ],
            "events": [
                "Warning TypeUnavailable: spec.type: the process runtime of this host does not offer python; "
                "it offers binary, javascript (see 'crucible doctor')"
            ],
            "counts": (0, 0, 0, 0),
        },
    ),
    "no type available": (
        world(capabilities=replace(capabilities(), types=frozenset())),
        {
            "phase": "Refused",
            "conditions": [
                "Ready=False TypeUnavailable",
                "Progressing=False TypeUnavailable",
                "Degraded=True TypeUnavailable",
                "Stalled=True TypeUnavailable",
            ],
            "messages": [
                "spec.type: the process runtime of this host does not offer python; it offers nothing "
                "(see 'crucible doctor')"
            ],
            "events": [
                "Warning TypeUnavailable: spec.type: the process runtime of this host does not offer python; "
                "it offers nothing (see 'crucible doctor')"
            ],
            "counts": (0, 0, 0, 0),
        },
    ),
    "isolation unavailable": (
        world(
            spec={"sandbox": {"isolation": "vm"}},
            capabilities=replace(capabilities(), isolation=frozenset({"process", "container"})),
        ),
        {
            "phase": "Refused",
            "conditions": [
                "Ready=False IsolationUnavailable",
                "Progressing=False IsolationUnavailable",
                "Degraded=True IsolationUnavailable",
                "Stalled=True IsolationUnavailable",
            ],
            "messages": [
                "spec.sandbox.isolation: the process runtime of this host does not offer vm; it offers "
                "container, process (see 'crucible doctor')"
            ],
            "events": [
                "Warning IsolationUnavailable: spec.sandbox.isolation: the process runtime of this host does "
                "not offer vm; it offers container, process (see 'crucible doctor')"
            ],
            "counts": (0, 0, 0, 0),
        },
    ),
    "invalid": (
        world(spec=WRONG),
        {
            "phase": "Refused",
            "conditions": [
                "Ready=False Invalid",
                "Progressing=False Invalid",
                "Degraded=True Invalid",
                "Stalled=True Invalid",
            ],
            "messages": ["spec.type: is required; spec.version: is required"],
            "events": ["Warning Invalid: spec.type: is required; spec.version: is required"],
            "counts": (0, 0, 0, 0),
        },
    ),
    "without source": (
        world(instance(revision="older"), source=LOST),
        {
            "phase": "Pending",
            "conditions": [
                "Ready=False SourceUnavailable",
                "Progressing=False SourceUnavailable",
                "Degraded=True SourceUnavailable",
                "Stalled=True SourceUnavailable",
            ],
            "messages": ["spec.source: path /x cannot be opened"],
            "events": ["Warning SourceUnavailable: spec.source: path /x cannot be opened"],
            "counts": (1, 0, 0, 1),
        },
    ),
    "coming to rest": (
        world(STOPPING, spec={"suspend": True}),
        {
            "phase": "Stopping",
            "conditions": [
                "Ready=False Suspended",
                "Progressing=True Suspended",
                "Degraded=False Suspended",
                "Stalled=False Suspended",
            ],
            "messages": ["stopping"],
            "events": ["Normal Suspended: suspended by spec.suspend"],
            "counts": (1, 0, 0, 1),
        },
    ),
    "at rest": (
        world(spec={"suspend": True}),
        {
            "phase": "Suspended",
            "conditions": [
                "Ready=False Suspended",
                "Progressing=False Suspended",
                "Degraded=False Suspended",
                "Stalled=False Suspended",
            ],
            "messages": ["every instance is stopped; set spec.suspend to false to resume"],
            "events": ["Normal Suspended: suspended by spec.suspend"],
            "counts": (0, 0, 0, 0),
        },
    ),
    "deleting one": (
        world(STOPPING, identity=identity(deleting=True)),
        {
            "phase": "Terminating",
            "conditions": [
                "Ready=False Deleting",
                "Progressing=True Deleting",
                "Degraded=False Deleting",
                "Stalled=False Deleting",
            ],
            "messages": ["1 instance left to clear away"],
            "events": [],
            "counts": (1, 0, 0, 1),
        },
    ),
    "deleting two": (
        world(ended(1), STOPPING, identity=identity(deleting=True)),
        {
            "phase": "Terminating",
            "conditions": [
                "Ready=False Deleting",
                "Progressing=True Deleting",
                "Degraded=False Deleting",
                "Stalled=False Deleting",
            ],
            "messages": ["2 instances left to clear away"],
            "events": [],
            "counts": (1, 0, 0, 1),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_person_reads(name: str) -> None:
    scene, expected = CASES[name]
    assert said(scene) == expected


@pytest.mark.parametrize("name", CASES)
def test_every_status_says_which_runtime_which_generation_and_how_controls_hold(name: str) -> None:
    scene, _ = CASES[name]
    status = decide(scene).status
    assert status.runtime == "process"
    assert status.observed_generation == 1
    spec = scene.spec if isinstance(scene.spec, PluginSpec) else None
    assert [entry.control for entry in status.enforcement] == [
        entry.control.value for entry in enforcement_of(spec, scene.capabilities)
    ]
    assert {entry.last_transition_time for entry in status.conditions} == {scene.now}


def test_messages_are_cut_to_what_the_api_server_takes() -> None:
    long = (Violation("spec", "x" * 5000),)
    status = decide(world(spec=long)).status
    assert {len(entry.message) for entry in status.conditions} == {2048}
    assert decide(world(spec=long, status=status)).events == ()


def test_a_replica_that_runs_is_described() -> None:
    (replica,) = decide(world(instance(4, revision=REVISION, pid=77))).status.instances
    assert replica == Replica(
        ordinal=0,
        name="echo-0-4",
        attempt=4,
        state="running",
        revision=REVISION,
        pid=77,
        started_at=900.0,
        running_since=1000.0,
        ready=True,
        ready_since=1000.0,
    )


def test_a_replica_that_is_started_is_described() -> None:
    (replica,) = decide(world()).status.instances
    assert replica == Replica(
        ordinal=0, name="echo-0-1", attempt=1, state="starting", revision=REVISION, started_at=1000.0
    )


def test_a_replica_that_is_stopped_is_described() -> None:
    (replica,) = decide(world(STOPPING, spec={"suspend": True})).status.instances
    assert replica == Replica(ordinal=0, attempt=1, state="stopping")


def test_the_last_exit_says_how_it_ended() -> None:
    crashed = decide(world(ended(2, revision=REVISION, exit=Exit(at=998.0, signal=11)))).status
    last = crashed.instances[0].last_exit
    assert last is not None
    assert last.model_dump() == {
        "attempt": 2,
        "at": "1970-01-01T00:16:38.000000Z",
        "reason": "Crashed",
        "message": "was ended by SIGSEGV",
        "code": None,
        "signal": 11,
    }
    stopped = decide(world(ended(2, revision="older", stopping_at=990.0))).status.instances[0].last_exit
    assert stopped is not None
    assert (stopped.reason, stopped.code) == ("Stopped", 1)


def test_the_source_last_resolved_stays_on_record_while_it_is_away() -> None:
    before = decide(world(instance(revision=REVISION))).status
    away = decide(world(instance(revision=REVISION), source=LOST, status=before)).status
    assert away.source == before.source
    assert away.instances == before.instances
