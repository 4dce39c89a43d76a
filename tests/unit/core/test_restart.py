from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.restart import Quarantine, RestartAt, TakeBack, after_crash, delay, not_ahead, recent
from crucible.model.manifest import Recovery, Strategy
from crucible.model.status import Replica

POLICY = Recovery.model_validate_json(
    '{"maxRestarts": 3, "window": "60s", "backoff": {"initial": "100ms", "max": "2s"}}'
)
FOR_EVER = POLICY.model_copy(update={"strategy": (Strategy.RESTART,)})


def test_the_first_crash_is_answered_at_once() -> None:
    assert after_crash((50.0,), POLICY, "a") == RestartAt(50.0)


def test_waits_double_from_the_second_crash_up_to_the_limit() -> None:
    waits = [delay(count, POLICY.backoff, "a") for count in range(2, 9)]
    for wait, full in zip(waits, [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], strict=True):
        assert 0.9 * full < wait <= full


def test_the_wait_is_the_same_whenever_it_is_computed_and_differs_between_replicas() -> None:
    assert delay(5, POLICY.backoff, "a/0") == delay(5, POLICY.backoff, "a/0")
    assert delay(5, POLICY.backoff, "a/0") != delay(5, POLICY.backoff, "a/1")


def test_quarantine_follows_when_the_restarts_are_used_up() -> None:
    assert isinstance(after_crash((1.0, 2.0, 3.0), POLICY, "a"), RestartAt)
    assert after_crash((1.0, 2.0, 3.0, 4.0), POLICY, "a") == Quarantine()


def test_without_quarantine_restarts_go_on_for_ever() -> None:
    crashes = tuple(float(at) for at in range(100))
    assert isinstance(after_crash(crashes, FOR_EVER, "a"), RestartAt)


def test_zero_restarts_means_quarantine_after_the_first_crash() -> None:
    assert after_crash((1.0,), POLICY.model_copy(update={"max_restarts": 0}), "a") == Quarantine()


def test_only_crashes_within_the_window_count() -> None:
    assert recent((1.0, 40.0, 41.0, 99.0), POLICY, now=100.0) == (41.0, 99.0)


def test_no_more_crashes_are_kept_than_tell_the_steps_apart_the_newest() -> None:
    crashes = tuple(1000.0 + number / 100 for number in range(150))
    assert recent(crashes, POLICY, now=1002.0) == crashes[49:]
    most = POLICY.model_copy(update={"max_restarts": 100, "strategy": tuple(Strategy)})
    counted: tuple[float, ...] = ()
    steps: list[str] = []
    for at in crashes:
        counted = (*recent(counted, most, now=at), at)
        steps.append(step(len(counted), most))
    assert steps == ["restart"] * 100 + ["recreate"] + ["quarantine"] * 49


def step(crashes: int, recovery: Recovery, *, fallback: bool = False) -> str:
    """Return in one word what follows the nth crash."""
    match after_crash(tuple(float(at) for at in range(crashes)), recovery, "a", fallback=fallback):
        case RestartAt(afresh=afresh):
            return "recreate" if afresh else "restart"
        case TakeBack():
            return "rollback"
        case Quarantine():
            return "quarantine"


LADDERS = [
    ("restart quarantine", False, "restart restart quarantine quarantine"),
    ("restart recreate quarantine", False, "restart restart recreate quarantine"),
    ("restart recreate rollback quarantine", True, "restart restart recreate rollback rollback"),
    ("restart recreate rollback quarantine", False, "restart restart recreate quarantine"),
    ("restart rollback recreate quarantine", False, "restart restart recreate quarantine"),
    ("restart rollback", False, "restart restart restart restart"),
    ("restart rollback", True, "restart restart rollback"),
    ("restart recreate", False, "restart restart recreate recreate recreate"),
    ("recreate", False, "recreate recreate recreate"),
    ("recreate restart quarantine", False, "recreate restart restart quarantine"),
    ("rollback quarantine", True, "rollback rollback"),
    ("rollback", False, "restart restart"),
    ("quarantine", False, "quarantine quarantine"),
]


@pytest.mark.parametrize(("strategy", "fallback", "steps"), LADDERS)
def test_the_steps_are_tried_in_the_order_in_which_they_are_written(
    strategy: str, steps: str, *, fallback: bool
) -> None:
    wanted = tuple(Strategy(word) for word in strategy.split())
    recovery = POLICY.model_copy(update={"strategy": wanted, "max_restarts": 2})
    expected = steps.split()
    found = [step(crashes, recovery, fallback=fallback) for crashes in range(1, len(expected) + 1)]
    assert found == expected


@given(st.integers(min_value=0, max_value=10_000))
def test_no_wait_is_negative_or_beyond_the_limit(crashes: int) -> None:
    assert 0 <= delay(crashes, POLICY.backoff, "a") <= POLICY.backoff.max


def test_what_a_clock_that_was_set_back_wrote_down_is_brought_to_now() -> None:
    replica = Replica(ordinal=0, crashes=(90.0, 4000.0), running_since=5000.0, ready_since=95.0)
    mended = not_ahead(replica, 100.0)
    assert (mended.crashes, mended.running_since, mended.ready_since) == ((90.0, 100.0), 100.0, 95.0)
    assert not_ahead(mended, 200.0) == mended
    assert after_crash(mended.crashes, POLICY, "a").at <= 100.0 + POLICY.backoff.max  # type: ignore[union-attr]
