"""Who calls from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.bus.terms import CALLERS_LIMIT, Shares
from crucible.core.backbone import Called

if TYPE_CHECKING:
    from crucible.bus.terms import Callers


def test_a_machine_whose_plugins_come_and_go_for_long_is_served_still_and_takes_no_more_memory() -> None:
    terms = Shares({})
    known: Callers = {}
    for number in range(3 * CALLERS_LIMIT):
        seat = terms.caller(known, "beta", Called("here", f"p{number}", "tokenizer", "split"))
        assert seat is not None
        assert seat.name == f"p{number}@beta"
        assert len(known) <= CALLERS_LIMIT
