"""What a plugin was seen to use becomes the smallest manifest that covers it, and no guess."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.bus import refusal_event
from crucible.core.egress import denial_event
from crucible.core.learning import Peaks, Sample, grants_of, lesson_of, peaks_of
from crucible.core.scratch import scratch_sizes
from crucible.model.quantity import parse_bytes, parse_cpu
from crucible.model.workload import Limits

MIB = 1 << 20


def denied(grant: str, reason: str = "EgressDenied") -> dict[str, Any]:
    advice = f"; to allow it, add {grant!r} to spec.capabilities.network.connect"
    return {"reason": reason, "message": f"{grant} is not in the plugin's list{advice}"}


def test_the_peak_of_any_instance_counts() -> None:
    samples = [
        Sample("a", 0.1, 10 * MIB, 2, 0.0),
        Sample("b", 0.2501, 30 * MIB, 1, 1.0),
        Sample("b", None, None, None, 1.0),
    ]
    assert peaks_of(samples) == Peaks(251, 30 * MIB, 2, held_back=False)
    assert peaks_of([]) == Peaks(None, None, None, held_back=False)


def test_being_held_back_counts_within_one_instance() -> None:
    first, then = Sample("a", 0.1, 1, 1, 3.0), Sample("a", 0.1, 1, 1, 3.5)
    other = Sample("b", 0.1, 1, 1, 9.0)
    assert peaks_of([first, then]).held_back
    assert not peaks_of([first, other]).held_back


def test_half_as_much_again_rounded_up() -> None:
    spec = {"resources": {"cpu": "2", "memory": "256Mi", "pids": 64, "disk": "8Mi"}}
    lesson = lesson_of(spec, Peaks(101, 21 * MIB, 5, held_back=False), {})
    assert lesson.spec["resources"] == {"cpu": "160m", "memory": "32Mi", "pids": 9, "disk": "8Mi"}
    assert lesson.notes == ()
    assert spec["resources"]["memory"] == "256Mi"


@given(disk=st.integers(0, 1 << 40))
def test_what_was_seen_of_scratch_space_fits_where_it_was(disk: int) -> None:
    found = lesson_of({}, Peaks(None, None, None, held_back=False, disk=disk), {}).spec["resources"]
    limits = Limits(cpu=1, memory=1, pids=1, disk=parse_bytes(found["disk"]), open_files=1)
    assert scratch_sizes(limits)[0] >= disk * 1.5 - 1
    assert parse_bytes(found["disk"]) % MIB == 0


def test_scratch_space_that_was_nearly_full_is_told_of() -> None:
    spec = {"resources": {"disk": "8Mi"}}
    lesson = lesson_of(spec, Peaks(None, None, None, held_back=False, disk=6 * MIB), {})
    assert lesson.spec["resources"] == {"disk": "12Mi"}
    assert [note.partition(":")[0] for note in lesson.notes] == ["disk"]


def test_what_nobody_counted_stays() -> None:
    spec = {"resources": {"cpu": "2", "pids": 64}}
    assert lesson_of(spec, Peaks(None, None, None, held_back=False), {}).spec == spec


def test_one_that_was_held_back_keeps_its_cpu_and_one_at_its_limit_is_told_of() -> None:
    spec = {"resources": {"cpu": "500m", "memory": "32Mi", "pids": 4}}
    lesson = lesson_of(spec, Peaks(100, 31 * MIB, 4, held_back=True), {})
    assert lesson.spec["resources"]["cpu"] == "500m"
    assert [note.partition(":")[0] for note in lesson.notes] == ["memory", "cpu", "pids"]


def test_refused_connections_become_lines_once_and_beside_those_there_are() -> None:
    grants = grants_of([denied("a.example:443"), denied("a.example:443"), denied("[2001:db8::1]:80")])
    assert grants == {"network.connect": ("a.example:443", "[2001:db8::1]:80")}
    spec = {"capabilities": {"network": {"connect": ["b.example:443"], "listen": [80]}}}
    lesson = lesson_of(spec, Peaks(1, 1, 1, held_back=False), grants)
    assert lesson.spec["capabilities"]["network"] == {
        "connect": ["b.example:443", "a.example:443", "[2001:db8::1]:80"], "listen": [80]
    }  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [
        denied("a.example:443", reason="Started"),
        {"reason": "EgressDenied", "message": "no grant would allow it"},
        {"reason": "EgressDenied"},
        denied("a b"),
        denied("a\n- '*'"),
        denied("a.example:443") | {"message": denied("a.example:443")["message"] + " and more"},
    ],
)
def test_other_words_grant_nothing(event: dict[str, Any]) -> None:
    assert grants_of([event]) == {}


@given(cpu=st.integers(0, 64_000), memory=st.integers(0, 1 << 40), pids=st.integers(0, 10_000))
def test_a_proposal_always_covers_what_was_seen(cpu: int, memory: int, pids: int) -> None:
    found = lesson_of({}, Peaks(cpu, memory, pids, held_back=False), {}).spec["resources"]
    assert parse_cpu(found["cpu"]) >= cpu
    assert parse_bytes(found["memory"]) >= memory
    assert found["pids"] >= pids


def test_what_the_proxy_tells_of_a_refusal_is_read_back() -> None:
    for grant in ("a.example:443", "*.example.com:443", "[2001:db8::1]:443", "10.0.0.0/8:5432"):
        told = denial_event({"denied": f"{grant} is not in the plugin's list", "grant": grant})
        assert grants_of([{"reason": told.reason, "message": told.message}]) == {"network.connect": (grant,)}


@pytest.mark.parametrize(
    ("what", "grants"),
    [
        ("publish notes.saved", {"bus.publish": ("notes.saved",)}),
        ("subscribe notes.*", {"bus.subscribe": ("notes.*",)}),
        ("subscribe >", {"bus.subscribe": (">",)}),
        ("call tokenizer.split", {"bus.call": ("tokenizer.split",)}),
        ("call $host.ask", {"bus.call": ("$host.ask",)}),
        ("publish crucible.events", {}),
        ("publish notes.*", {}),
        ("call a b.c", {}),
        ("call x'; to allow it, add '>' to spec.capabilities.bus.publish", {}),
        ("store $store.put", {}),
        (f"publish {'a' * 192}", {}),
        ("", {}),
    ],
)
def test_what_the_broker_tells_of_a_refusal_is_read_back(what: str, grants: dict[str, Any]) -> None:
    told = refusal_event(what)
    assert grants_of([{"reason": told.reason, "message": told.message}]) == grants


def test_refused_messages_become_lines_beside_those_there_are() -> None:
    spec = {"capabilities": {"bus": {"publish": ["a.b"], "call": None}}}
    grants = {"bus.publish": ("a.c",), "bus.call": ("x.y",), "network.connect": ("a.example:443",)}
    lesson = lesson_of(spec, Peaks(None, None, None, held_back=False), grants)
    assert lesson.spec["capabilities"] == {
        "bus": {"publish": ["a.b", "a.c"], "call": ["x.y"]}, "network": {"connect": ["a.example:443"]}
    }  # fmt: skip
    assert len(lesson.notes) == 3
