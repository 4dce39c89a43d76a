"""The judgement of what a hostile program says: nothing it prints makes it look tamer than it is."""

from __future__ import annotations

import json
from typing import Any

from build import capabilities
from hypothesis import given
from hypothesis import strategies as st

from crucible.breakout.verdict import Check, listen, tallies
from crucible.model.enforcement import Control, Level

READINGS = json.dumps({"readings": {"status": {}}}).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
WORDS = st.fixed_dictionaries(
    {},
    optional={
        "attempt": JSON,
        "control": st.sampled_from([*Control, "odd"]) | JSON,
        "denied": JSON,
        "detail": JSON,
        "allowed": JSON,
        "instead": JSON,
        "readings": JSON,
        "summary": JSON,
    },
)


def attempt(**changes: Any) -> bytes:
    said = {"attempt": "leave", "control": "network", "denied": True, "detail": "no"}
    return json.dumps(said | {"allowed": True, "instead": "yes"} | changes).encode()


def summary(attempts: object) -> bytes:
    return json.dumps({"summary": {"attempts": attempts, "denied": 0}}).encode()


def test_an_attempt_and_its_counterpart_are_two_checks() -> None:
    said = listen([attempt(), READINGS, summary(1)])
    assert said.complete
    assert [(check.control, check.ok) for check in said.checks] == [(Control.NETWORK, True)] * 2


def test_what_got_through_and_what_was_forbidden_both_fail() -> None:
    said = listen([attempt(denied=False), attempt(allowed=False), READINGS, summary(2)])
    assert [check.ok for check in said.checks] == [False, True, True, False]


def test_anything_but_plain_truth_is_no_denial() -> None:
    for word in ("true", 1, None, [True]):
        first, second = listen([attempt(denied=word, allowed=word)]).checks
        assert not first.ok
        assert not second.ok


def test_an_output_that_was_cut_off_or_miscounted_is_not_complete() -> None:
    assert not listen([attempt(), READINGS]).complete
    assert not listen([attempt(), READINGS, summary(2)]).complete
    assert not listen([attempt(), summary(1)]).complete
    assert not listen([]).complete


def test_other_words_are_failures() -> None:
    deep = b"[" * 100_000
    for line in (b"hello", b"\xff\x00", deep, b"{}", attempt(control="odd")):
        (check,) = listen([line]).checks
        assert not check.ok


@given(st.lists(st.binary(max_size=60) | WORDS.map(lambda said: json.dumps(said).encode()), max_size=8))
def test_any_output_is_judged(lines: list[bytes]) -> None:
    said = listen(lines)
    for check in said.checks:
        assert isinstance(check.ok, bool)
        assert isinstance(check.detail, str)


def test_a_control_that_does_not_claim_to_be_enforced_need_not_pass() -> None:
    failed = Check(Control.CPU, "take it all", ok=False, detail="took it")
    (enforced,) = tallies(capabilities(), [failed])
    (degraded,) = tallies(capabilities(CPU=Level.DEGRADED), [failed])
    assert (enforced.holds, degraded.holds) == (False, True)
    assert (enforced.passed, enforced.tried, enforced.failures) == (0, 1, (failed,))


def test_controls_that_were_never_tried_are_not_counted() -> None:
    assert tallies(capabilities(), []) == ()
