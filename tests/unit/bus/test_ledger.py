"""What is told of faults: each once in a while, and not without end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.bus.ledger import FLOOD, FLOOD_SECONDS, QUIET, REFUSALS, REFUSALS_SECONDS, Fault, Ledger

if TYPE_CHECKING:
    import pytest


def test_each_refusal_is_told_once_in_a_while_and_not_without_end() -> None:
    now, told = [0.0], []
    ledger = Ledger(lambda: now[0])
    ledger.refused = lambda namespace, plugin, what: told.append((namespace, plugin, what))
    for _ in range(3):
        ledger.fault("here", "rude", Fault.REFUSED, "publish a.b")
    ledger.fault("here", "rude", Fault.OVERLOADED, "publish a.c")
    assert told == [("here", "rude", "publish a.b")]
    for number in range(2 * REFUSALS):
        ledger.fault("here", "rude", Fault.REFUSED, f"publish a.{number}")
    assert len(told) == REFUSALS
    ledger.fault("here", "other", Fault.REFUSED, "publish a.b")
    assert told[-1] == ("here", "other", "publish a.b")
    now[0] = REFUSALS_SECONDS
    ledger.fault("here", "rude", Fault.REFUSED, "publish a.b")
    assert told[-1] == ("here", "rude", "publish a.b")


def test_the_same_fault_again_and_again_is_counted_and_told_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [1000.0]
    ledger = Ledger(lambda: now[0])
    heard: list[str] = []
    ledger.heard = lambda _, plugin: heard.append(plugin)
    for number in range(500):
        ledger.fault("here", "flooder", Fault.MALFORMED, f"frame {number}")
    ledger.fault("here", "flooder", Fault.MISSED, "news")
    assert (heard, len(caplog.records)) == (["flooder"] * 2, 2)
    assert ledger.of("here", "flooder").faults == {Fault.MALFORMED: 500, Fault.MISSED: 1}
    now[0] += QUIET
    ledger.fault("here", "flooder", Fault.MALFORMED, "once more")
    assert (heard, len(caplog.records)) == (["flooder"] * 3, 3)


def test_who_floods_is_told_of_and_who_bursts_is_not() -> None:
    now = [1000.0]
    ledger = Ledger(lambda: now[0])
    for _ in range(3):  # bursts, each of them less than so many
        for _ in range(FLOOD - 1):
            ledger.held_back("here", "busy")
        now[0] += FLOOD_SECONDS + 1
    assert ledger.of("here", "busy").faults == {}
    for _ in range(3 * FLOOD):
        now[0] += FLOOD_SECONDS / 2 / FLOOD
        ledger.held_back("here", "flooder")
    account = ledger.of("here", "flooder")
    assert account.faults[Fault.FLOOD] == 2
    assert account.notices()[0].startswith(
        "sends without end and is held back (2 times; last: 20000 times in"
    )
