"""Changes of Plugins: counted by reason, and one line in the log for each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from build import plugin

from crucible.core.transitions import Transition
from crucible.model.plugin import read_identity
from crucible.telemetry.chronicle import Chronicle

if TYPE_CHECKING:
    import pytest

CRASHED = (
    Transition("Ready", "False", "BackOff", "it said\n99:99:99 INFO    a line of its own"),
    Transition("Degraded", "True", "BackOff", "it said\n99:99:99 INFO    a line of its own"),
    Transition("Progressing", "False", "Running", "1 of 1"),
)


def test_a_change_is_counted_and_logged_in_one_line_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    chronicle, identity = Chronicle(), read_identity(plugin())
    with caplog.at_level(logging.INFO):
        chronicle.note(identity, CRASHED)
        chronicle.note(identity, CRASHED[:1])
    assert chronicle.counts == {
        ("Ready", "False", "BackOff"): 2,
        ("Degraded", "True", "BackOff"): 1,
        ("Progressing", "False", "Running"): 1,
    }
    place = f"{identity.namespace}/{identity.name}"
    assert [record.getMessage() for record in caplog.records][:2] == [
        f"{place}: BackOff (Ready=False, Degraded=True): it said 99:99:99 INFO a line of its own",
        f"{place}: Running (Progressing=False): 1 of 1",
    ]
